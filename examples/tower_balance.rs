//! tower's `Balance` over endpoints found by name: for stacks built of tower's parts.
//!
//! `cargo run --example tower_balance`

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use callsign::{registry, resolver::Resolver};
use common::{
    fleet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};
use tower::{
    ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    util::BoxCloneSyncService,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = registry("memory://tower_balance")?;
    let servers = fleet(&registry, &["ann", "ben", "cleo"]).await?;

    let greeter = "greeter".parse()?;
    let watch = registry.discovery().watch(&greeter);
    // Each endpoint is a service that is ready when it is connected; tower does the rest.
    let services = Resolver::new(greeter, watch).into_services();
    let loads = PendingRequestsDiscover::new(services, CompleteOnResponse::default());
    let balance = Buffer::new(Balance::new(loads), 64);

    let mut client = GreeterClient::new(BoxCloneSyncService::new(balance.map_err(tonic::Status::from_error)));
    let mut served = BTreeMap::new();
    for _ in 0..1_000 {
        let reply = client.say_hello(HelloRequest { name: "callsign".to_owned() }).await?;
        *served.entry(reply.into_inner().message).or_insert(0) += 1;
    }
    println!("tower's Balance called: {served:?}");
    assert_eq!(served.len(), 3, "all are called");
    servers.stop().await;
    Ok(())
}
