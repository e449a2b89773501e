//! The connections of a listener, and what tells that a server accepts them.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};

/// The connections of a listener, with `TCP_NODELAY`, as an endless stream.
///
/// A failure to accept, such as for want of file descriptors, is waited out.
pub struct Incoming {
    listener: TcpListener,
    first: Option<Box<dyn FnOnce() + Send>>,
    pause: Option<Pin<Box<Sleep>>>,
}

const PAUSE: Duration = Duration::from_millis(50);

impl Incoming {
    /// Runs `first` when a server first asks for a connection.
    pub(super) fn new(listener: TcpListener, first: impl FnOnce() + Send + 'static) -> Self {
        Self { listener, first: Some(Box::new(first)), pause: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            first();
        }
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, _))) => {
                    // One that is closed already says so when it is read.
                    drop(stream.set_nodelay(true));
                    return Poll::Ready(Some(Ok(stream)));
                }
                Poll::Ready(Err(error)) if is_one_connections(&error) => {}
                Poll::Ready(Err(_)) => self.pause = Some(Box::pin(sleep(PAUSE))),
            }
        }
    }
}

/// Whether only the connection that was to be accepted failed.
fn is_one_connections(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}
