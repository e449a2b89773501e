//! The clients that are compared, each connected to all endpoints that it can take.

use std::{
    future::Future,
    net::SocketAddr,
    ops::Range,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use callsign::{Channel, ChannelBuilder, tls::ClientTls};
use grpc::{
    client::{CallOptions, Invoke, RecvStream, ResponseStreamItem, SendOptions, SendStream},
    core::{RecvMessage, RequestHeaders, SendMessage},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{
    body::Body,
    client::GrpcService,
    transport::{self, Certificate, ClientTlsConfig},
};
use tower::{
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
};

use crate::{
    echo::{Server, pem},
    raw::{BoxError, Messages, Raw, Shape, on_channel, on_h2, on_hyper},
};

/// One caller's calls, one after the other, the replies checked; how long each took.
pub type Call =
    Arc<dyn Fn(Shape, Job) -> Pin<Box<dyn Future<Output = Result<Vec<Duration>, BoxError>> + Send>> + Send + Sync>;

/// What one caller is to send.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// Where the messages are from.
    pub messages: Messages,
    /// Which of them.
    pub numbers: Range<usize>,
}

impl Job {
    /// So many messages.
    #[must_use]
    pub fn new(messages: Messages, numbers: Range<usize>) -> Self {
        Self { messages, numbers }
    }
}

async fn each<F: Future<Output = Result<(), BoxError>>>(
    job: Job,
    call: impl Fn(Bytes) -> F,
) -> Result<Vec<Duration>, BoxError> {
    let mut took = Vec::with_capacity(job.numbers.len());
    for number in job.numbers {
        let begun = Instant::now();
        call(job.messages.get(number)).await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// A client's name and how it calls.
pub type Client = (&'static str, Call);

/// Names that the ratios are made of.
pub const CALLSIGN: &str = "callsign";
/// The same with a codec whose buffers begin small.
pub const CALLSIGN_SMALL: &str = "callsign, small buffers";
/// tonic with one connection.
pub const TONIC: &str = "tonic Channel";
/// tonic over all endpoints.
pub const BALANCE_LIST: &str = "tonic balance_list";
/// hyper, and nothing else.
pub const HYPER: &str = "bare hyper";
/// h2, and nothing else.
pub const H2: &str = "bare h2";

/// All of them, in plaintext.
///
/// # Errors
///
/// If one cannot connect.
pub async fn plaintext(server: &Server) -> Result<Vec<Client>, BoxError> {
    let addresses = server.addresses();
    let endpoints = addresses.iter().map(|address| transport::Endpoint::from_shared(format!("http://{address}")));
    let endpoints = endpoints.map(|endpoint| Ok(endpoint?.tcp_nodelay(true)));
    let endpoints: Vec<_> = endpoints.collect::<Result<_, transport::Error>>()?;

    let ours = callsign(addresses, |builder| builder).await?;
    let single = endpoints[0].connect().await?;
    let list = transport::Channel::balance_list(endpoints.iter().cloned());
    let mut connected = Vec::new();
    for endpoint in &endpoints {
        connected.push(PendingRequests::new(endpoint.connect().await?, CompleteOnResponse::default()));
    }
    let p2c = Buffer::new(Balance::new(ServiceList::new(connected)), 1024);
    Ok(vec![
        (CALLSIGN, by_channel(ours.clone(), Raw::default())),
        (CALLSIGN_SMALL, by_channel(ours, Raw::small())),
        (TONIC, by_channel(single, Raw::default())),
        (BALANCE_LIST, by_channel(list, Raw::default())),
        ("tower P2C, pending", by_channel(p2c, Raw::default())),
        ("grpc, Unix socket", by_grpc(server.socket())),
        (HYPER, by_hyper(server).await?),
        (H2, by_h2(server).await?),
    ])
}

/// Those that can, over TLS.
///
/// # Errors
///
/// If one cannot connect.
pub async fn secure(server: &Server) -> Result<Vec<Client>, BoxError> {
    let addresses = server.secure();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem::CA)).domain_name("echo");
    let endpoints = addresses
        .iter()
        .map(|address| transport::Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls.clone()));
    let endpoints: Vec<_> = endpoints.collect::<Result<_, _>>()?;
    let ours = callsign(addresses, |builder| builder.tls(ClientTls::new().ca_pem(pem::CA).server_name("echo"))).await?;
    let single = endpoints[0].connect().await?;
    let list = transport::Channel::balance_list(endpoints.into_iter());
    Ok(vec![
        (CALLSIGN, by_channel(ours, Raw::default())),
        (TONIC, by_channel(single, Raw::default())),
        (BALANCE_LIST, by_channel(list, Raw::default())),
    ])
}

/// A channel of ours on all endpoints, every one connected.
///
/// # Errors
///
/// If it cannot connect.
pub async fn callsign(
    addresses: &[SocketAddr],
    with: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) -> Result<Channel, BoxError> {
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Ok(with(Channel::builder(format!("static://{}", list.join(",")))).connect().await?)
}

/// Calls as generated code does on a channel.
pub fn by_channel<C>(channel: C, codec: Raw) -> Call
where
    C: GrpcService<Body, ResponseBody = Body, Future: Send> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError> + Send,
{
    Arc::new(move |shape, job| {
        let channel = channel.clone();
        Box::pin(each(job, move |message| on_channel(channel.clone(), codec, shape, message)))
    })
}

async fn by_h2(server: &Server) -> Result<Call, BoxError> {
    let mut connections = Vec::new();
    for address in server.addresses() {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
        let (h2, connection) = builder.handshake(stream).await?;
        tokio::spawn(async move { drop(connection.await) });
        connections.push((h2, address.to_string()));
    }
    let shared = Arc::new((connections, AtomicUsize::new(0)));
    Ok(Arc::new(move |shape, job| {
        let shared = shared.clone();
        let call = move |message| {
            let shared = shared.clone();
            async move {
                let (connections, next) = &*shared;
                let (h2, authority) = &connections[next.fetch_add(1, Relaxed) % connections.len()];
                on_h2(h2, authority, shape, message).await
            }
        };
        Box::pin(each(job, call))
    }))
}

async fn by_hyper(server: &Server) -> Result<Call, BoxError> {
    let mut connections = Vec::new();
    for address in server.addresses() {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1 << 20).initial_connection_window_size(8 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        connections.push((sender, address.to_string()));
    }
    let shared = Arc::new((connections, AtomicUsize::new(0)));
    Ok(Arc::new(move |shape, job| {
        let shared = shared.clone();
        let call = move |message| {
            let shared = shared.clone();
            async move {
                let (connections, next) = &*shared;
                let (sender, authority) = &connections[next.fetch_add(1, Relaxed) % connections.len()];
                on_hyper(sender, authority, shape, message).await
            }
        };
        Box::pin(each(job, call))
    }))
}

struct Message(Bytes);

impl SendMessage for Message {
    fn encode(&self) -> Result<Box<dyn Buf + Send + Sync>, String> {
        Ok(Box::new(self.0.clone()))
    }
}

impl RecvMessage for Message {
    fn decode(&mut self, data: &mut dyn Buf) -> Result<(), String> {
        self.0 = data.copy_to_bytes(data.remaining());
        Ok(())
    }
}

/// The `grpc` crate. Over TCP it leaves Nagle's algorithm on, which costs 40 ms a call; a Unix
/// socket has none.
fn by_grpc(socket: &Path) -> Call {
    let credentials = Arc::new(grpc::credentials::LocalChannelCredentials::new());
    let channel = grpc::client::Channel::new(
        format!("unix://{}", socket.display()),
        credentials,
        grpc::client::ChannelOptions::default(),
    );
    let one = move |channel: grpc::client::Channel, shape: Shape, message: Bytes| async move {
        let head = RequestHeaders::new().with_method_name("/echo.v1.Echo/Call");
        let (mut send, mut recv) = channel.invoke(head, CallOptions::new()).await;
        let options = SendOptions::new().with_final_msg(true);
        send.send(&Message(message.clone()), options).await.map_err(|()| "cannot send")?;
        let (mut reply, mut left) = (Message(Bytes::new()), shape.replies);
        loop {
            match recv.recv(&mut reply).await {
                ResponseStreamItem::Headers(_) => {}
                ResponseStreamItem::Message if reply.0 == message && left > 0 => left -= 1,
                ResponseStreamItem::Message => return Err("a reply is not what was sent".into()),
                ResponseStreamItem::Trailers(trailers) if left == 0 && trailers.status().is_ok() => return Ok(()),
                other => return Err(format!("ended with {other:?}").into()),
            }
        }
    };
    Arc::new(move |shape, job| {
        let channel = channel.clone();
        Box::pin(each(job, move |message| one(channel.clone(), shape, message)))
    })
}
