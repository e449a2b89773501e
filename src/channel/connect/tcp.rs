//! TCP and Unix sockets.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::sleep,
};

use super::{Connector, Io};
use crate::{
    endpoint::EndpointKey,
    error::{Error, Kind, Result},
    instance::Address,
    registry::BoxFuture,
};

/// Plaintext over TCP, with `TCP_NODELAY`, and over Unix sockets.
///
/// Of several addresses, and of several that a name resolves to, it tries one after the other, IPv6
/// and IPv4 in turns; the next begins when one has failed or taken 250 ms, and the first that
/// connects is it
/// ([gRFC A61](https://github.com/grpc/proposal/blob/master/A61-IPv4-IPv6-dualstack-backends.md),
/// [RFC 8305](https://www.rfc-editor.org/rfc/rfc8305)).
///
/// A host that is gone, power and all, is noticed within some 12 s: what is sent must be
/// acknowledged within 10 s (`TCP_USER_TIMEOUT`, on Linux), and a silent connection is probed.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct TcpConnector {
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux has it"))]
    user_timeout: Duration,
}

/// How long a connection is silent before TCP probes it, and how long between probes.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// When the next address is tried beside the one before.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// So many addresses of an endpoint are tried.
const MOST: usize = 32;

impl Default for TcpConnector {
    fn default() -> Self {
        Self { user_timeout: Duration::from_secs(10) }
    }
}

impl TcpConnector {
    /// A connector with all its defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long the server's host may take to acknowledge data until the connection is taken
    /// for broken; zero for as long as the system waits. Default 10 s. On Linux only.
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.user_timeout = timeout;
        self
    }

    async fn open(self, to: &EndpointKey) -> Result<Box<dyn Io>> {
        let mut failed = Vec::new();
        if let Some(path) = to.addresses().iter().find(|address| address.path().is_some()) {
            match unix(path).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed.push((path.authority().to_string(), error)),
            }
        }
        let resolved = join_all(to.addresses().iter().map(resolve)).await;
        let mut candidates = Vec::new();
        for (address, resolved) in to.addresses().iter().zip(resolved) {
            match resolved {
                Ok(addresses) => candidates.extend(addresses),
                Err(error) => failed.push((address.authority().to_string(), error)),
            }
        }
        match self.race(&alternate(candidates), &mut failed).await {
            Some(stream) => Ok(Box::new(stream)),
            None => Err(error(to, failed)),
        }
    }

    /// The first that connects.
    async fn race(self, candidates: &[SocketAddr], failed: &mut Vec<(String, io::Error)>) -> Option<TcpStream> {
        let (mut waiting, mut tries) = (candidates.iter(), FuturesUnordered::new());
        loop {
            let begin = |address: &SocketAddr| {
                let address = *address;
                async move { (address, self.tcp(address).await) }
            };
            if tries.is_empty() {
                tries.push(begin(waiting.next()?));
            }
            tokio::select! {
                Some((address, tried)) = tries.next() => match tried {
                    Ok(stream) => return Some(stream),
                    Err(error) => {
                        failed.push((address.to_string(), error));
                        tries.extend(waiting.next().map(begin));
                    }
                },
                () = sleep(ATTEMPT_DELAY), if !waiting.as_slice().is_empty() => tries.extend(waiting.next().map(begin)),
            }
        }
    }

    async fn tcp(self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY))?;
        #[cfg(target_os = "linux")]
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        Ok(stream)
    }
}

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>> {
        Box::pin(self.open(to))
    }
}

async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match (address.host(), address.port()) {
        (Some(host), Some(port)) => Ok(lookup_host((host, port)).await?.take(MOST).collect()),
        _ => Ok(Vec::new()),
    }
}

/// One of each family in turns, beginning with the first one's; each once.
fn alternate(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses.truncate(MOST);
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (mut ours, mut others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|one| one.is_ipv6() == first);
    let mut order = Vec::with_capacity(ours.len() + others.len());
    while !ours.is_empty() || !others.is_empty() {
        order.extend(ours.drain(..1.min(ours.len())));
        order.extend(others.drain(..1.min(others.len())));
    }
    order
}

#[cfg(unix)]
async fn unix(address: &Address) -> io::Result<Box<dyn Io>> {
    let path = address.path().unwrap_or_default();
    let stream = match path.strip_prefix('@') {
        None => tokio::net::UnixStream::connect(path).await?,
        Some(name) if cfg!(target_os = "linux") => tokio::net::UnixStream::connect(format!("\0{name}")).await?,
        Some(_) => return Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets are Linux's alone")),
    };
    Ok(Box::new(stream))
}

#[cfg(not(unix))]
async fn unix(_: &Address) -> io::Result<Box<dyn Io>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such sockets"))
}

/// One error of all that failed.
fn error(to: &EndpointKey, mut failed: Vec<(String, io::Error)>) -> Error {
    match failed.len() {
        0 => Error::invalid("the endpoint has no address"),
        1 => {
            let (address, source) = failed.remove(0);
            Error::with_source(Kind::Unavailable, format!("cannot connect to {address}"), source)
        }
        _ => {
            let each: Vec<_> = failed.iter().map(|(address, error)| format!("{address}: {error}")).collect();
            Error::unavailable(format!("cannot connect to {to}: {}", each.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_first_one_begins() {
        let order = |list: &[&str]| {
            let list = list.iter().map(|one| one.parse().expect("an address")).collect();
            alternate(list).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mixed = ["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        assert_eq!(order(&mixed), ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(order(&["1.1.1.1:1", "[::1]:1"]), ["1.1.1.1:1", "[::1]:1"]);
        assert!(order(&[]).is_empty());
    }

    /// An address that swallows every packet holds up nobody for longer than a quarter of a second.
    #[tokio::test]
    async fn a_dead_address_costs_a_quarter_of_a_second() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let alive = listener.local_addr().expect("bound");
        // Full backlogs do not answer: as good as a host that is gone.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("bound");
        full.listen(0).expect("listens");
        let dead = full.local_addr().expect("bound").as_socket().expect("an address");
        let mut held = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(dead)).await {
            held.push(stream);
            assert!(held.len() < 64, "the backlog has no end");
        }
        let (begun, mut failed) = (std::time::Instant::now(), Vec::new());
        let stream = TcpConnector::new().race(&[dead, alive], &mut failed).await.expect("connected");
        assert_eq!(stream.peer_addr().expect("connected"), alive);
        assert!((200..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        // And one that refuses costs nothing.
        drop(full);
        let begun = std::time::Instant::now();
        let refused = "127.0.0.1:1".parse().expect("an address");
        TcpConnector::new().race(&[refused, alive], &mut failed).await.expect("connected");
        assert!(begun.elapsed() < ATTEMPT_DELAY && failed.len() == 1, "{:?}", begun.elapsed());
        let socket = SockRef::from(&stream);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("readable"), Some(Duration::from_secs(10)));
        assert!(socket.keepalive().expect("readable") && stream.nodelay().expect("readable"));
    }
}
