//! ZooKeeper, on real members of it: conformance, outages of all kinds, users, and what is left behind.

#![cfg(all(feature = "zookeeper", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use callsign::{
    Kind, Registration,
    registry::{Discovery, Registrar, Renewal, Watch, ZooKeeper, ZooKeeperBuilder},
    server::RegistrationState,
};
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client::{Acls, Client, CreateMode};

#[path = "support/dir.rs"]
mod dir;
#[path = "support/follow.rs"]
mod follow;
#[path = "support/link.rs"]
mod link;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "support/process.rs"]
mod process;
#[path = "support/servers/zookeeper.rs"]
mod real;
#[path = "support/servers/mod.rs"]
mod servers;

#[path = "zookeeper/old.rs"]
mod old;
#[path = "zookeeper/outage.rs"]
mod outage;
#[path = "zookeeper/stand.rs"]
mod stand;
#[path = "zookeeper/watching.rs"]
mod watching;

use follow::*;

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
