//! Following what a registry says, and what is told of it.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "each test uses its part")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use callsign::{
    Registration, Registry, ServiceInstance, ServiceName,
    observe::{Event, Observer},
    registry::Watch,
};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take on a machine that does much else.
pub const BOUND: Duration = Duration::from_secs(30);

pub fn instance_of(service: &str, id: &str) -> ServiceInstance {
    let address = "grpc://127.0.0.1:9".parse().unwrap();
    ServiceInstance::builder(service, id).unwrap().address(address).build().unwrap()
}

pub fn instance(id: &str) -> ServiceInstance {
    instance_of("s", id)
}

pub fn service() -> ServiceName {
    "s".parse().unwrap()
}

pub fn seen(watch: &Watch) -> Vec<String> {
    let view = watch.view();
    view.snapshot().into_iter().flat_map(|set| set.instances()).map(|one| one.id().to_string()).collect()
}

pub async fn until(watch: &mut Watch, ids: &[&str]) {
    let shown = async {
        while seen(watch) != ids || watch.view().snapshot().is_none() {
            watch.next().await.unwrap();
        }
    };
    let shown = timeout(BOUND, shown).await;
    assert!(shown.is_ok(), "wanted {ids:?}, there is {:?}", watch.view());
}

pub async fn until_outage(watch: &mut Watch, outage: bool) {
    let told = async {
        while watch.view().outage().is_some() != outage {
            watch.next().await.unwrap();
        }
    };
    assert!(timeout(BOUND, told).await.is_ok(), "{:?}", watch.view());
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool + Send) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "{what}: not so after {BOUND:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn registered(registry: impl Into<Registry>, instance: ServiceInstance, log: &Arc<Log>) -> Registration {
    let registration = Registration::with_observer(&registry.into(), instance, log.clone()).unwrap();
    registration.start();
    registration.registered_within(BOUND).await.unwrap();
    registration
}

/// The names of events, and what was skipped.
#[derive(Debug, Default)]
pub struct Log(Mutex<Vec<String>>);

impl Log {
    pub fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::RecordSkipped { record, error, .. } => format!("RecordSkipped {record} {error:#}"),
            event => format!("{event:?}").split([' ', '{']).next().unwrap().to_owned(),
        };
        self.0.lock().unwrap().push(line);
    }
}
