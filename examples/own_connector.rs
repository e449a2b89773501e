//! Connectors of one's own: through an HTTP proxy by CONNECT, and to a server in this very process.
//! SOCKS, vsock or whatever else carries bytes is done likewise: ten lines each.
//!
//! `cargo run --example own_connector`

#[path = "common/mod.rs"]
mod common;

use std::error::Error;

use callsign::{
    BoxFuture, Channel, EndpointKey, Kind,
    channel::{Connector, Io},
};
use common::{
    Greet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};
use http::Uri;
use hyper_util::client::legacy::connect::{HttpConnector, proxy::Tunnel};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, copy_bidirectional, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tower::Service;

/// Asks an HTTP proxy for a tunnel to the endpoint. (`SocksV5` beside `Tunnel` speaks SOCKS.)
#[derive(Debug)]
struct ThroughProxy(Uri);

impl Connector for ThroughProxy {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, callsign::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let failed = |source: Box<dyn Error + Send + Sync>| {
                callsign::Error::with_source(Kind::Unavailable, format!("no tunnel to {to} by {}", self.0), source)
            };
            let to: Uri = format!("http://{to}").parse().map_err(|error| failed(Box::new(error)))?;
            let tunnel = Tunnel::new(self.0.clone(), HttpConnector::new()).call(to).await;
            let stream = tunnel.map_err(|error| failed(Box::new(error)))?.into_inner();
            Ok(Box::new(stream) as Box<dyn Io>)
        })
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
    let through = ThroughProxy(format!("http://{}", proxy.local_addr()?).parse()?);
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
