//! etcd, on real members of it: conformance, Kratos's bytes, outages of all kinds, users, and what is left behind.

#![cfg(all(feature = "etcd", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use callsign::{
    Registration, ServiceInstance, ServiceName,
    observe::{Event, Observer},
    registry::{Discovery, Etcd, EtcdBuilder, Registrar, Registry, Watch},
    server::RegistrationState,
};
use tokio::time::{Instant, sleep, timeout};

#[path = "support/dir.rs"]
mod dir;
#[path = "support/servers/etcd.rs"]
mod real;
#[path = "support/servers/mod.rs"]
mod servers;

#[path = "etcd/cluster.rs"]
mod cluster;
#[path = "etcd/layout.rs"]
mod layout;
#[path = "etcd/link.rs"]
mod link;
#[path = "etcd/outage.rs"]
mod outage;
#[path = "etcd/quiet.rs"]
mod quiet;
#[path = "etcd/users.rs"]
mod users;
#[path = "etcd/watching.rs"]
mod watching;

/// How long anything may take on a machine that does much else.
const BOUND: Duration = Duration::from_secs(30);

/// One member for all tests that do it no harm; each has a namespace of its own.
fn shared() -> Option<Arc<real::Etcd>> {
    static SHARED: Mutex<Weak<real::Etcd>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(etcd) = shared.upgrade() {
        return Some(etcd);
    }
    let etcd = Arc::new(real::Etcd::start(1)?);
    *shared = Arc::downgrade(&etcd);
    Some(etcd)
}

fn at(real: &real::Etcd) -> EtcdBuilder {
    Etcd::builder(real.endpoints())
}

fn instance_of(service: &str, id: &str) -> ServiceInstance {
    let address = "grpc://127.0.0.1:9".parse().unwrap();
    ServiceInstance::builder(service, id).unwrap().address(address).build().unwrap()
}

fn instance(id: &str) -> ServiceInstance {
    instance_of("s", id)
}

fn service() -> ServiceName {
    "s".parse().unwrap()
}

fn seen(watch: &Watch) -> Vec<String> {
    let view = watch.view();
    view.snapshot().into_iter().flat_map(|set| set.instances()).map(|one| one.id().to_string()).collect()
}

async fn until(watch: &mut Watch, ids: &[&str]) {
    let shown = async {
        while seen(watch) != ids || watch.view().snapshot().is_none() {
            watch.next().await.unwrap();
        }
    };
    let shown = timeout(BOUND, shown).await;
    assert!(shown.is_ok(), "wanted {ids:?}, there is {:?}", watch.view());
}

async fn until_outage(watch: &mut Watch, outage: bool) {
    let told = async {
        while watch.view().outage().is_some() != outage {
            watch.next().await.unwrap();
        }
    };
    assert!(timeout(BOUND, told).await.is_ok(), "{:?}", watch.view());
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool + Send) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "{what}: not so after {BOUND:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn until_state(registration: &Registration, what: &str, holds: fn(&RegistrationState) -> bool) {
    eventually(what, || holds(&registration.state())).await;
}

async fn registered(registry: impl Into<Registry>, instance: ServiceInstance, log: &Arc<Log>) -> Registration {
    let registration = Registration::with_observer(&registry.into(), instance, log.clone()).unwrap();
    registration.start();
    registration.registered_within(BOUND).await.unwrap();
    registration
}

/// The names of events, and what was skipped.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn count(&self, what: &str) -> usize {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let Some(real) = shared() else { return };
    let etcd = at(&real).namespace("/conforms").ttl(Duration::from_secs(4)).build().unwrap();
    callsign::testing::conformance::run(|| etcd.clone().into()).await;
}

#[tokio::test]
async fn is_opened_by_its_uri_and_a_server_and_a_client_meet() {
    let Some(real) = shared() else { return };
    let uri = format!("etcd://{}?namespace=/opened&ttl=5s", real.endpoints()[0]);
    let registry = callsign::registry(&uri).unwrap();
    let log = Arc::default();
    let registration = registered(registry, instance("a"), &log).await;
    let mut watch = callsign::registry(&uri).unwrap().discovery().watch(&service());
    until(&mut watch, &["a"]).await;
    registration.shutdown().await;
    until(&mut watch, &[]).await;
    assert!(real.read(0, "/opened/s/a").is_none());
}

/// What is needed of a runtime is asked for in its words; and each runtime has its connections.
#[test]
fn connections_belong_to_the_runtime_that_asked() {
    let Some(real) = shared() else { return };
    let etcd = at(&real).namespace("/runtimes").build().unwrap();
    for n in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let set = runtime.block_on(etcd.list(&service())).unwrap();
        assert!(set.instances().is_empty(), "run {n}");
        if n == 0 {
            let lease = runtime.block_on(etcd.register(&Arc::new(instance("a")))).unwrap();
            runtime.block_on(etcd.deregister(&lease)).unwrap();
        }
    }
}
