//! How members are dialled: when, and by TLS or not. zookeeper-client takes no connection from outside, dials by a
//! schedule that is the same for all who lost a member together, and brings a second crypto library where it is to
//! speak TLS: so it dials a port of this machine, and from there on the connection is ours.
//!
//! Each session has ports of its own, on loopback, and a key drawn at random that its client shows first, as
//! authentication of a scheme that no ZooKeeper ever sees. Who comes without it is not let through, so nobody else on
//! this machine uses our certificate.

use std::{
    fmt,
    future::poll_fn,
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::{TryRng, rngs::SysRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    error::{Error, Kind, Result},
    instance::Address,
    registry::BoxFuture,
    tls::{ClientHandshake, cause, refused},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// The scheme of the authentication that lets a client in.
pub(super) const SCHEME: &str = "callsign";

/// TLS as the registry was told.
#[derive(Debug)]
pub(super) struct Secure {
    pub(super) handshake: ClientHandshake,
    /// Whether all members' certificates carry one name, not each one the host that it is called by.
    pub(super) named: bool,
}

/// From ports of this machine to members, for one session.
pub(super) struct Pipe {
    ports: Vec<(TcpListener, Address)>,
    inner: Arc<Inner>,
    carried: FuturesUnordered<BoxFuture<'static, ()>>,
}

struct Inner {
    /// Where TLS is spoken.
    secure: Option<Arc<Secure>>,
    key: [u8; 32],
    /// How long the client waits for a member before it tries another.
    within: Duration,
    state: Mutex<State>,
}

struct State {
    /// Why the last connection to a member failed.
    failed: Option<Error>,
    /// Of the connections that come after the first.
    backoff: Option<Backoff>,
    rng: Rng,
}

/// Authentication of ZooKeeper's protocol.
const AUTH: i32 = 100;

/// Longer are neither the first two frames of a client nor the first of a server.
const MOST: usize = 4 << 10;

/// So many connections at once have more than one session's client.
const CONNECTIONS: usize = 64;

/// How long a client may take to show its key.
const KNOCK_WITHIN: Duration = Duration::from_secs(2);

/// How long the last words of a connection may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

impl Pipe {
    /// To these members, each of which the client leaves again after so long without an answer.
    pub(super) async fn open(members: &[Address], secure: Option<Arc<Secure>>, within: Duration) -> Result<Self> {
        let mut key = [0; 32];
        SysRng.try_fill_bytes(&mut key).map_err(|source| {
            Error::with_source(Kind::Internal, "the system has no randomness for the way to ZooKeeper", source)
        })?;
        let mut ports = Vec::new();
        for member in members {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|source| {
                Error::with_source(Kind::Unavailable, "no port of loopback is free for the way to ZooKeeper", source)
            })?;
            ports.push((listener, member.clone()));
        }
        let state = State { failed: None, backoff: None, rng: Rng::from_entropy() };
        let inner = Inner { secure, key, within, state: Mutex::new(state) };
        Ok(Self { ports, inner: Arc::new(inner), carried: FuturesUnordered::new() })
    }

    /// Where to dial instead of the members.
    pub(super) fn hosts(&self) -> Result<String> {
        let ports = self.ports.iter().map(|(listener, _)| listener.local_addr().map(|at| at.to_string()));
        let ports = ports.collect::<Result<Vec<_>, _>>();
        let ports =
            ports.map_err(|source| Error::with_source(Kind::Internal, "a port of this machine is gone", source))?;
        Ok(ports.join(","))
    }

    /// What lets a client in.
    pub(super) fn key(&self) -> [u8; 32] {
        self.inner.key
    }

    /// Why the last connection to a member failed, if it did.
    pub(super) fn failed(&self) -> Option<Error> {
        self.inner.state().failed.clone()
    }

    /// Carries what comes, until something else is done.
    pub(super) async fn carry_until<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return done,
                Some(()) = self.carried.next(), if !self.carried.is_empty() => {}
                (accepted, to) = accept(&self.ports) => match accepted {
                    Ok(io) if self.carried.len() < CONNECTIONS => {
                        self.carried.push(Box::pin(self.inner.clone().carry(io, to)));
                    }
                    Ok(_) => {}
                    // Such as too many open files: not all at once again.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }

    /// Lets nobody in any more, and carries the last words.
    pub(super) async fn close(mut self) {
        self.ports.clear();
        let _ = timeout(CLOSE_WITHIN, async { while self.carried.next().await.is_some() {} }).await;
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("ports", &self.ports).finish_non_exhaustive()
    }
}

async fn accept(ports: &[(TcpListener, Address)]) -> (std::io::Result<TcpStream>, Address) {
    poll_fn(|cx| {
        for (listener, to) in ports {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready((accepted.map(|(io, _)| io), to.clone()));
            }
        }
        Poll::Pending
    })
    .await
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before a member is dialled: the first time not at all, and after a loss anything up to a second,
    /// later to one and a half, which leaves a member half of the time that the client waits for it.
    fn wait(&self) -> Duration {
        let State { backoff, rng, .. } = &mut *self.state();
        backoff.as_mut().map_or(Duration::ZERO, |backoff| backoff.next(rng))
    }

    fn succeeded(&self) {
        let mut state = self.state();
        state.failed = None;
        state.backoff = Some(Backoff::new(BackoffConfig::spread(self.within / 4)));
    }

    async fn carry(self: Arc<Self>, mut io: TcpStream, to: Address) {
        let Ok(Some((hello, xid))) = timeout(KNOCK_WITHIN, self.knock(&mut io)).await else { return };
        // Not for longer, so that what the client has left never comes to a member after what it did next.
        let dialled = timeout(self.within, self.dial(&hello, &to));
        let dialled =
            dialled.await.unwrap_or_else(|_| Err(Error::unavailable(format!("{} does not answer", to.authority()))));
        let (member, mut answer) = match dialled {
            Ok(dialled) => dialled,
            Err(error) => {
                self.state().failed = Some(error);
                return;
            }
        };
        self.succeeded();
        // The key is taken, says what stands for the server: its number, nothing changed, no error.
        answer.extend_from_slice(&16i32.to_be_bytes());
        answer.extend_from_slice(&xid);
        answer.extend_from_slice(&[0; 12]);
        if io.write_all(&answer).await.is_ok() {
            pass(io, member).await;
        }
    }

    /// The client's first frame, and the number of the second if that has the key.
    async fn knock(&self, io: &mut TcpStream) -> Option<(Vec<u8>, [u8; 4])> {
        io.set_nodelay(true).ok()?;
        let hello = frame(io).await.ok()?;
        let key = frame(io).await.ok()?;
        let xid = key.get(4..8)?.try_into().ok()?;
        let mut wanted = Vec::new();
        wanted.extend_from_slice(&AUTH.to_be_bytes());
        wanted.extend_from_slice(&[0; 4]);
        for part in [SCHEME.as_bytes(), &self.key] {
            wanted.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
            wanted.extend_from_slice(part);
        }
        let shown = key.get(8..)?;
        // All of it, so that time does not tell where they differ.
        let differ = shown.iter().zip(&wanted).fold(0, |differ, (a, b)| differ | (a ^ b));
        (shown.len() == wanted.len() && differ == 0).then_some((hello, xid))
    }

    /// A connection to a member that has answered, and its answer.
    async fn dial(&self, hello: &[u8], to: &Address) -> Result<(Box<dyn AsyncStream>, Vec<u8>)> {
        sleep(self.wait()).await;
        let peer = to.authority().to_string();
        let (host, port) = (to.host().unwrap_or_default(), to.port().unwrap_or_default());
        let io = TcpStream::connect((host, port))
            .await
            .map_err(|source| Error::with_source(Kind::Unavailable, format!("{peer} cannot be dialled"), source))?;
        let _ = io.set_nodelay(true);
        let mut io: Box<dyn AsyncStream> = match self.secure.as_deref() {
            None => Box::new(io),
            Some(Secure { handshake, named }) => {
                Box::new(handshake.connect(io, &peer, (!named).then_some(host)).await?)
            }
        };
        let asked = async {
            io.write_all(hello).await?;
            io.flush().await?;
            frame(&mut io).await
        };
        match asked.await {
            Ok(answer) => Ok((io, answer)),
            Err(error) => {
                // With TLS 1.3 a server says only now what it thinks of our certificate.
                let context = match (&self.secure, cause(&error)) {
                    (Some(secure), Some(rustls::Error::AlertReceived(alert))) => {
                        format!("{peer} {}", refused(*alert, secure.handshake.identity()))
                    }
                    _ => format!("{peer} hung up before it answered"),
                };
                Err(Error::with_source(Kind::Unavailable, context, error))
            }
        }
    }
}

/// Passes on what either side says, until one has ended. A member that is silent then is not waited for: the client has
/// left it.
async fn pass(mut io: TcpStream, member: impl AsyncStream) {
    let ((mut asks, mut back), (mut answers, mut to)) = (io.split(), split(member));
    let mut answering = pin!(copy(&mut answers, &mut back));
    tokio::select! {
        _ = &mut answering => {}
        _ = copy(&mut asks, &mut to) => {
            let closing = async {
                let _ = to.shutdown().await;
                let _ = answering.await;
            };
            let _ = timeout(CLOSE_WITHIN, closing).await;
        }
    }
}

trait AsyncStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> AsyncStream for T {}

/// A frame of ZooKeeper's protocol with its length before it.
async fn frame(io: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = io.read_u32().await?;
    let most = usize::try_from(length).ok().filter(|length| *length <= MOST);
    let Some(most) = most else { return Err(std::io::Error::other("the first frame is too long")) };
    let mut frame = vec![0; most + 4];
    frame[..4].copy_from_slice(&length.to_be_bytes());
    io.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;
    use crate::{observe::default_observer, tls::ClientTls};

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

    fn knocking(key: &[u8]) -> Vec<u8> {
        let mut all = [&4u32.to_be_bytes()[..], b"open"].concat();
        let rest = 4 + 4 + 4 + 4 + SCHEME.len() + 4 + key.len();
        for word in [rest as u32, 7, AUTH as u32, 0, SCHEME.len() as u32] {
            all.extend_from_slice(&word.to_be_bytes());
        }
        all.extend_from_slice(SCHEME.as_bytes());
        all.extend_from_slice(&(key.len() as u32).to_be_bytes());
        all.extend_from_slice(key);
        all
    }

    const WITHIN: Duration = Duration::from_secs(5);

    /// To one member, whose certificate names `echo`.
    async fn pipe_to(member: &TcpListener) -> Pipe {
        let to = format!("grpc://{}", member.local_addr().expect("bound")).parse().expect("an address");
        let tls = ClientTls::new().ca_file(format!("{DATA}/ca.pem")).server_name("echo");
        let handshake = tls.prepare("zookeeper", default_observer()).expect("an issuer");
        let secure = Arc::new(Secure { handshake: handshake.without_h2(), named: true });
        Pipe::open(&[to], Some(secure), WITHIN).await.expect("a port")
    }

    #[tokio::test]
    async fn only_who_has_the_key_is_let_through() {
        let member = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut pipe = pipe_to(&member).await;
        let (hosts, key) = (pipe.hosts().expect("bound"), pipe.key());
        assert!(!format!("{pipe:?}").contains(&format!("{key:?}")));
        pipe.carry_until(async {
            let mut wrong = key;
            wrong[31] ^= 1;
            for key in [&wrong[..], b"", &key[..31], &[&key[..], b"x"].concat()] {
                let mut stranger = TcpStream::connect(&hosts).await.expect("it listens");
                stranger.write_all(&knocking(key)).await.expect("sent");
                let _ = stranger.read_to_end(&mut Vec::new()).await;
            }
            assert!(timeout(Duration::from_millis(100), member.accept()).await.is_err(), "nobody was let through");
            let mut client = TcpStream::connect(&hosts).await.expect("it listens");
            client.write_all(&knocking(&key)).await.expect("sent");
            let (mut dialled, _) = timeout(WITHIN, member.accept()).await.expect("let through").expect("accepted");
            // What comes is TLS: a handshake's record.
            assert_eq!(dialled.read_u8().await.expect("more"), 22);
        })
        .await;
    }

    #[tokio::test]
    async fn a_member_that_says_nothing_more_keeps_no_connection_of_a_client_that_left() {
        let member = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut pipe = pipe_to(&member).await;
        let (hosts, key) = (pipe.hosts().expect("bound"), pipe.key());
        let (chain, private) = (format!("{DATA}/server.pem"), format!("{DATA}/server.key"));
        let chain = CertificateDer::pem_file_iter(chain).expect("a file").collect::<Result<Vec<_>, _>>();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("PEM"), PrivateKeyDer::from_pem_file(private).expect("a key"))
            .expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let serving = async {
            let (io, _) = member.accept().await.expect("accepted");
            let mut tls = acceptor.accept(io).await.expect("TLS");
            let hello = frame(&mut tls).await.expect("a frame");
            tls.write_all(&hello).await.expect("sent");
            tls.flush().await.expect("sent");
            assert_eq!(tls.read_u8().await.expect("passed on"), b'!');
            tls
        };
        let calling = async {
            let mut client = TcpStream::connect(&hosts).await.expect("it listens");
            client.write_all(&knocking(&key)).await.expect("sent");
            assert_eq!(&frame(&mut client).await.expect("the answer")[4..], b"open");
            let taken = frame(&mut client).await.expect("the key is taken");
            assert_eq!(taken[4..], [&7u32.to_be_bytes()[..], &[0; 12]].concat());
            client.write_all(b"!").await.expect("sent");
        };
        let (_silent, ()) = pipe.carry_until(futures_util::future::join(serving, calling)).await;
        let left = async {
            while !pipe.carried.is_empty() {
                pipe.carry_until(sleep(Duration::from_millis(10))).await;
            }
        };
        assert!(timeout(CLOSE_WITHIN * 5, left).await.is_ok(), "it is held for ever");
    }
}
