//! How a channel reaches an endpoint: TCP and Unix sockets, or one's own way.

mod tcp;

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::tcp::TcpConnector;
use crate::{endpoint::EndpointKey, error::Result, instance::Address, registry::BoxFuture};

/// A byte stream to a server; implemented by all that can be one.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens byte streams to endpoints; TLS and HTTP/2 on them are the channel's.
///
/// ```
/// use callsign::{BoxFuture, EndpointKey, Result, channel::{Connector, Io}};
///
/// /// Whatever is asked for, one socket.
/// #[derive(Debug)]
/// struct Sidecar;
///
/// impl Connector for Sidecar {
///     fn connect<'a>(&'a self, _: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>> {
///         Box::pin(async {
///             let stream = tokio::net::UnixStream::connect("/run/sidecar.sock").await;
///             stream.map(|stream| Box::new(stream) as _).map_err(|error| {
///                 callsign::Error::with_source(callsign::Kind::Unavailable, "no sidecar", error)
///             })
///         })
///     }
/// }
/// ```
pub trait Connector: Debug + Send + Sync + 'static {
    /// Opens a stream to the endpoint. The channel bounds the time that this and the handshake
    /// take together, and drops the future when it is over.
    ///
    /// # Errors
    ///
    /// What kept it from connecting, with the address.
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>>;

    /// Whether this connector can open a stream to the address at all; instances without such an
    /// address are no endpoints. Default: to all of gRPC's. TLS is the channel's affair: without it
    /// `grpcs://` addresses are left out, whatever this says.
    fn carries(&self, address: &Address) -> bool {
        address.scheme().is_grpc()
    }
}
