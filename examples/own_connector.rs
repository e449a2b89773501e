//! Connectors of one's own: through an HTTP proxy by CONNECT, and to a server in this very process.
//! SOCKS, vsock or whatever else carries bytes is done likewise: ten lines each.
//!
//! `cargo run --example own_connector`

#[path = "common/mod.rs"]
mod common;

use std::{error::Error, net::SocketAddr};

use bytes::Bytes;
use callsign::{
    BoxFuture, Channel, EndpointKey, Kind,
    channel::{Connector, Io},
};
use common::{
    Greet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, copy_bidirectional, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};

/// Asks an HTTP proxy for a tunnel to the endpoint, by hyper. (What hyper-util has for it waits for ever
/// where the server's first bytes come with the proxy's answer.)
#[derive(Debug)]
struct ThroughProxy(SocketAddr);

impl ThroughProxy {
    async fn tunnel(&self, to: &EndpointKey) -> Result<Box<dyn Io>, Box<dyn Error + Send + Sync>> {
        let stream = TokioIo::new(TcpStream::connect(self.0).await?);
        let (mut proxy, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection.with_upgrades());
        let answer = proxy.send_request(Request::connect(to.to_string()).body(Empty::<Bytes>::new())?).await?;
        Ok(Box::new(TokioIo::new(hyper::upgrade::on(answer).await?)))
    }
}

impl Connector for ThroughProxy {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, callsign::Result<Box<dyn Io>>> {
        let why = move |source| {
            let context = format!("no tunnel to {to} by {}", self.0);
            callsign::Error::with_source(Kind::Unavailable, context, source)
        };
        Box::pin(async move { self.tunnel(to).await.map_err(why) })
    }
}

/// Hands one end of a pipe to a server in this process.
#[derive(Debug)]
struct InProcess(mpsc::UnboundedSender<std::io::Result<DuplexStream>>);

impl Connector for InProcess {
    fn connect<'a>(&'a self, _: &'a EndpointKey) -> BoxFuture<'a, callsign::Result<Box<dyn Io>>> {
        let (ours, theirs) = duplex(64 * 1024);
        let sent = self.0.send(Ok(theirs));
        Box::pin(async move {
            sent.map_err(|_| callsign::Error::new(Kind::Unavailable, "the server has ended"))?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

async fn greet(channel: Channel) -> Result<String, tonic::Status> {
    let request = HelloRequest { name: "world".to_owned() };
    Ok(GreeterClient::new(channel).say_hello(request).await?.into_inner().message)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let router = || Greet::router("a server");
    tokio::spawn(router().serve_with_incoming(TcpListenerStream::new(listener)));

    let proxy = TcpListener::bind("127.0.0.1:0").await?;
    let through = ThroughProxy(proxy.local_addr()?);
    tokio::spawn(tunnels(proxy));
    let channel = Channel::builder(format!("static://{server}/greeter")).connector(through).connect().await?;
    println!("through a proxy: {}", greet(channel).await?);

    let (connector, incoming) = mpsc::unbounded_channel();
    tokio::spawn(router().serve_with_incoming(UnboundedReceiverStream::new(incoming)));
    let channel = Channel::builder("static://in-process:1/greeter").connector(InProcess(connector)).connect().await?;
    println!("in this process: {}", greet(channel).await?);
    Ok(())
}

/// A proxy that knows CONNECT, and nothing else.
async fn tunnels(proxy: TcpListener) -> std::io::Result<()> {
    loop {
        let mut client = BufReader::new(proxy.accept().await?.0);
        tokio::spawn(async move {
            let mut asked = String::new();
            client.read_line(&mut asked).await?;
            println!("the proxy is asked: {}", asked.trim());
            // The rest of the head, up to an empty line.
            while client.read_line(&mut String::new()).await? > 2 {}
            let to = asked.split(' ').nth(1).unwrap_or_default();
            let mut server = TcpStream::connect(to).await?;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            copy_bidirectional(&mut client, &mut server).await
        });
    }
}
