//! One HTTP/2 connection: dialled, driven by a task of its own, and ended when nobody holds it.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout},
};

use crate::{
    channel::connect::{Connector, Io},
    endpoint::EndpointKey,
    error::{Error, Kind, Result},
    util::task,
};

/// A ready connection. It lives while the pool, a picker or a call holds a clone.
#[derive(Clone)]
pub(in crate::channel) struct Connection(Arc<Handle>);

struct Handle {
    sender: SendRequest<Bytes>,
    // Its drop tells the driver that nobody is left.
    _held: oneshot::Sender<()>,
}

impl Connection {
    /// What sends one request on this connection.
    pub(in crate::channel) fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }

    /// Whether both are one and the same connection.
    pub(in crate::channel) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// What a dial and its connection tell.
#[derive(Debug)]
pub(in crate::channel) enum ConnectionEvent {
    /// It is ready, and took so long.
    Ready(Connection, Duration),
    /// It could not be made; nothing follows.
    Failed(Error),
    /// The server wants nothing new on it; what is open goes on.
    GoingAway,
    /// It ended.
    Closed(Option<Error>),
}

/// How connections are made.
#[derive(Debug, Clone)]
pub(in crate::channel) struct Dialer {
    pub(in crate::channel) connector: Arc<dyn Connector>,
    pub(in crate::channel) timeout: Duration,
    /// Let callers queue more frames before each write: pays where callers and the driver share
    /// worker threads, costs on a single one.
    pub(in crate::channel) coalesce: bool,
}

type H2Connection = client::Connection<Box<dyn Io>, Bytes>;

impl Dialer {
    /// Connects, tells, and then drives the connection in a task of its own: that task ends when
    /// nobody holds the connection, while this one ends with whoever wanted it.
    pub(in crate::channel) async fn dial_and_drive(
        self,
        permits: Arc<Semaphore>,
        key: EndpointKey,
        tell: impl Fn(ConnectionEvent) + Send + Sync + 'static,
    ) {
        let Ok(permit) = permits.acquire().await else { return };
        let begun = Instant::now();
        let dialled = timeout(self.timeout, self.dial(&key)).await;
        drop(permit);
        let late = || {
            Error::unavailable(format!(
                "{key} did not finish connecting and HTTP/2's handshake within {:?}",
                self.timeout
            ))
        };
        match dialled.unwrap_or_else(|_| Err(late())) {
            Err(error) => tell(ConnectionEvent::Failed(error)),
            Ok((connection, driver)) => {
                // Told before it is driven: nothing can be told of it earlier.
                tell(ConnectionEvent::Ready(connection, begun.elapsed()));
                task::spawn_bounded(driver.run(tell));
            }
        }
    }

    /// Returns once the server's SETTINGS have come: the first sign that an HTTP/2 server, not
    /// just a listening socket, is there.
    async fn dial(&self, key: &EndpointKey) -> Result<(Connection, Driver)> {
        let io = self.connector.connect(key).await?;
        let broken = |source| {
            Error::with_source(
                Kind::Unavailable,
                format!("{key} accepts connections but does not speak HTTP/2"),
                source,
            )
        };
        let (sender, mut connection) = h2_builder().handshake(io).await.map_err(broken)?;
        // Until SETTINGS come no stream is allowed, and after that any number or the server's.
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(Error::unavailable(format!("{key} closed the connection")))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let (held, released) = oneshot::channel();
        let driver = Driver { connection, probe: Some(sender.clone()), released, coalesce: self.coalesce };
        Ok((Connection(Arc::new(Handle { sender, _held: held })), driver))
    }
}

fn h2_builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(1 << 20);
    builder
}

/// What a server may send on a stream, and on a connection, before the application has read any.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What a server's headers or trailers may weigh, as HTTP/2 counts it.
const MAX_HEADER_LIST: u32 = 64 << 10;

/// How long a connection that nobody holds may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

struct Driver {
    connection: H2Connection,
    /// Fails as soon as the server has said GOAWAY; it also keeps h2 from closing the connection.
    probe: Option<SendRequest<Bytes>>,
    released: oneshot::Receiver<()>,
    coalesce: bool,
}

impl Driver {
    async fn run(mut self, tell: impl Fn(ConnectionEvent) + Send + Sync) {
        let mut yielded = false;
        let ended = poll_fn(|cx| {
            if self.coalesce && !yielded {
                // Woken by one caller: run again behind the other tasks that are ready.
                yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            yielded = false;
            self.poll(cx, &tell)
        })
        .await;
        let error = match ended {
            Some(result) => result.err(),
            None => {
                self.probe = None;
                timeout(GOODBYE, pin!(self.connection)).await.ok().and_then(|result| result.err())
            }
        };
        tell(ConnectionEvent::Closed(
            error.map(|source| Error::with_source(Kind::Unavailable, "the connection broke", source)),
        ));
    }

    /// Ready with the connection's end, or with none when nobody holds it any more.
    fn poll(&mut self, cx: &mut Context<'_>, tell: &impl Fn(ConnectionEvent)) -> Poll<Option<Result<(), h2::Error>>> {
        if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
            return Poll::Ready(Some(result));
        }
        if let Some(probe) = &mut self.probe
            && let Poll::Ready(Err(_)) = probe.poll_ready(cx)
        {
            self.probe = None;
            tell(ConnectionEvent::GoingAway);
        }
        Pin::new(&mut self.released).poll(cx).map(|_| None)
    }
}
