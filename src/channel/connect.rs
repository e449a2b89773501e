//! How a channel reaches an endpoint: TCP and Unix sockets, or one's own way.

use std::{fmt::Debug, io};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    endpoint::EndpointKey,
    error::{Error, Kind, Result},
    instance::{Address, Scheme},
    registry::BoxFuture,
};

/// A byte stream to a server; implemented by all that can be one.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens byte streams to endpoints; HTTP/2 on them is the channel's.
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

    /// Whether this connector can carry gRPC to the address at all; instances without such an
    /// address are no endpoints. Default: plaintext, `grpc://` and `unix://`.
    fn carries(&self, address: &Address) -> bool {
        matches!(address.scheme(), Scheme::Grpc | Scheme::Unix)
    }
}

/// Plaintext over TCP, with `TCP_NODELAY`, and over Unix sockets.
///
/// Of several addresses, and of several that a name resolves to, it tries one after the other.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>> {
        Box::pin(async move {
            let mut last = None;
            for address in to.addresses() {
                match open(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(source) => {
                        let context = format!("cannot connect to {address}");
                        last = Some(Error::with_source(Kind::Unavailable, context, source));
                    }
                }
            }
            Err(last.unwrap_or_else(|| Error::invalid("the endpoint has no address")))
        })
    }
}

async fn open(address: &Address) -> io::Result<Box<dyn Io>> {
    if let (Some(host), Some(port)) = (address.host(), address.port()) {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        return Ok(Box::new(stream));
    }
    #[cfg(unix)]
    if let Some(path) = address.path() {
        return Ok(Box::new(tokio::net::UnixStream::connect(path).await?));
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such sockets"))
}
