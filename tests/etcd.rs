//! etcd, on real members of it: conformance, Kratos's bytes, outages of all kinds, users, and what is left behind.

#![cfg(all(feature = "etcd", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use callsign::{
    Registration, ServiceInstance,
    registry::{Discovery, Etcd, EtcdBuilder, Registrar, Watch},
    server::RegistrationState,
};
use tokio::time::{Instant, sleep};

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
#[path = "support/servers/etcd.rs"]
mod real;
#[path = "support/servers/mod.rs"]
mod servers;

#[path = "etcd/cluster.rs"]
mod cluster;
#[path = "etcd/layout.rs"]
mod layout;
#[path = "etcd/outage.rs"]
mod outage;
#[path = "etcd/quiet.rs"]
mod quiet;
#[path = "etcd/stand.rs"]
mod stand;
#[path = "etcd/users.rs"]
mod users;
#[path = "etcd/watching.rs"]
mod watching;

use follow::*;
use servers::Shared;

/// One member for all tests that do it no harm; each has a namespace of its own.
fn shared() -> Option<Arc<real::Etcd>> {
    static SHARED: Shared<real::Etcd> = Shared::new();
    SHARED.get(|| real::Etcd::start(1))
}

fn at(real: &real::Etcd) -> EtcdBuilder {
    Etcd::builder(real.endpoints())
}

async fn until_state(registration: &Registration, what: &str, holds: fn(&RegistrationState) -> bool) {
    eventually(what, || holds(&registration.state())).await;
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
