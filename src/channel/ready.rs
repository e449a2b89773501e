//! A channel whose readiness means something.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower_service::Service;

use super::{Channel, ResponseFuture, published::Published};
use crate::error::Result;

/// A [`Channel`] that is ready when an endpoint is: for tower's own `Balance`, retries, and the
/// like, which ask a service whether it is ready before they know the request.
///
/// It becomes unready when the last endpoint is lost, and ready again with the next.
pub struct WhenReady {
    channel: Channel,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl WhenReady {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, waiting: None }
    }
}

impl Service<Request<Body>> for WhenReady {
    type Response = Response<Body>;
    type Error = Status;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if !matches!(**self.channel.calls.cell.load(), Published::Ready(_)) {
            let calls = self.channel.calls.clone();
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { calls.ready().await }));
            ready!(waiting.as_mut().poll(cx));
        }
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        self.channel.call(request)
    }
}

impl Clone for WhenReady {
    fn clone(&self) -> Self {
        Self::new(self.channel.clone())
    }
}

impl fmt::Debug for WhenReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.fmt(f)
    }
}
