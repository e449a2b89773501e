//! Counts the requests in flight.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tower_layer::Layer;
use tower_service::Service;

/// Counts the requests in flight, to the end of their responses; see
/// [`Registration::layer`](super::Registration::layer).
#[derive(Debug, Clone)]
pub struct RegistrationLayer {
    in_flight: InFlight,
}

impl RegistrationLayer {
    pub(super) fn new(in_flight: InFlight) -> Self {
        Self { in_flight }
    }

    /// The requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Whether the registration was shut down: new requests still come, until the server closes.
    pub fn is_draining(&self) -> bool {
        self.in_flight.is_draining()
    }
}

impl<S> Layer<S> for RegistrationLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, in_flight: self.in_flight.clone() }
    }
}

/// How many are in flight, and whether no more are to come. Clones are the same count.
#[derive(Clone)]
pub(super) struct InFlight(Arc<watch::Sender<Flight>>);

#[derive(Debug, Default)]
struct Flight {
    count: usize,
    draining: bool,
}

impl Default for InFlight {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl InFlight {
    fn enter(&self) -> Entered {
        self.0.send_if_modified(|flight| {
            flight.count += 1;
            false
        });
        Entered(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().count
    }

    pub(super) fn drain(&self) {
        self.0.send_modify(|flight| flight.draining = true);
    }

    fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    pub(super) async fn idle(&self) {
        // The sender lives as long as `self`.
        drop(self.0.subscribe().wait_for(|flight| flight.count == 0).await);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().fmt(f)
    }
}

/// One in flight.
#[derive(Debug)]
struct Entered(InFlight);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|flight| {
            flight.count -= 1;
            flight.count == 0
        });
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    in_flight: InFlight,
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

    fn call(&mut self, request: Request<A>) -> Self::Future {
        CountedFuture { entered: Some(self.in_flight.enter()), inner: self.inner.call(request) }
    }
}

pin_project! {
    /// A response to come.
    #[derive(Debug)]
    pub struct CountedFuture<F> {
        #[pin]
        inner: F,
        entered: Option<Entered>,
    }
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx));
        let entered = this.entered.take();
        Poll::Ready(response.map(|response| response.map(|inner| CountedBody { inner, _entered: entered })))
    }
}

pin_project! {
    /// A response's body: its request is in flight until this is dropped.
    #[derive(Debug)]
    pub struct CountedBody<B> {
        #[pin]
        inner: B,
        _entered: Option<Entered>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
