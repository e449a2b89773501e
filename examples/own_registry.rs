//! A registry of one's own: a scheme whose instances stand in a file of plain lines.
//!
//! `cargo run --example own_registry`

#[path = "common/mod.rs"]
mod common;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use callsign::{
    BoxFuture, Channel, Error, Kind, Result, ServiceInstance, ServiceName,
    registry::{Discovery, Registry, Schemes, Snapshot, Update, Watch},
};
use common::{
    fleet,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};

/// A file with a line an instance: `service id address`.
#[derive(Debug)]
struct Lines(PathBuf);

impl Lines {
    fn read(&self, service: &ServiceName) -> Result<Snapshot> {
        let text = fs::read_to_string(&self.0)
            .map_err(|error| Error::with_source(Kind::Unavailable, format!("cannot read {:?}", self.0), error))?;
        let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let instances = words.filter_map(|words| match words[..] {
            [name, id, address] if name == service.as_str() => {
                let address = address.parse().ok()?;
                ServiceInstance::builder(name, id).ok()?.address(address).build().ok().map(Arc::new)
            }
            _ => None,
        });
        Ok(Snapshot::new(instances))
    }
}

impl Discovery for Lines {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move { self.read(service) })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (lines, service) = (Self(self.0.clone()), service.clone());
        // Told once a second; what changes nothing goes no further, and an outage removes nothing.
        Watch::driven(async move |sender| {
            loop {
                sender.send(lines.read(&service).map_or_else(Update::Unavailable, Update::Instances));
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = sender.closed() => return,
                }
            }
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two servers, and a file that says where they are.
    let servers = fleet(&callsign::registry("memory://own_registry")?, &["ann", "ben"]).await?;
    let lines: Vec<_> = servers
        .instances()
        .map(|instance| format!("greeter {} {}\n", instance.id(), instance.addresses()[0]))
        .collect();
    let path = std::env::temp_dir().join(format!("callsign-own-registry-{}", std::process::id()));
    fs::write(&path, lines.concat())?;

    // The same scheme serves every target. What it opens is kept going and shared, as all are.
    let schemes = Schemes::default().with("lines", |uri| {
        uri.expect_params(&[])?;
        let path = PathBuf::from(uri.path());
        Ok(Registry::read_only(uri.to_string(), Arc::new(Lines(path))))
    });
    let target = format!("lines://{}/greeter", path.display());
    let channel = Channel::builder(&target).schemes(schemes).connect().await?;

    let mut client = GreeterClient::new(channel);
    let mut served = BTreeMap::new();
    for _ in 0..1_000 {
        let reply = client.say_hello(HelloRequest { name: "callsign".to_owned() }).await?;
        *served.entry(reply.into_inner().message).or_insert(0) += 1;
    }
    println!("{target} called: {served:?}");
    fs::remove_file(&path)?;
    servers.stop().await;
    Ok(())
}
