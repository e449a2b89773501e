//! TLS on the connections of a listener.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::connection::Connection;
use crate::{
    tls::ServerHandshake,
    util::{ahead::Ahead, task},
};

/// So many clients may shake hands at once; others wait to be accepted.
const HANDSHAKES: usize = 1024;

/// The connections whose handshakes succeed, as they do: a slow client holds up no other.
pub(super) fn connections(
    incoming: impl Stream<Item = Connection>,
    tls: ServerHandshake,
) -> impl Stream<Item = TlsStream<Ahead<Connection>>> {
    let (done, secure) = mpsc::channel(HANDSHAKES);
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    let begun = incoming.filter_map(move |connection| {
        let (tls, done, permits) = (tls.clone(), done.clone(), permits.clone());
        async move {
            let permit = permits.acquire_owned().await.ok()?;
            // Bounded by the handshake's own time.
            task::spawn_bounded(async move {
                if let Some(stream) = tls.accept(connection).await {
                    drop(done.send(stream).await);
                }
                drop(permit);
            });
            None
        }
    });
    stream::select(begun, ReceiverStream::new(secure))
}

impl Connected for Ahead<Connection> {
    type ConnectInfo = <Connection as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.get_ref().connect_info()
    }
}
