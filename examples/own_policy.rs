//! A balancing policy of one's own: the nearest instances first, those further away if there are none.
//!
//! `cargo run --example own_policy`

#[path = "common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use callsign::{
    Channel, Server,
    balance::{Balancer, Node, Pick, PickInfo, Picker, Policy},
    registry,
};
use common::{
    Fleet, Greet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};

/// Calls in turn those of one zone.
#[derive(Debug)]
struct InMyZone {
    zone: String,
}

impl Balancer for InMyZone {
    fn name(&self) -> &str {
        "in_my_zone"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let near = |node: &Node| node.endpoint().instance().locality().zone() == Some(&self.zone);
        let mut turns: Vec<_> = (0..ready.len()).filter(|at| near(&ready[*at])).collect();
        if turns.is_empty() {
            turns = (0..ready.len()).collect();
        }
        Box::new(InTurn { turns, next: AtomicUsize::new(0) })
    }
}

#[derive(Debug)]
struct InTurn {
    turns: Vec<usize>,
    next: AtomicUsize,
}

impl Picker for InTurn {
    fn pick(&self, _: &PickInfo<'_>) -> Pick {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Pick::At(self.turns[next % self.turns.len()])
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = registry("memory://own_policy")?;
    let mut servers = Fleet::default();
    for (id, zone) in [("ann", "eu-1a"), ("ben", "eu-1b"), ("cleo", "eu-1a")] {
        let server = Server::new("greeter").id(id).metadata("zone", zone).grpc("127.0.0.1:0", Greet::router(id));
        servers.start(server, &registry).await?;
    }

    let policy = Policy::new("in_my_zone", |_seed| InMyZone { zone: "eu-1a".to_owned() });
    let channel = Channel::builder("greeter").registry(registry).policy(policy).connect().await?;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let mut client = GreeterClient::new(channel);
    let mut served = BTreeMap::new();
    for _ in 0..1_000 {
        let reply = client.say_hello(HelloRequest { name: "callsign".to_owned() }).await?;
        *served.entry(reply.into_inner().message).or_insert(0) += 1;
    }
    println!("in zone eu-1a: {served:?}");
    assert!(!served.contains_key("ben") && served.len() == 2, "ben is in another zone");
    servers.stop().await;
    Ok(())
}
