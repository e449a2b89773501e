//! A network in memory: servers listen on addresses that exist nowhere else, and links fail as told.

use std::{
    collections::HashMap,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::sleep,
};

use crate::{
    channel::{Connector, Io},
    endpoint::EndpointKey,
    error::{Error, Kind, Result},
    registry::BoxFuture,
};

/// A network of one test. Clones are the same network.
///
/// Its links are as quick as memory, and know no time but the delay that is set; so whole outages
/// pass in an instant under a [paused clock](https://docs.rs/tokio/latest/tokio/time/fn.pause.html).
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<HashMap<String, Host>>>);

/// What happens to connections to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// New ones are refused; open ones go on.
    Refuse,
    /// New ones are refused, and open ones broken.
    Cut,
    /// New ones are accepted, but no byte moves on any: as of a stopped process or a dead link.
    Stall,
}

#[derive(Default)]
struct Host {
    listener: Option<mpsc::Sender<MemIo>>,
    link: Arc<Link>,
    tried: usize,
    made: usize,
}

/// What all connections to one address share.
#[derive(Default)]
struct Link(Mutex<LinkState>);

#[derive(Default)]
struct LinkState {
    fault: Fault,
    delay: Duration,
    /// Counts the cuts: a connection of an earlier epoch is broken.
    epoch: usize,
    open: usize,
    wakers: Vec<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on an address, written `host:port` or as a path; who listened there before does so no more.
    pub fn listen(&self, address: &str) -> Listener {
        let (sender, incoming) = mpsc::channel(1024);
        lock(&self.0).entry(address.to_owned()).or_default().listener = Some(sender);
        Listener(incoming)
    }

    /// Sets what happens to connections to an address, from now on.
    pub fn fault(&self, address: &str, fault: Fault) {
        let link = lock(&self.0).entry(address.to_owned()).or_default().link.clone();
        let mut state = lock(&link.0);
        state.fault = fault;
        state.epoch += usize::from(fault == Fault::Cut);
        state.wakers.drain(..).for_each(Waker::wake);
    }

    /// Sets how long connecting to an address takes.
    pub fn delay(&self, address: &str, delay: Duration) {
        let link = lock(&self.0).entry(address.to_owned()).or_default().link.clone();
        lock(&link.0).delay = delay;
    }

    /// How many connections to an address were tried.
    pub fn tried(&self, address: &str) -> usize {
        lock(&self.0).get(address).map_or(0, |host| host.tried)
    }

    /// How many connections to an address were made.
    pub fn made(&self, address: &str) -> usize {
        lock(&self.0).get(address).map_or(0, |host| host.made)
    }

    /// How many clients hold a connection to an address now.
    pub fn open(&self, address: &str) -> usize {
        lock(&self.0).get(address).map_or(0, |host| lock(&host.link.0).open)
    }

    /// A connector for channels on this network.
    pub fn connector(&self) -> NetConnector {
        NetConnector(self.clone())
    }

    async fn connect(&self, address: String) -> io::Result<MemIo> {
        let link = {
            let mut hosts = lock(&self.0);
            let host = hosts.entry(address.clone()).or_default();
            host.tried += 1;
            host.link.clone()
        };
        let delay = lock(&link.0).delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "refused by the test's network");
        let mut hosts = lock(&self.0);
        let host = hosts.get_mut(&address).ok_or_else(refused)?;
        let listener = host.listener.as_ref().ok_or_else(refused)?;
        let mut state = lock(&link.0);
        if matches!(state.fault, Fault::Refuse | Fault::Cut) {
            return Err(refused());
        }
        let (ours, theirs) = duplex(256 * 1024);
        let epoch = state.epoch;
        let end = |stream, counted| MemIo { stream, link: link.clone(), epoch, counted };
        // What is refused must not count its end out: count in only what was taken.
        let theirs = end(theirs, false);
        listener.try_send(theirs).map_err(|_| refused())?;
        state.open += 1;
        drop(state);
        host.made += 1;
        Ok(end(ours, true))
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// The connections that servers take: for `serve_with_incoming` and its like.
#[derive(Debug)]
pub struct Listener(mpsc::Receiver<MemIo>);

impl Stream for Listener {
    type Item = io::Result<MemIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<MemIo>>> {
        self.0.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

/// Connects on a [`Net`].
#[derive(Debug, Clone)]
pub struct NetConnector(Net);

impl Connector for NetConnector {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>> {
        Box::pin(async move {
            let mut last = None;
            for address in to.addresses() {
                match self.0.connect(address.authority().to_string()).await {
                    Ok(stream) => return Ok(Box::new(stream) as _),
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

/// One end of a connection.
pub struct MemIo {
    stream: DuplexStream,
    link: Arc<Link>,
    epoch: usize,
    counted: bool,
}

impl MemIo {
    /// Whether bytes move; registers to be woken when that changes.
    fn poll_link(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.link.0);
        if state.epoch != self.epoch {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut by the test's network")));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        if state.fault == Fault::Stall { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl Drop for MemIo {
    fn drop(&mut self) {
        if self.counted {
            lock(&self.link.0).open -= 1;
        }
    }
}

impl fmt::Debug for MemIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemIo")
    }
}

impl AsyncRead for MemIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_link(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_link(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(feature = "server")]
impl tonic::transport::server::Connected for MemIo {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
