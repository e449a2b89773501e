//! ZooKeeper, on real members of it: conformance, outages of all kinds, users, and what is left behind.

#![cfg(all(feature = "zookeeper", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use callsign::{
    Kind, Registration, ServiceInstance, ServiceName,
    observe::{Event, Observer},
    registry::{Discovery, Registrar, Registry, Renewal, Watch, ZooKeeper, ZooKeeperBuilder},
    server::RegistrationState,
};
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client::{Acls, Client, CreateMode};

#[path = "support/dir.rs"]
mod dir;
#[path = "support/servers/zookeeper.rs"]
mod real;
#[path = "support/servers/mod.rs"]
mod servers;

#[path = "zookeeper/old.rs"]
mod old;
#[path = "zookeeper/outage.rs"]
mod outage;
#[path = "zookeeper/watching.rs"]
mod watching;

/// How long anything may take on a machine that does much else.
const BOUND: Duration = Duration::from_secs(30);

/// One member for all tests that do it no harm; each has a root of its own.
fn shared() -> Option<Arc<real::ZooKeeper>> {
    static SHARED: Mutex<Weak<real::ZooKeeper>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(real) = shared.upgrade() {
        return Some(real);
    }
    let real = Arc::new(real::ZooKeeper::start(1)?);
    *shared = Arc::downgrade(&real);
    Some(real)
}

fn at(real: &real::ZooKeeper) -> ZooKeeperBuilder {
    ZooKeeper::builder(real.members())
}

/// Past callsign.
async fn by_hand(real: &real::ZooKeeper) -> Client {
    Client::connector().with_session_timeout(Duration::from_secs(20)).connect(&real.members().join(",")).await.unwrap()
}

async fn put(client: &Client, path: &str, data: &str) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (parent, _) = path.rsplit_once('/').unwrap();
    client.mkdir(parent, &options).await.unwrap();
    client.create(path, data.as_bytes(), &options).await.unwrap();
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
    let zookeeper = at(&real).root("/conforms").session(Duration::from_secs(4)).build().unwrap();
    callsign::testing::conformance::run(|| zookeeper.clone().into()).await;
}

#[tokio::test]
async fn is_opened_by_its_uri_and_a_server_and_a_client_meet() {
    let Some(real) = shared() else { return };
    let uri = format!("zk://{}?root=/opened&session=5s", real.members()[0]);
    let registry = callsign::registry(&uri).unwrap();
    let registration = registered(registry, instance("a"), &Arc::default()).await;
    let mut watch = callsign::registry(&uri).unwrap().discovery().watch(&service());
    until(&mut watch, &["a"]).await;
    let (data, stat) = by_hand(&real).await.get_data("/opened/s/a").await.unwrap();
    assert_eq!(String::from_utf8(data).unwrap(), instance("a").to_json());
    assert!(stat.ephemeral_owner != 0);
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

#[test]
fn sessions_belong_to_the_runtime_that_asked() {
    let Some(real) = shared() else { return };
    let zookeeper = at(&real).root("/runtimes").build().unwrap();
    for n in 0..5 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let set = runtime.block_on(zookeeper.list(&service())).unwrap();
        assert!(set.instances().is_empty(), "run {n}");
        let lease = runtime.block_on(zookeeper.register(&Arc::new(instance("a")))).unwrap();
        runtime.block_on(zookeeper.deregister(&lease)).unwrap();
    }
}
