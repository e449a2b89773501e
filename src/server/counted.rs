//! One request on its way through the layer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{layer::Settings, metrics::CallMetrics};
use crate::{
    report::{ANNOUNCES, HEADER, Message, PROBE},
    util::{content_type::is_grpc, mix::mix},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When a client may try again ([A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback)).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// One request in flight, counted out when this is dropped.
#[derive(Debug)]
pub(super) struct Counting {
    settings: Arc<Settings>,
    /// None of those that are no load: health checks and the like.
    load: Option<Load>,
}

#[derive(Debug)]
struct Load {
    begun: Instant,
    /// In flight when it came, itself among them.
    in_flight: usize,
    call: Option<CallMetrics>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        if self.load.is_some() {
            self.settings.state.measure.end();
        }
        self.settings.state.in_flight.leave();
    }
}

impl Counting {
    /// Counts a request in; or answers it at once: a probe, and what is shed.
    pub(super) fn begin<B>(settings: &Arc<Settings>, request: &mut Request<B>) -> Result<Self, Box<Response<()>>> {
        let state = &settings.state;
        if request.uri().path() == PROBE && settings.answers_probes() {
            return Err(Box::new(probed(settings, request.headers())));
        }
        state.in_flight.enter();
        let mut counting = Self { settings: settings.clone(), load: None };
        if is_no_load(request.uri().path()) {
            return Ok(counting);
        }
        let in_flight = state.measure.begin();
        let load = counting.load.insert(Load { begun: Instant::now(), in_flight, call: None });
        if !settings.limit.admits(in_flight) {
            state.measure.shed();
            return Err(Box::new(counting.shed(request.headers())));
        }
        state.measure.taken();
        if settings.call_metrics {
            request.extensions_mut().insert(load.call.insert(CallMetrics::default()).clone());
        }
        Ok(counting)
    }

    /// The answer to a request that is not taken.
    fn shed(&self, request: &HeaderMap) -> Response<()> {
        let mut response = Response::new(());
        if !has_grpc(request) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
            return response;
        }
        // From 50 to 150 ms, so that they do not come back as one.
        let pushback = 50 + mix(self.settings.state.measure.total_shed()) % 101;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, GRPC);
        headers.insert(STATUS, 8.into());
        headers.insert(MESSAGE, HeaderValue::from_static("the server has as many requests in flight as it takes"));
        headers.insert(PUSHBACK, pushback.into());
        self.report(headers);
        response
    }

    /// The head of the response is here; of gRPC's, it may be all there is. Tells whether a report is to follow.
    fn answered<B>(&self, response: &mut Response<B>) -> bool {
        let Some(load) = &self.load else { return false };
        let grpc = has_grpc(response.headers());
        let ended = grpc && response.headers().contains_key(STATUS);
        let failed = response.status().is_server_error() || ended && is_failure(response.headers());
        if ended {
            self.ended(response.headers_mut());
        } else if failed {
            self.settings.state.measure.failed();
        }
        // Who fails at once is not quick.
        if !failed {
            let now = Instant::now();
            let took = now.saturating_duration_since(load.begun);
            self.settings.state.measure.answered(load.in_flight, took, now);
            self.settings.limit.answered(load.in_flight, took, now);
        }
        grpc && !ended
    }

    /// The trailers are here, or a head in their place.
    fn ended(&self, trailers: &mut HeaderMap) {
        if is_failure(trailers) {
            self.settings.state.measure.failed();
        }
        self.report(trailers);
    }

    fn report(&self, trailers: &mut HeaderMap) {
        let settings = &*self.settings;
        let call = self.load.as_ref().and_then(|load| load.call.as_ref());
        if !settings.reports && !settings.answers_probes() && call.is_none() {
            return;
        }
        let mut message = Message::new();
        if settings.reports {
            settings.measured(&mut message, 1, 0.0);
        } else if settings.answers_probes() {
            message.answers_probes();
        }
        if let Some(call) = call {
            message.append(&call.report().encode());
        }
        if let Some(value) = message.header() {
            trailers.insert(HEADER, value);
        }
    }
}

/// The answer to a probe: an empty stream.
fn probed(settings: &Settings, asked: &HeaderMap) -> Response<()> {
    let (mut response, mut message) = (Response::new(()), Message::new());
    let others = settings.state.measure.announce(announced(asked).unwrap_or_default());
    settings.measured(&mut message, 0, others);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(STATUS, 0.into());
    message.header().into_iter().for_each(|value| drop(headers.insert(HEADER, value)));
    response
}

/// In how long the call comes that a probe announces, if it announces one.
fn announced(asked: &HeaderMap) -> Option<Duration> {
    let micros: u32 = asked.get(ANNOUNCES)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_micros(micros.into()))
}

/// What asks how a server is, rather than that it do something.
fn is_no_load(path: &str) -> bool {
    const SERVICES: [&str; 3] =
        ["/grpc.health.v1.Health/", "/grpc.reflection.", "/xds.service.orca.v3.OpenRcaService/"];
    SERVICES.iter().any(|service| path.starts_with(service))
}

fn has_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| is_grpc(value.as_bytes()))
}

/// Whether the server is to blame: UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS.
fn is_failure(trailers: &HeaderMap) -> bool {
    trailers.get(STATUS).is_some_and(|status| matches!(status.as_bytes(), b"2" | b"13" | b"14" | b"15"))
}

pin_project! {
    /// A response to come.
    #[derive(Debug)]
    pub struct CountedFuture<F> {
        // None of a request that is answered at once.
        #[pin]
        inner: Option<F>,
        at_once: Option<Box<Response<()>>>,
        counting: Option<Counting>,
    }
}

impl<F> CountedFuture<F> {
    pub(super) fn new(inner: F, counting: Counting) -> Self {
        Self { inner: Some(inner), at_once: None, counting: Some(counting) }
    }

    pub(super) fn at_once(response: Box<Response<()>>) -> Self {
        Self { inner: None, at_once: Some(response), counting: None }
    }
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            let response = this.at_once.take().map(|response| *response).unwrap_or_default();
            return Poll::Ready(Ok(response.map(|()| CountedBody { inner: None, reports: false, counting: None })));
        };
        let mut response = ready!(inner.poll(cx))?;
        let counting = this.counting.take();
        let reports = counting.as_ref().is_some_and(|counting| counting.answered(&mut response));
        Poll::Ready(Ok(response.map(|inner| CountedBody { inner: Some(inner), reports, counting })))
    }
}

pin_project! {
    /// A response's body: its request is in flight until this is dropped.
    #[derive(Debug)]
    pub struct CountedBody<B> {
        // None of a request that was answered at once.
        #[pin]
        inner: Option<B>,
        // Whether its trailers are gRPC's.
        reports: bool,
        counting: Option<Counting>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let mut frame = ready!(inner.poll_frame(cx));
        if *this.reports
            && let Some(Ok(frame)) = &mut frame
            && let (Some(trailers), Some(counting)) = (frame.trailers_mut(), &this.counting)
        {
            counting.ended(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_announces_no_call_is_passed_over() {
        let read =
            |text: &str| announced(&HeaderMap::from_iter([(HeaderName::from_static(ANNOUNCES), text.parse().ok()?)]));
        assert_eq!(read("550"), Some(Duration::from_micros(550)));
        for text in ["", "-1", "1.5", "5ms", "soon", "4294967296", "\u{e9}"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(announced(&HeaderMap::new()), None);
    }
}
