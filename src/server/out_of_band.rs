//! Load reports to those who ask for them: ORCA's `OpenRcaService`.

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream::unfold};
use http::{Request, Response};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::{
    Status,
    body::Body,
    server::{Grpc, NamedService, ServerStreamingService},
};
use tower_service::Service;

use super::{BoxError, layer::State};
use crate::{
    registry::BoxFuture,
    report::{METHOD, Message, interval as asked},
    util::raw::Raw,
};

/// Nobody gets a report more often than each second; who does not say how often gets one each 10 s.
const LEAST: Duration = Duration::from_secs(1);
const USUAL: Duration = Duration::from_secs(10);
/// Timers know no longer waits than some years.
const MOST: Duration = Duration::from_secs(86_400);

/// The gRPC service `xds.service.orca.v3.OpenRcaService`, for a router: it streams load reports, the first at once
/// and then as often as the client asks, but not more than each second; each 10 s if it does not say.
///
/// A report has what the application [says](super::Registration::metrics), and what the
/// [layer](super::Registration::layer) counts. When the registration is shut down, streams end with UNAVAILABLE: else
/// they would keep their connections from closing.
///
/// ```no_run
/// # async fn serve(registration: callsign::Registration) -> Result<(), Box<dyn std::error::Error>> {
/// let router = tonic::transport::Server::builder()
///     .layer(registration.layer())
///     .add_service(registration.load_reports());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LoadReports {
    state: Arc<State>,
    measured: bool,
}

impl LoadReports {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, measured: true }
    }

    /// Sets whether reports have what the layer counts, or only what the application says. Default true.
    #[must_use]
    pub fn measured(mut self, measured: bool) -> Self {
        self.measured = measured;
        self
    }

    fn report(&self) -> Vec<u8> {
        let mut message = Message::new();
        if self.measured {
            message.measured(&self.state.measure.report(Instant::now(), 0));
        }
        self.state.metrics.with_encoded(|encoded| message.append(encoded));
        message.bytes().to_vec()
    }

    fn stream(self, every: Duration) -> impl Stream<Item = Result<Vec<u8>, Status>> + Send {
        let mut ticks = interval(every.clamp(LEAST, MOST));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        unfold(Some((self, ticks)), |going| async {
            let (reports, mut ticks) = going?;
            let draining = tokio::select! {
                () = reports.state.in_flight.draining() => true,
                _ = ticks.tick() => false,
            };
            if draining {
                return Some((Err(Status::unavailable("the server is shutting down")), None));
            }
            Some((Ok(reports.report()), Some((reports, ticks))))
        })
    }
}

impl NamedService for LoadReports {
    const NAME: &'static str = "xds.service.orca.v3.OpenRcaService";
}

impl<B> Service<Request<B>> for LoadReports
where
    B: http_body::Body<Error: Into<BoxError> + Send> + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != METHOD {
            return Box::pin(ready(Ok(Status::unimplemented("there is no such method").into_http())));
        }
        let streaming = Streaming(self.clone());
        Box::pin(async {
            let mut grpc = Grpc::new(Raw).max_decoding_message_size(64 << 10);
            Ok(grpc.server_streaming(streaming, request).await)
        })
    }
}

struct Streaming(LoadReports);

impl ServerStreamingService<Vec<u8>> for Streaming {
    type Response = Vec<u8>;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Vec<u8>>) -> Self::Future {
        let every = asked(request.get_ref()).unwrap_or(USUAL);
        ready(Ok(tonic::Response::new(self.0.clone().stream(every).boxed())))
    }
}
