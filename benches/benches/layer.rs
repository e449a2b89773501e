//! What the server's layer costs a request: instructions and allocations, beside the same service without it.
//!
//! `cargo bench -p callsign-bench --bench layer`; without valgrind, allocations alone.

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use callsign::{
    Registration, ServiceInstance,
    registry::Memory,
    server::{AdaptiveLimit, CallMetrics},
};
use callsign_bench::{
    counter::Allocations,
    table::write,
    valgrind::{self, COUNT},
};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use serde_json::json;
use tower::{Layer, Service};

/// How the layer is set, and the instructions and allocations past those without it that a request may cost at most.
const GATES: [(&str, u64, f64); 7] = [
    ("without", 0, 0.0),
    ("counts", 1_500, 0.0),
    ("reports", 4_500, 1.0),
    ("reports and metrics", 4_800, 1.0),
    ("reports of calls", 10_500, 15.0),
    ("reports, adaptive limit", 4_700, 1.0),
    ("shed", 4_500, 3.0),
];

/// So often it is counted.
const TIMES: usize = 400;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _in_it = runtime.enter();
    if let [flag, name, times] = args.as_slice()
        && flag == COUNT
    {
        let (mut call, times) = (call_of(name)?, times.parse::<usize>()?);
        return valgrind::count(times, &mut |times| {
            times.for_each(|_| call());
            Ok(())
        });
    }
    let counts = valgrind::is_there();
    let (mut rows, mut over, mut without) = (Vec::new(), Vec::new(), (0, 0.0));
    println!("{:<26}{:>16}{:>10}{:>14}{:>10}", "", "instructions", "at most", "allocations", "at most");
    for (name, most, most_allocated) in GATES {
        let instructions = if counts { valgrind::instructions(&[name], TIMES)? } else { 0 };
        let mut call = call_of(name)?;
        (0..TIMES).for_each(|_| call());
        let allocations = Allocations::count();
        (0..TIMES).for_each(|_| call());
        let allocations = allocations.so_far().0 as f64 / TIMES as f64;
        if name == "without" {
            without = (instructions, allocations);
        }
        let (most, most_allocated) = (without.0 + most, without.1 + most_allocated);
        println!("{name:<26}{instructions:>16}{most:>10}{allocations:>14.2}{most_allocated:>10.2}");
        rows.push(json!({ "what": name, "instructions": instructions, "allocations": allocations }));
        if instructions > most || allocations > most_allocated {
            over.push(name);
        }
    }
    write("layer.json", &rows)?;
    if over.is_empty() { Ok(()) } else { Err(format!("dearer than before: {}", over.join(", ")).into()) }
}

/// Makes one call.
type Call = Box<dyn FnMut()>;

fn call_of(name: &str) -> Result<Call, Box<dyn Error>> {
    let instance = ServiceInstance::builder("echo", "one")?.build()?;
    let registration = Registration::new(&Memory::new().into(), instance)?;
    let layer = registration.layer();
    let layer = match name {
        "without" => return Ok(through(Answering)),
        "counts" => layer.reports(false),
        "reports" => layer,
        "reports and metrics" => {
            let metrics = registration.metrics();
            metrics.set_cpu_utilization(0.5);
            metrics.set_named_metric("queue", 7.0);
            layer
        }
        "reports of calls" => layer.call_metrics(true),
        "reports, adaptive limit" => layer.adaptive_limit(AdaptiveLimit::new()),
        "shed" => layer.limit(0),
        _ => return Err(format!("there is no {name}").into()),
    };
    Ok(through(layer.layer(Answering)))
}

/// A request through a service, to the end of its response.
fn through<S, B>(mut service: S) -> Call
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible> + 'static,
    B: Body<Data = Bytes>,
{
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        let mut request = Request::new(());
        *request.uri_mut() = PATH.clone();
        request.headers_mut().insert(CONTENT_TYPE, GRPC);
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else { panic!("no answer") };
        let mut body = pin!(response.into_body());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
            black_box(frame.ok());
        }
    })
}

static PATH: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("http://echo/echo.v1.Echo/Unary"));
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A service that answers as gRPC does.
#[derive(Debug, Clone)]
struct Answering;

impl Service<Request<()>> for Answering {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        if let Some(metrics) = request.extensions().get::<CallMetrics>() {
            metrics.set_request_cost("rows", 7.0);
        }
        let mut response = Response::new(Reply::Data);
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        ready(Ok(response))
    }
}

/// A message, then a status.
#[derive(Debug)]
enum Reply {
    Data,
    Trailers,
    Ended,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match *self {
            Self::Data => Frame::data(Bytes::from_static(b"\0\0\0\0\0")),
            Self::Trailers => {
                // As tonic makes it.
                let mut trailers = HeaderMap::with_capacity(3);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
            Self::Ended => return Poll::Ready(None),
        };
        *self = if matches!(*self, Self::Data) { Self::Trailers } else { Self::Ended };
        Poll::Ready(Some(Ok(frame)))
    }
}
