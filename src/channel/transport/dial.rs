//! From an endpoint to a connection that is ready for calls.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use h2::client;
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout},
};

use super::{
    connection::{Connection, ConnectionEvent},
    driver::Driver,
    heard::Listening,
    keepalive::{Keepalive, Pace},
    security::Security,
    streams::Streams,
    window::Pipe,
};
use crate::{
    channel::{connect::Connector, line::Line},
    endpoint::EndpointKey,
    error::{Error, Kind, Result},
    util::task,
};

/// How connections are made.
#[derive(Debug, Clone)]
pub(in crate::channel) struct Dialer {
    pub(in crate::channel) connector: Arc<dyn Connector>,
    pub(in crate::channel) security: Security,
    pub(in crate::channel) timeout: Duration,
    pub(in crate::channel) keepalive: Keepalive,
    pub(in crate::channel) pace: Arc<Pace>,
    pub(in crate::channel) line: Arc<Line>,
    /// What a server may send of one stream, unread, at most.
    pub(in crate::channel) max_stream_window: u32,
    /// What a server's headers, or trailers, may weigh, as HTTP/2 counts it.
    pub(in crate::channel) max_header_list: u32,
    /// Let callers queue more frames before each write: pays where callers and the driver share
    /// worker threads; on a single one they run before the driver anyway.
    pub(in crate::channel) coalesce: bool,
}

/// What a server may send on a connection before the application has read any: more than all of its
/// streams together may, so that who does not read his own stream stalls no other.
const CONNECTION_WINDOW: u32 = 1 << 30;

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
                task::spawn_bounded(Box::new(driver).run(tell));
            }
        }
    }

    /// Returns once the server's SETTINGS have come: the first sign that an HTTP/2 server, not
    /// just a listening socket, is there.
    async fn dial(&self, key: &EndpointKey) -> Result<(Connection, Driver)> {
        let io = self.connector.connect(key).await?;
        let (io, heard) = Listening::new(self.security.secure(io, key).await?);
        let broken = |source| {
            let why = heard.broke().and_then(|error| self.security.explain(error));
            let why = why.unwrap_or_else(|| "accepts connections but does not speak HTTP/2".to_owned());
            Error::with_source(Kind::Unavailable, format!("{key} {why}"), source)
        };
        let pipe = Pipe::new(self.max_stream_window);
        let (sender, mut connection) = self.builder(pipe.window()).handshake(io).await.map_err(broken)?;
        // Until SETTINGS come no stream is allowed, and after that any number or the server's.
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(Error::unavailable(format!("{key} closed the connection")))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let (held, released) = oneshot::channel();
        let streams = Arc::new(Streams::new(self.line.clone()));
        streams.allow(connection.max_concurrent_send_streams());
        let driver = Driver::new(self, connection, sender.clone(), streams.clone(), heard, pipe, released);
        Ok((Connection::new(sender, streams, held), driver))
    }

    fn builder(&self, stream_window: u32) -> client::Builder {
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(0)
            .initial_window_size(stream_window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(self.max_header_list)
            .max_send_buffer_size(1 << 20);
        builder
    }
}
