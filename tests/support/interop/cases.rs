//! The cases, each against a server.

use std::time::{Duration, Instant};

use callsign::{Channel, report::LoadReport};
use futures_util::{StreamExt, future::join_all, stream};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, codec::CompressionEncoding, metadata::MetadataValue};

use super::{
    INITIAL, TRAILING,
    proto::{
        BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
        StreamingOutputCallRequest, TestOrcaReport, test_service_client::TestServiceClient,
        unimplemented_service_client::UnimplementedServiceClient,
    },
};

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

/// What servers say of their load, where they say nothing else of it: `orca_per_rpc` and `orca_oob`.
pub async fn run_orca(channel: &Channel) {
    timeout(Duration::from_secs(30), orca_per_rpc(channel.clone())).await.expect("orca_per_rpc");
    timeout(Duration::from_secs(30), orca_oob(channel.clone())).await.expect("orca_oob");
}

fn asked_to_report(cpu_utilization: f64, memory_utilization: f64, util: f64) -> (TestOrcaReport, LoadReport) {
    let utilization = [("util".to_owned(), util)];
    let mut expected = LoadReport::default();
    expected.cpu_utilization = cpu_utilization;
    expected.memory_utilization = memory_utilization;
    expected.utilization.extend(utilization.clone());
    let utilization = utilization.into();
    (TestOrcaReport { cpu_utilization, memory_utilization, utilization, ..Default::default() }, expected)
}

async fn orca_per_rpc(channel: Channel) {
    let (mut report, mut expected) = asked_to_report(0.821, 0.5847, 0.30499);
    report.request_cost.insert("cost".to_owned(), 3_456.32);
    expected.request_cost.insert("cost".to_owned(), 3_456.32);
    let request = SimpleRequest { orca_per_query_report: Some(report), ..SimpleRequest::default() };
    let response = Client::new(channel).unary_call(request).await.unwrap();
    assert_eq!(LoadReport::from_headers(&response.metadata().clone().into_headers()), Some(expected));
}

async fn orca_oob(channel: Channel) {
    let (send, requests) = mpsc::channel(1);
    let mut replies = None;
    let mut requests = Some(ReceiverStream::new(requests));
    for (cpu, memory, util) in [(0.821, 0.5847, 0.30499), (0.29309, 0.2, 0.2039)] {
        let (report, expected) = asked_to_report(cpu, memory, util);
        let request = StreamingOutputCallRequest {
            orca_oob_report: Some(report),
            response_parameters: sizes(&[1]),
            ..Default::default()
        };
        send.send(request).await.unwrap();
        if let Some(requests) = requests.take() {
            replies = Some(Client::new(channel.clone()).full_duplex_call(requests).await.unwrap().into_inner());
        }
        assert!(replies.as_mut().unwrap().message().await.unwrap().is_some());
        // grpc-go's server reports each 30 s at most, but the first at once.
        let mut reports = channel.load_reports(Duration::from_secs(1)).await.unwrap();
        assert_eq!(reports.next().await.unwrap().unwrap(), expected);
    }
}
