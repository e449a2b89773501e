//! One HTTP/2 connection, as calls see it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::Request;
use tokio::sync::oneshot;

use super::streams::Streams;
use crate::error::Error;

/// A ready connection. It lives while the pool, a snapshot or a call holds a clone.
#[derive(Clone)]
pub(in crate::channel) struct Connection(Arc<Handle>);

struct Handle {
    /// Shared, as a clone for each call would take h2's own lock twice more.
    sender: Mutex<SendRequest<Bytes>>,
    streams: Arc<Streams>,
    // Its drop tells the driver that nobody is left.
    _held: oneshot::Sender<()>,
}

impl Connection {
    pub(super) fn new(sender: SendRequest<Bytes>, streams: Arc<Streams>, held: oneshot::Sender<()>) -> Self {
        Self(Arc::new(Handle { sender: Mutex::new(sender), streams, _held: held }))
    }

    /// Whether the server has answered a call on it.
    pub(in crate::channel) fn has_answered(&self) -> bool {
        self.0.streams.has_answered()
    }

    /// A stream of this connection, if it may carry one more.
    pub(in crate::channel) fn open(&self, first_in_line: bool) -> Option<Stream> {
        self.0.streams.open(first_in_line).then(|| Stream(self.clone()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?})", self.0.streams)
    }
}

/// One of the streams that a connection may carry; counted out when this is dropped.
#[derive(Debug)]
pub(in crate::channel) struct Stream(Connection);

impl Stream {
    /// Queues the head of a request.
    pub(super) fn send(&self, head: Request<()>, end: bool) -> Result<(ResponseFuture, SendStream<Bytes>), Unsent> {
        let mut sender = self.0.0.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send_request(head, end).map_err(|error| {
            // h2 counts a stream for longer than its call lives, and one that it could not open yet
            // keeps its sender from another: a new one is free.
            let mut free = sender.clone();
            let is_over = matches!(free.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)));
            *sender = free;
            // Which h2 tells by its text alone.
            Unsent { is_held_back: error.to_string().ends_with("rejected"), is_over, error }
        })
    }

    /// Whether the server has answered a call on its connection.
    pub(super) fn has_answered(&self) -> bool {
        self.0.has_answered()
    }

    /// The server has answered on it.
    pub(in crate::channel) fn answered(&self) {
        self.0.0.streams.answered();
    }

    /// Why the connection ended, if it did for a reason.
    pub(super) fn ended(&self) -> Option<&Error> {
        self.0.0.streams.ended()
    }

    /// Keeps calls from a connection that takes none any more, before the pool hears of it.
    pub(super) fn retire(&self) {
        self.0.0.streams.allow(0);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.0.streams.close();
    }
}

/// Why a request was not queued.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) error: h2::Error,
    /// The connection takes no request any more.
    pub(super) is_over: bool,
    /// It takes others now.
    pub(super) is_held_back: bool,
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
