//! One program, one instance, two endpoints: gRPC by tonic and HTTP by axum, registered together.
//!
//! `cargo run --example grpc_and_http`

#[path = "common/mod.rs"]
mod common;

use axum::{Router, routing::get};
use callsign::{Channel, Scheme, Server, registry};
use common::{
    Fleet, Greet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = registry("memory://grpc_and_http")?;
    let server = Server::new("greeter")
        .version("v1.4.0")
        .grpc("127.0.0.1:0", Greet::router("ann"))
        .http("127.0.0.1:0", Router::new().route("/hello", get(|| async { "hello by HTTP" })));
    let mut servers = Fleet::default();
    servers.start(server, &registry).await?;

    // What everybody finds in the registry: one instance, reachable both ways.
    let found = registry.discovery().list(&"greeter".parse()?).await?;
    let instance = &found.instances()[0];
    println!("{} {} is at {:?}", instance.id(), instance.version(), instance.addresses());

    let channel = Channel::builder("greeter").registry(registry).connect().await?;
    let reply = GreeterClient::new(channel).say_hello(HelloRequest { name: "callsign".to_owned() }).await?;
    println!("gRPC says: hello from {}", reply.into_inner().message);

    let http = instance.addresses().iter().find(|address| address.scheme() == Scheme::Http).ok_or("no HTTP")?;
    let mut stream = TcpStream::connect(http.authority().to_string()).await?;
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: greeter\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("HTTP says: {}", answer.lines().last().unwrap_or_default());
    assert!(answer.ends_with("hello by HTTP"));
    servers.stop().await;
    Ok(())
}
