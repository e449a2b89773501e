//! gRPC's interoperability service and its cases, after
//! <https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use callsign::Channel;
use futures_util::{Stream, StreamExt, future::join_all, stream};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, codec::CompressionEncoding, metadata::MetadataValue};

#[allow(unused_qualifications, unnameable_types, missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("grpc.testing");
}

use proto::{
    BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse,
    test_service_client::TestServiceClient, test_service_server,
    unimplemented_service_client::UnimplementedServiceClient,
};

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

pub type TestServer = test_service_server::TestServiceServer<Service>;

/// The server's side.
#[derive(Debug, Default, Clone)]
pub struct Service;

pub fn service() -> TestServer {
    TestServer::new(Service).accept_compressed(CompressionEncoding::Gzip).send_compressed(CompressionEncoding::Gzip)
}

type Outputs = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;

fn zeros(size: i32) -> Result<Option<Payload>, Status> {
    let size = usize::try_from(size).map_err(|_| Status::invalid_argument("a size below 0"))?;
    Ok(Some(Payload { r#type: 0, body: vec![0; size] }))
}

fn asked_for(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => Err(Status::new(Code::from_i32(code), message)),
        _ => Ok(()),
    }
}

/// What was asked to come back, as initial metadata and at the end.
fn echoes<T>(request: &Request<T>, response: &mut Response<impl Sized>) -> Option<Vec<u8>> {
    if let Some(value) = request.metadata().get(INITIAL) {
        response.metadata_mut().insert(INITIAL, value.clone());
    }
    request.metadata().get_bin(TRAILING).map(|value| value.to_bytes().unwrap().to_vec())
}

/// tonic tells no handler whether a message came compressed; it decompresses those that did.
#[tonic::async_trait]
impl test_service_server::TestService for Service {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(&self, request: Request<SimpleRequest>) -> Result<Response<SimpleResponse>, Status> {
        let mut response = Response::new(SimpleResponse::default());
        let trailing = echoes(&request, &mut response);
        let encoding = request.metadata().get("grpc-encoding").is_some();
        let request = request.into_inner();
        asked_for(request.response_status)?;
        if request.expect_compressed.is_some_and(|expected| expected.value) && !encoding {
            return Err(Status::invalid_argument("it should have come compressed"));
        }
        response.get_mut().payload = zeros(request.response_size)?;
        if request.response_compressed.is_some_and(|compressed| !compressed.value) {
            response.disable_compression();
        }
        // Trailers of a success are metadata of its end, which tonic lets only streams set.
        if let Some(trailing) = trailing {
            response.extensions_mut().insert(Trailing(trailing));
        }
        Ok(response)
    }

    type StreamingOutputCallStream = Outputs;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Outputs>, Status> {
        let request = request.into_inner();
        Ok(Response::new(Box::pin(outputs(request))))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let (mut requests, mut aggregated_payload_size) = (request.into_inner(), 0);
        while let Some(request) = requests.message().await? {
            aggregated_payload_size += request.payload.map_or(0, |payload| payload.body.len() as i32);
        }
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    type FullDuplexCallStream = Outputs;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Outputs>, Status> {
        let mut response = Response::new(());
        let trailing = echoes(&request, &mut response);
        let replies = request.into_inner().flat_map(|request| match request {
            Ok(request) => outputs(request).boxed(),
            Err(status) => stream::iter([Err(status)]).boxed(),
        });
        if let Some(trailing) = trailing {
            response.extensions_mut().insert(Trailing(trailing));
        }
        Ok(response.map(|()| Box::pin(replies) as Outputs))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("nobody implements this"))
    }
}

/// For the trailers of a success.
#[derive(Debug, Clone)]
struct Trailing(Vec<u8>);

/// Puts what handlers leave behind into the trailers.
pub fn trailers(response: http::Response<tonic::body::Body>) -> http::Response<tonic::body::Body> {
    use http_body_util::BodyExt;
    let Some(Trailing(value)) = response.extensions().get::<Trailing>().cloned() else { return response };
    let value = MetadataValue::from_bytes(&value);
    let value = http::HeaderValue::from_bytes(value.as_encoded_bytes()).unwrap();
    response.map(|body| {
        tonic::body::Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.insert(TRAILING, value.clone());
                http_body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

fn outputs(
    request: StreamingOutputCallRequest,
) -> impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send {
    let status = asked_for(request.response_status).err();
    let replies = stream::iter(request.response_parameters).then(|wanted| async move {
        sleep(Duration::from_micros(wanted.interval_us.try_into().unwrap_or(0))).await;
        Ok(StreamingOutputCallResponse { payload: zeros(wanted.size)? })
    });
    replies.chain(stream::iter(status.map(Err)))
}

// ── the cases, each against a server ────────────────────────────────────────────────────────────

type Client = TestServiceClient<Channel>;

fn body(size: usize) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; size] })
}

fn sizes(sizes: &[i32]) -> Vec<ResponseParameters> {
    sizes.iter().map(|&size| ResponseParameters { size, ..ResponseParameters::default() }).collect()
}

fn large() -> SimpleRequest {
    SimpleRequest { response_size: 314_159, payload: body(271_828), ..SimpleRequest::default() }
}

fn length(payload: Option<Payload>) -> usize {
    payload.map_or(0, |payload| payload.body.len())
}

const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [i32; 4] = [31_415, 9, 2_653, 58_979];

/// Runs every case but those of compression; tells their names.
pub async fn run_all(channel: &Channel) -> Vec<&'static str> {
    let mut done = Vec::new();
    macro_rules! case {
        ($($case:ident),*) => {$(
            timeout(Duration::from_secs(30), $case(channel.clone())).await.expect(stringify!($case));
            done.push(stringify!($case));
        )*};
    }
    case!(
        empty_unary,
        large_unary,
        client_streaming,
        server_streaming,
        ping_pong,
        empty_stream,
        cancel_after_begin,
        cancel_after_first_response,
        timeout_on_sleeping_server,
        custom_metadata,
        status_code_and_message,
        special_status_message,
        unimplemented_method,
        unimplemented_service,
        rpc_soak
    );
    done
}

/// An empty call.
pub async fn empty(channel: Channel) -> Result<(), Status> {
    Client::new(channel).empty_call(Empty {}).await.map(drop)
}

async fn empty_unary(channel: Channel) {
    assert_eq!(Client::new(channel).empty_call(Empty {}).await.unwrap().into_inner(), Empty {});
}

async fn large_unary(channel: Channel) {
    let reply = Client::new(channel).unary_call(large()).await.unwrap().into_inner();
    assert_eq!(length(reply.payload), 314_159);
}

async fn client_streaming(channel: Channel) {
    let requests = REQUESTS.map(|size| StreamingInputCallRequest { payload: body(size), expect_compressed: None });
    let reply = Client::new(channel).streaming_input_call(stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(reply.aggregated_payload_size, 74_922);
}

async fn server_streaming(channel: Channel) {
    let request = StreamingOutputCallRequest { response_parameters: sizes(&RESPONSES), ..Default::default() };
    let replies = Client::new(channel).streaming_output_call(request).await.unwrap().into_inner();
    let lengths: Vec<_> = replies.map(|reply| length(reply.unwrap().payload) as i32).collect().await;
    assert_eq!(lengths, RESPONSES);
}

async fn ping_pong(channel: Channel) {
    let (send, requests) = mpsc::channel(1);
    let ask = |at: usize| StreamingOutputCallRequest {
        response_parameters: sizes(&RESPONSES[at..=at]),
        payload: body(REQUESTS[at]),
        ..Default::default()
    };
    send.send(ask(0)).await.unwrap();
    let mut replies = Client::new(channel).full_duplex_call(ReceiverStream::new(requests)).await.unwrap().into_inner();
    for (at, size) in RESPONSES.into_iter().enumerate() {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!(length(reply.payload) as i32, size);
        if at < 3 {
            send.send(ask(at + 1)).await.unwrap();
        }
    }
    drop(send);
    assert!(replies.message().await.unwrap().is_none());
}

async fn empty_stream(channel: Channel) {
    let mut replies = Client::new(channel).full_duplex_call(stream::empty()).await.unwrap().into_inner();
    assert!(replies.message().await.unwrap().is_none());
}

async fn cancel_after_begin(channel: Channel) {
    let mut client = Client::new(channel.clone());
    let call = tokio::spawn(async move { client.streaming_input_call(stream::pending()).await });
    sleep(Duration::from_millis(20)).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    empty_unary(channel).await;
}

async fn cancel_after_first_response(channel: Channel) {
    let first = StreamingOutputCallRequest {
        response_parameters: sizes(&[31_415]),
        payload: body(27_182),
        ..Default::default()
    };
    let requests = stream::iter([first]).chain(stream::pending());
    let mut replies = Client::new(channel.clone()).full_duplex_call(requests).await.unwrap().into_inner();
    assert_eq!(length(replies.message().await.unwrap().unwrap().payload), 31_415);
    drop(replies);
    empty_unary(channel).await;
}

async fn timeout_on_sleeping_server(channel: Channel) {
    let first = StreamingOutputCallRequest { payload: body(27_182), ..Default::default() };
    let mut request = Request::new(stream::iter([first]).chain(stream::pending()));
    request.set_timeout(Duration::from_millis(1));
    let status = match Client::new(channel).full_duplex_call(request).await {
        Err(status) => status,
        Ok(replies) => replies.into_inner().message().await.unwrap_err(),
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

async fn custom_metadata(channel: Channel) {
    fn asking<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(INITIAL, "test_initial_metadata_value".parse().unwrap());
        request.metadata_mut().insert_bin(TRAILING, MetadataValue::from_bytes(&[0xab; 3]));
        request
    }
    let response = Client::new(channel.clone()).unary_call(asking(large())).await.unwrap();
    // A unary response of tonic's has both together.
    assert_eq!(response.metadata().get(INITIAL).unwrap(), "test_initial_metadata_value");
    assert_eq!(response.metadata().get_bin(TRAILING).unwrap().to_bytes().unwrap().as_ref(), [0xab; 3]);

    let one = StreamingOutputCallRequest {
        response_parameters: sizes(&[314_159]),
        payload: body(271_828),
        ..Default::default()
    };
    let response = Client::new(channel).full_duplex_call(asking(stream::iter([one]))).await.unwrap();
    assert_eq!(response.metadata().get(INITIAL).unwrap(), "test_initial_metadata_value");
    let mut replies = response.into_inner();
    assert!(replies.message().await.unwrap().is_some() && replies.message().await.unwrap().is_none());
    let trailers = replies.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get_bin(TRAILING).unwrap().to_bytes().unwrap().as_ref(), [0xab; 3]);
}

async fn status_code_and_message(channel: Channel) {
    let status = Some(EchoStatus { code: 2, message: "test status message".to_owned() });
    let unary = SimpleRequest { response_status: status.clone(), ..SimpleRequest::default() };
    let ended = Client::new(channel.clone()).unary_call(unary).await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unknown, "test status message"));
    let one = StreamingOutputCallRequest { response_status: status, ..Default::default() };
    let ended = match Client::new(channel).full_duplex_call(stream::iter([one])).await {
        Err(status) => status,
        Ok(replies) => replies.into_inner().message().await.unwrap_err(),
    };
    assert_eq!((ended.code(), ended.message()), (Code::Unknown, "test status message"));
}

async fn special_status_message(channel: Channel) {
    let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    let status = Some(EchoStatus { code: 2, message: message.to_owned() });
    let request = SimpleRequest { response_status: status, ..SimpleRequest::default() };
    let ended = Client::new(channel).unary_call(request).await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unknown, message));
}

async fn unimplemented_method(channel: Channel) {
    let status = Client::new(channel).unimplemented_call(Empty {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

async fn unimplemented_service(channel: Channel) {
    let status = UnimplementedServiceClient::new(channel).unimplemented_call(Empty {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

/// Many calls on one channel; channels of their own are the caller's to make.
async fn rpc_soak(channel: Channel) {
    let callers = (0..10).map(|_| async {
        for _ in 0..20 {
            let begun = Instant::now();
            large_unary(channel.clone()).await;
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    });
    join_all(callers).await;
}

/// One large call on a channel of its own, as each of a channel soak.
pub async fn soak_channel(channel: Channel) {
    large_unary(channel).await;
}

/// The cases of compression, against a server that knows them.
pub async fn run_compressed(channel: &Channel) {
    let plain = Client::new(channel.clone());
    let mut both =
        plain.clone().send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    let yes = Some(BoolValue { value: true });
    let no = Some(BoolValue { value: false });

    // client_compressed_unary, with its probe; and uncompressed.
    let probe = SimpleRequest { expect_compressed: yes, ..large() };
    let status = plain.clone().unary_call(probe.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(length(both.unary_call(probe).await.unwrap().into_inner().payload), 314_159);
    let uncompressed = SimpleRequest { expect_compressed: no, ..large() };
    assert_eq!(length(plain.clone().unary_call(uncompressed).await.unwrap().into_inner().payload), 314_159);
    // server_compressed_unary, both ways.
    for (compressed, encoded) in [(yes, true), (no, true)] {
        let request = SimpleRequest { response_compressed: compressed, ..large() };
        let response = both.unary_call(request).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").is_some(), encoded);
        assert_eq!(length(response.into_inner().payload), 314_159);
    }
    // client_compressed_streaming and server_compressed_streaming.
    let requests = REQUESTS.map(|size| StreamingInputCallRequest { payload: body(size), expect_compressed: yes });
    let reply = both.streaming_input_call(stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(reply.aggregated_payload_size, 74_922);
    let request = StreamingOutputCallRequest { response_parameters: sizes(&RESPONSES), ..Default::default() };
    let replies = both.streaming_output_call(request).await.unwrap().into_inner();
    let lengths: Vec<_> = replies.map(|reply| length(reply.unwrap().payload) as i32).collect().await;
    assert_eq!(lengths, RESPONSES);
}
