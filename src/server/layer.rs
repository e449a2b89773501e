//! The layer before a server's services: it counts requests, reports the load, and sheds what is too much.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use tokio::time::Instant;

use super::{
    counted::{CountedBody, CountedFuture, Counting},
    flight::InFlight,
    limit::{AdaptiveLimit, Limit},
    measure::Measure,
    metrics::Metrics,
};
use crate::report::Message;

/// What all layers and reports of one registration share.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) in_flight: InFlight,
    pub(super) measure: Measure,
    pub(super) metrics: Metrics,
}

/// A tower layer: counts the requests in flight, to the end of their responses; says in gRPC's responses how busy the
/// server is; and, if told to, sheds what is more than the server can do.
///
/// - **Reports** ([on](Self::reports) by default) go into the trailers of each gRPC response as `endpoint-load-metrics-bin`,
///   after [ORCA](https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md): what the
///   application [says](super::Registration::metrics), requests and failures in a second (UNKNOWN, INTERNAL, UNAVAILABLE
///   and DATA_LOSS), and two named metrics: `callsign.in_flight`, the requests in flight but the one that is
///   answered, and `callsign.latency_ms`, the median of the last 8 answers at about as many in flight,
///   left out once whenever that is old.
/// - **Probes** are answered [where reports are given](Self::probes), and count as in flight what other probes announced just
///   before.
/// - **Admission** (off by default): past a [fixed](Self::limit) or an [adaptive](Self::adaptive_limit) bound on
///   requests in flight, a gRPC request is answered at once with RESOURCE_EXHAUSTED and
///   `grpc-retry-pushback-ms`, any other with 503 and `retry-after`.
///
/// Health checks, reflection and the service of load reports are never shed, and are no load.
///
/// Layers of one registration share its counts. Clones share their bound too.
#[derive(Debug, Clone)]
pub struct RegistrationLayer {
    settings: Arc<Settings>,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) state: Arc<State>,
    pub(super) reports: bool,
    probes: Option<bool>,
    pub(super) call_metrics: bool,
    pub(super) limit: Limit,
}

impl Settings {
    pub(super) fn answers_probes(&self) -> bool {
        self.probes.unwrap_or(self.reports)
    }

    /// Puts into a report how busy the server is, without so many of the requests in flight, and with some that may be on their
    /// way.
    pub(super) fn measured(&self, message: &mut Message, without: usize, announced: f64) {
        let mut measured = self.state.measure.report(Instant::now(), without);
        measured.in_flight += announced;
        message.measured(&measured);
        self.state.metrics.with_encoded(|encoded| message.append(encoded));
    }
}

impl RegistrationLayer {
    pub(super) fn new(state: Arc<State>) -> Self {
        let settings = Settings { state, reports: true, probes: None, call_metrics: false, limit: Limit::None };
        Self { settings: Arc::new(settings) }
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// Sets whether responses say how busy the server is. Default true: some 150 bytes a response, by which clients
    /// balance better at once. Who serves the world, and would not tell it, says false; what a handler says by
    /// [`CallMetrics`](super::CallMetrics) is told all the same.
    #[must_use]
    pub fn reports(self, reports: bool) -> Self {
        self.set(|settings| settings.reports = reports)
    }

    /// Sets whether the server answers probes: the method `/callsign.v1.Probes/Probe`, by which clients that call seldom
    /// [ask](crate::balance::Adaptive) a few servers how busy they are before each call. They are no load, and it takes
    /// what a report takes. Default: as [`reports`](Self::reports), as they say the same.
    #[must_use]
    pub fn probes(self, probes: bool) -> Self {
        self.set(|settings| settings.probes = Some(probes))
    }

    /// Sets whether each request's extensions carry [`CallMetrics`](super::CallMetrics) for the handler. Default
    /// false: it takes an allocation or two.
    #[must_use]
    pub fn call_metrics(self, call_metrics: bool) -> Self {
        self.set(|settings| settings.call_metrics = call_metrics)
    }

    /// Sheds requests past so many in flight. Default: it takes all.
    #[must_use]
    pub fn limit(self, in_flight: usize) -> Self {
        self.set(|settings| settings.limit = Limit::Fixed(in_flight))
    }

    /// Sheds requests past a bound that follows the latency. Default: it takes all.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "so that `AdaptiveLimit::new()` needs no `&`")]
    pub fn adaptive_limit(self, limit: AdaptiveLimit) -> Self {
        self.set(|settings| settings.limit = Limit::adaptive(&limit))
    }

    /// The bound on requests in flight as it is now; none if there is none.
    pub fn current_limit(&self) -> Option<usize> {
        self.settings.limit.now()
    }

    /// The requests in flight.
    pub fn in_flight(&self) -> usize {
        self.settings.state.in_flight.count()
    }

    /// Whether the registration was shut down: new requests still come, until the server closes.
    pub fn is_draining(&self) -> bool {
        self.settings.state.in_flight.is_draining()
    }
}

impl<S> Layer<S> for RegistrationLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, settings: self.settings.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        match Counting::begin(&self.settings, &mut request) {
            Ok(counting) => CountedFuture::new(self.inner.call(request), counting),
            Err(response) => CountedFuture::at_once(response),
        }
    }
}
