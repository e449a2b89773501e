//! The smallest gRPC server, on frames alone, so that what is measured against it is the client.
//!
//! It answers every stream with the request's bytes: once, or as often as the message's first four
//! bytes say if the path ends in `S`. It never looks into HPACK, whose state it need not keep: the
//! kind of call rides in the message.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// The argument by which a benchmark's program runs as the server.
pub const SERVE: &str = "--serve-echo";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PREFACE: usize = 24;
const MAX_FRAME: usize = 16_384;
/// What a client may send of one call before we have read it.
const WINDOW: u32 = 8 << 20;

/// `:status: 200`, `content-type: application/grpc`; `grpc-status: 0`: HPACK literals that enter the
/// table, as those of real servers do.
const HEAD: &[u8] = b"\x88\x5f\x10application/grpc";
const TRAILERS: &[u8] = b"\x40\x0bgrpc-status\x010";
/// The same by their places in the table: the newest is 62.
const HEAD_ALONE: &[u8] = &[0x88, 0xbe];
const HEAD_BEHIND_TRAILERS: &[u8] = &[0x88, 0xbf];
const TRAILERS_AGAIN: &[u8] = &[0xbe];

/// What TLS needs: the certificates of the tests.
pub mod pem {
    /// The issuer.
    pub const CA: &str = include_str!("../../tests/data/tls/ca.pem");
    /// The server's, for the name `echo`.
    pub const CHAIN: &str = include_str!("../../tests/data/tls/server.pem");
    /// Its key.
    pub const KEY: &str = include_str!("../../tests/data/tls/server.key");
}

fn acceptor() -> Result<TlsAcceptor, Box<dyn Error>> {
    let chain = CertificateDer::pem_slice_iter(pem::CHAIN.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let key = PrivateKeyDer::from_pem_slice(pem::KEY.as_bytes())?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves each connection of each of so many ports, and of as many over TLS, which are all printed
/// first, until stdin ends.
///
/// # Errors
///
/// If it cannot listen.
pub async fn serve(ports: usize) -> Result<(), Box<dyn Error>> {
    let mut listeners = Vec::new();
    for _ in 0..ports * 2 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let socket = socket(std::process::id());
    let local = UnixListener::bind(&socket)?;
    for listener in &listeners {
        println!("{}", listener.local_addr()?);
    }
    for (at, listener) in listeners.into_iter().enumerate() {
        let acceptor = if at < ports { None } else { Some(acceptor()?) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => connection(stream).await,
                        Some(acceptor) => connection(acceptor.accept(stream).await?).await,
                    }
                });
            }
        });
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = local.accept().await {
            tokio::spawn(connection(stream));
        }
    });
    // Until the benchmark is gone.
    let mut line = String::new();
    tokio::task::spawn_blocking(move || io::stdin().read_line(&mut line)).await??;
    drop(fs::remove_file(socket));
    Ok(())
}

fn socket(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("callsign-bench-{process}.sock"))
}

/// Serves one connection to its end.
///
/// # Errors
///
/// If it breaks, or the peer does.
pub async fn connection(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut peer = Peer { window: 65_535, initial: 65_535, ..Peer::default() };
    peer.greet();
    let mut input = BytesMut::with_capacity(64 << 10);
    let mut preface = PREFACE;
    loop {
        if !peer.out.is_empty() {
            io.write_all_buf(&mut peer.out).await?;
            // TLS may keep what the socket did not take.
            io.flush().await?;
        }
        if io.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let skip = preface.min(input.len());
        input.advance(skip);
        preface -= skip;
        while input.len() >= 9 {
            let length = usize::from(input[0]) << 16 | usize::from(input[1]) << 8 | usize::from(input[2]);
            if input.len() < 9 + length {
                input.reserve(9 + length - input.len());
                break;
            }
            let (kind, flags) = (input[3], input[4]);
            let id = (&input[5..9]).get_u32() & 0x7fff_ffff;
            input.advance(9);
            peer.frame(kind, flags, id, input.split_to(length));
        }
        input.reserve(16 << 10);
    }
}

#[derive(Default)]
struct Peer {
    out: BytesMut,
    /// What we may send on the connection, and on a new stream.
    window: i64,
    initial: i64,
    /// What we have read and not made good.
    read: u32,
    calls: HashMap<u32, Call>,
    sent_head: bool,
    sent_trailers: bool,
}

#[derive(Default)]
struct Call {
    body: BytesMut,
    window: i64,
    /// What is left to answer, once the request has ended.
    reply: Option<Bytes>,
}

impl Peer {
    fn greet(&mut self) {
        // MAX_CONCURRENT_STREAMS 1,000 and INITIAL_WINDOW_SIZE.
        self.head(12, SETTINGS, 0, 0);
        self.out.put_u16(3);
        self.out.put_u32(1_000);
        self.out.put_u16(4);
        self.out.put_u32(WINDOW);
        self.window_update(0, (1 << 30) - 65_535);
    }

    fn head(&mut self, length: usize, kind: u8, flags: u8, id: u32) {
        self.out.put_u32((length as u32) << 8 | u32::from(kind));
        self.out.put_u8(flags);
        self.out.put_u32(id);
    }

    fn window_update(&mut self, id: u32, size: u32) {
        self.head(4, WINDOW_UPDATE, 0, id);
        self.out.put_u32(size);
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, mut payload: BytesMut) {
        match kind {
            DATA => self.data(id, &payload, flags & END_STREAM != 0),
            HEADERS => drop(self.calls.insert(id, Call { window: self.initial, ..Call::default() })),
            RST_STREAM => drop(self.calls.remove(&id)),
            SETTINGS if flags & ACK == 0 => {
                while payload.remaining() >= 6 {
                    if let (4, value) = (payload.get_u16(), i64::from(payload.get_u32())) {
                        self.calls.values_mut().for_each(|call| call.window += value - self.initial);
                        self.initial = value;
                    }
                }
                self.head(0, SETTINGS, ACK, 0);
            }
            PING if flags & ACK == 0 => {
                self.head(payload.len(), PING, ACK, 0);
                self.out.put(payload);
            }
            WINDOW_UPDATE => {
                let size = i64::from(payload.get_u32());
                if let Some(call) = self.calls.get_mut(&id) {
                    call.window += size;
                    self.answer(id);
                } else if id == 0 {
                    self.window += size;
                    let waiting: Vec<_> = self.calls.keys().copied().collect();
                    waiting.into_iter().for_each(|id| self.answer(id));
                }
            }
            _ => {}
        }
    }

    fn data(&mut self, id: u32, payload: &[u8], last: bool) {
        self.read += payload.len() as u32;
        if self.read > 1 << 20 {
            self.window_update(0, self.read);
            self.read = 0;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.body.extend_from_slice(payload);
        if !last {
            return;
        }
        let body = call.body.split().freeze();
        // Behind the five bytes of gRPC's prefix.
        let replies = body.get(5..9).map_or(1, |mut count| count.get_u32()).max(1);
        call.reply = Some(body.clone());
        let head = match (self.sent_head, self.sent_trailers) {
            (false, _) => HEAD,
            (true, false) => HEAD_ALONE,
            (true, true) => HEAD_BEHIND_TRAILERS,
        };
        self.sent_head = true;
        self.head(head.len(), HEADERS, END_HEADERS, id);
        self.out.put(head);
        if replies > 1 {
            // Each message in a frame of its own; they are few enough for any window.
            let call = self.calls.get_mut(&id).expect("it is there");
            call.reply = Some(Bytes::new());
            self.window -= body.len() as i64 * i64::from(replies);
            for _ in 0..replies {
                self.head(body.len(), DATA, 0, id);
                self.out.extend_from_slice(&body);
            }
        }
        self.answer(id);
    }

    /// Sends what the windows allow.
    fn answer(&mut self, id: u32) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        let Some(mut reply) = call.reply.take() else {
            self.calls.insert(id, call);
            return;
        };
        while !reply.is_empty() {
            let room = self.window.min(call.window).clamp(0, MAX_FRAME as i64) as usize;
            if room == 0 {
                call.reply = Some(reply);
                self.calls.insert(id, call);
                return;
            }
            let chunk = reply.split_to(room.min(reply.len()));
            self.window -= chunk.len() as i64;
            call.window -= chunk.len() as i64;
            self.head(chunk.len(), DATA, 0, id);
            self.out.put(chunk);
        }
        let trailers = if self.sent_trailers { TRAILERS_AGAIN } else { TRAILERS };
        self.sent_trailers = true;
        self.head(trailers.len(), HEADERS, END_HEADERS | END_STREAM, id);
        self.out.put(trailers);
    }
}

/// The server as a process, gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
    secure: Vec<SocketAddr>,
    socket: PathBuf,
}

impl Server {
    /// Runs this very program as the server.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn start(ports: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, &ports.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let lines = BufReader::new(stdout).lines().take(ports * 2);
        let mut addresses: Vec<SocketAddr> =
            lines.map(|line| Ok::<_, Box<dyn Error>>(line?.parse()?)).collect::<Result<_, _>>()?;
        let socket = socket(child.id());
        let secure = addresses.split_off(ports);
        Ok(Self { child, addresses, secure, socket })
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The ports it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The ports it listens on for TLS.
    #[must_use]
    pub fn secure(&self) -> &[SocketAddr] {
        &self.secure
    }

    /// The Unix socket it listens on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}
