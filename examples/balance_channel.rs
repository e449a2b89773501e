//! tonic's own balanced channel, fed by name: for those who cannot leave it yet.
//!
//! `cargo run --example balance_channel`

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use callsign::{registry, resolver::Resolver};
use common::{
    fleet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = registry("memory://balance_channel")?;
    let servers = fleet(&registry, &["ann", "ben"]).await?;

    let greeter = "greeter".parse()?;
    let watch = registry.discovery().watch(&greeter);
    let channel: tonic::transport::Channel = Resolver::new(greeter, watch).into_tonic_channel();

    let mut client = GreeterClient::new(channel);
    let mut served = BTreeMap::new();
    for _ in 0..1_000 {
        let reply = client.say_hello(HelloRequest { name: "callsign".to_owned() }).await?;
        *served.entry(reply.into_inner().message).or_insert(0) += 1;
    }
    println!("tonic's channel called: {served:?}");
    assert_eq!(served.len(), 2, "both are called");
    servers.stop().await;
    Ok(())
}
