//! The client's side: a channel that calls a service by its name.

mod attempt;
mod build;
mod builder;
mod call;
mod cell;
mod connect;
mod connections;
mod direct;
mod follow;
mod idle;
mod kept;
mod line;
mod load_reports;
mod pick;
mod pool;
mod probe;
mod published;
mod ready;
mod served;
mod source;
mod subchannel;
mod sweeps;
mod timeout;
mod transport;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower_service::Service;

use self::call::{Calling, Calls};
pub use self::{
    builder::ChannelBuilder,
    connect::{Connector, Io, TcpConnector},
    ready::WhenReady,
    transport::Keepalive,
};
use crate::{error::Result, util::task::Task};

/// Calls a service by name: each call goes to one of the instances that live now.
///
/// It is what generated tonic clients take, and a tower [`Service`] for layers. Clones are cheap
/// and share everything. All is kept up to date by one background task, whether calls are made or
/// not; it ends with the last clone. Calls in flight then go on to their end.
///
/// Errors name the endpoint; successes do, too, if [asked to](ChannelBuilder::report_endpoint).
///
/// # Failures
///
/// A call fails with a [`Status`] that names the service, the endpoint, and the cause, which is
/// also in its [source](std::error::Error::source). What never left this process is sent
/// elsewhere, what crossed the end of an old connection goes to the next one, and what a server
/// refused unprocessed is sent once more
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries)).
///
/// | code | when |
/// | --- | --- |
/// | `UNAVAILABLE` | no endpoint was ready in time, or the connection broke |
/// | `DEADLINE_EXCEEDED` | the deadline passed, wherever the call was |
/// | `CANCELLED`, `INTERNAL`, … | the server reset the call, by [gRPC's table](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors) |
///
/// # Cancel safety
///
/// Dropping a call's future or its response resets the stream, so the server can stop.
#[derive(Clone)]
pub struct Channel {
    calls: Arc<Calls>,
    _pool: Task,
}

impl Channel {
    /// Makes a channel that connects in the background, and returns at once, even where the
    /// registry or every server is down. Calls wait for a ready endpoint, but not for long.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if the [target](crate::Target) is none, or outside a Tokio runtime.
    pub fn connect_lazy(target: impl ToString) -> Result<Self> {
        Self::builder(target).connect_lazy()
    }

    /// Makes a channel and waits until a first endpoint is ready, at most 10 s.
    ///
    /// # Errors
    ///
    /// Like [`connect_lazy`](Self::connect_lazy); and [`Kind::Unavailable`](crate::Kind::Unavailable) when the time is over,
    /// saying what it waited for and why that did not come.
    pub async fn connect(target: impl ToString) -> Result<Self> {
        Self::builder(target).connect().await
    }

    /// Starts a channel with all there is to choose.
    #[allow(clippy::needless_pass_by_value, reason = "so that a literal needs no `&`")]
    pub fn builder(target: impl ToString) -> ChannelBuilder {
        ChannelBuilder::new(target.to_string())
    }

    /// The same channel as a service that is ready only when an endpoint is.
    #[must_use]
    pub fn when_ready(self) -> WhenReady {
        WhenReady::new(self)
    }
}

/// Never waits in `poll_ready`: which endpoint is ready can be said only when the request is known.
impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        ResponseFuture(Calling::new(&self.calls, request))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.calls.service)
    }
}

/// A call, up to the head of its response.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(Calling);

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

/// What one call asks of its channel: an extension of its request.
///
/// ```
/// # use callsign::channel::CallOptions;
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(CallOptions::new().wait_for_ready(true));
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct CallOptions {
    wait_for_ready: Option<bool>,
}

impl CallOptions {
    /// Asks nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to wait for a ready endpoint to the deadline, whatever happens, instead of failing
    /// soon ([wait for ready](https://github.com/grpc/grpc/blob/master/doc/wait-for-ready.md)).
    /// Default: as the channel says.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }
}

// What generated clients, and those who share a channel, need.
const _: () = {
    const fn shared<T: Clone + Send + Sync + 'static>() {}
    const fn grpc<T: tonic::client::GrpcService<Body>>() {}
    shared::<Channel>();
    grpc::<Channel>();
};
