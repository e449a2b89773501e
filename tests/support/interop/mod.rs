//! gRPC's interoperability service, after
//! <https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod cases;

use std::{pin::Pin, time::Duration};

use callsign::server::{CallMetrics, Metrics};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, Streaming, codec::CompressionEncoding, metadata::MetadataValue};

#[allow(unused_qualifications, unnameable_types, missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("grpc.testing");
}

use proto::{
    EchoStatus, Empty, Payload, SimpleRequest, SimpleResponse, StreamingInputCallRequest, StreamingInputCallResponse,
    StreamingOutputCallRequest, StreamingOutputCallResponse, TestOrcaReport, test_service_server,
};

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

pub type TestServer = test_service_server::TestServiceServer<Service>;

/// The server's side.
#[derive(Debug, Default, Clone)]
pub struct Service {
    metrics: Option<Metrics>,
}

/// The service; with metrics, it says of its load what it is told to.
pub fn service(metrics: Option<Metrics>) -> TestServer {
    TestServer::new(Service { metrics })
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
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
        let metrics = request.extensions().get::<CallMetrics>().cloned();
        let request = request.into_inner();
        asked_for(request.response_status)?;
        if let (Some(metrics), Some(report)) = (metrics, request.orca_per_query_report) {
            metrics.set_cpu_utilization(report.cpu_utilization);
            metrics.set_memory_utilization(report.memory_utilization);
            for (name, cost) in &report.request_cost {
                metrics.set_request_cost(name, *cost);
            }
            for (name, share) in &report.utilization {
                metrics.set_utilization(name, *share);
            }
        }
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
        let metrics = self.metrics.clone();
        let replies = request.into_inner().flat_map(move |request| match request {
            Ok(mut request) => {
                if let (Some(metrics), Some(report)) = (&metrics, request.orca_oob_report.take()) {
                    say(metrics, &report);
                }
                outputs(request).boxed()
            }
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

/// Says of the server's load what a client asks it to say.
fn say(metrics: &Metrics, report: &TestOrcaReport) {
    metrics.set_cpu_utilization(report.cpu_utilization);
    metrics.set_memory_utilization(report.memory_utilization);
    for (name, share) in &report.utilization {
        metrics.set_utilization(name, *share);
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
