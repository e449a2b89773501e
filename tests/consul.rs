//! Consul, on a real agent: conformance, Kratos's bytes, outages of all kinds, ACLs, and what is left behind.

#![cfg(all(feature = "consul", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use callsign::{
    Kind, Registration, ServiceInstance, ServiceName,
    observe::{Event, Observer},
    registry::{Consul, ConsulCheck, Discovery, Registrar, Registry, Renewal, Watch},
    server::RegistrationState,
    testing::conformance,
};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

#[path = "consul/agent.rs"]
mod agent;
#[path = "consul/checks.rs"]
mod checks;
#[path = "consul/cluster.rs"]
mod cluster;
#[path = "consul/fake.rs"]
mod fake;
#[path = "consul/named.rs"]
mod named;
#[path = "consul/pipe.rs"]
mod pipe;
#[path = "consul/rest.rs"]
mod rest;
#[path = "consul/secure.rs"]
mod secure;
#[path = "consul/stand.rs"]
mod stand;

#[path = "support/dir.rs"]
mod dir;
#[allow(unreachable_pub)]
#[path = "support/echo.rs"]
mod echo;
#[path = "support/follow.rs"]
mod follow;
#[path = "support/link.rs"]
mod link;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "support/process.rs"]
mod process;
#[path = "support/servers/consul.rs"]
mod real;
#[path = "support/servers/mod.rs"]
mod servers;

use follow::{BOUND, seen as ids, until as shows};

const TTL: Duration = Duration::from_secs(3);

fn at(consul: &real::Consul) -> Consul {
    Consul::builder([consul.address()]).ttl(TTL).build().unwrap()
}

fn instance(service: &str, id: &str) -> Arc<ServiceInstance> {
    let address = "grpc://10.1.2.3:9000".parse().unwrap();
    Arc::new(ServiceInstance::builder(service, id).unwrap().address(address).build().unwrap())
}

fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

/// A file of `tests/data/tls`.
fn data(file: &str) -> String {
    format!("{}/tests/data/tls/{file}", env!("CARGO_MANIFEST_DIR"))
}

async fn outage(watch: &mut Watch, wanted: bool) -> String {
    let told = timeout(BOUND, async {
        while watch.view().outage().is_some() != wanted {
            watch.next().await.unwrap();
        }
    });
    assert!(told.await.is_ok(), "outage {wanted}: {:?}", watch.view());
    watch.view().outage().map(|outage| format!("{:#}", outage.error())).unwrap_or_default()
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::RecordSkipped { record, error, .. } = event {
            self.0.lock().unwrap().push(format!("{record}: {error:#}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let Some(consul) = real::Consul::start() else { return };
    // Rows of the suite use the same ids in services of their own.
    let ttl = Duration::from_secs(5);
    let open = || Consul::builder([consul.address()]).ttl(ttl).qualified_ids(true).build().unwrap().into();
    let wrong = conformance::check(open).await;
    // The suite's metadata has keys that Consul has no room for, which is told.
    let is_rule = |wrong: &String| wrong.contains("Consul cannot hold one: the key");
    assert!(wrong.iter().filter(|wrong| is_rule(wrong)).count() == 1 && wrong.len() == 1, "{}", wrong.join("\n"));
}

/// C16, W6 (seen 8.3 s later with Kratos): what is in the catalog is what Kratos puts there, and passes at once.
#[tokio::test]
async fn an_instance_is_seen_at_once_and_stored_as_kratos_stores_it() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = at(&consul);
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &[]).await;
    let begun = Instant::now();
    let one = instance("s", "a").to_builder().version("v1").metadata("zone", "z").build().unwrap();
    let lease = registry.register(&Arc::new(one.clone())).await.unwrap();
    shows(&mut watch, &["a"]).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(*watch.view().snapshot().unwrap().instances()[0], one);
    let stored = consul.ask("GET", "/v1/health/service/s?passing=1", None);
    let stored = &stored[0]["Service"];
    assert_eq!(stored["Tags"], json!(["version=v1"]));
    assert_eq!(stored["Meta"], json!({"zone": "z"}));
    assert_eq!(stored["TaggedAddresses"]["grpc"], json!({"Address": "grpc://10.1.2.3:9000", "Port": 9000}));
    registry.deregister(&lease).await.unwrap();
    shows(&mut watch, &[]).await;
}

/// What Kratos itself would have registered, TCP checks and all; the renewal lets it pass.
#[tokio::test]
async fn kratos_s_own_bytes_are_an_option() {
    let Some(consul) = real::Consul::start() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = Consul::builder([consul.address()]).ttl(TTL).checks([ConsulCheck::Kratos]);
    let registry = registry.check_interval(Duration::from_secs(1)).build().unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap()).parse().unwrap();
    let one = ServiceInstance::builder("s", "a").unwrap().address(address).build().unwrap();
    let lease = registry.register(&Arc::new(one)).await.unwrap();
    let mut watch = registry.watch(&name("s"));
    // The agent tells its catalog of a check up to 3 s later; a lease that nobody renews until then has lapsed.
    let renewals = async {
        loop {
            assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Kept);
            sleep(TTL / 3).await;
        }
    };
    tokio::select! {
        () = shows(&mut watch, &["a"]) => {}
        () = renewals => {}
    }
    assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Kept);
    registry.deregister(&lease).await.unwrap();
    assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Lost);
}

/// C1 (kratos #3310): the last one gone is a set too. C8 (kratos #2647, #3147): deregistering is final, renewals in flight or not.
#[tokio::test]
async fn the_last_one_gone_is_told_and_no_renewal_brings_it_back() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = at(&consul);
    let mut watch = registry.watch(&name("s"));
    for _ in 0..200 {
        let lease = registry.register(&instance("s", "a")).await.unwrap();
        let (renewed, gone) = tokio::join!(registry.renew(&lease), registry.deregister(&lease));
        drop(renewed);
        gone.unwrap();
    }
    shows(&mut watch, &[]).await;
    assert_eq!(consul.ask("GET", "/v1/agent/services", None), json!({}));
}

/// C7 (kratos #1537), W3 (no update in 60 s with Kratos): an agent that lost its data: all register again, watches go on though the index went back.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_its_data_gets_it_back_and_no_watch_sticks() {
    let Some(mut consul) = real::Consul::start() else { return };
    let registry: Registry = Registry::from(at(&consul)).resilient();
    // So that the new one's index is far lower than the one that the watch has come to.
    for n in 0..300 {
        consul.ask("PUT", &format!("/v1/kv/{n}"), Some(&json!(n)));
    }
    let registration = Registration::new(&registry, Arc::unwrap_or_clone(instance("s", "a"))).unwrap();
    registration.start();
    registration.registered().await.unwrap();
    let mut watch = registry.discovery().watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    assert!(watch.view().snapshot().unwrap().revision() > 300);
    consul.kill();
    outage(&mut watch, true).await;
    assert_eq!(ids(&watch), ["a"], "an outage takes nobody out");
    consul.restart_empty();
    let other = Registration::new(&registry, Arc::unwrap_or_clone(instance("s", "b"))).unwrap();
    other.start();
    shows(&mut watch, &["a", "b"]).await;
    outage(&mut watch, false).await;
    drop(other);
    shows(&mut watch, &["a"]).await;
    registration.shutdown().await;
    shows(&mut watch, &[]).await;
}

/// C11 (consul #1001, #6231): a restart with its data, and a stop past the TTL.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_pauses_or_restarts_costs_no_instance() {
    let Some(mut consul) = real::Consul::start() else { return };
    let registry: Registry = Registry::from(at(&consul)).resilient();
    let registration = Registration::new(&registry, Arc::unwrap_or_clone(instance("s", "a"))).unwrap();
    registration.start();
    registration.registered().await.unwrap();
    let mut watch = registry.discovery().watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    consul.restart();
    shows(&mut watch, &["a"]).await;
    consul.signal("STOP");
    sleep(TTL * 2).await;
    assert_eq!(ids(&watch), ["a"]);
    consul.signal("CONT");
    let mut states = registration.states();
    let registered = timeout(BOUND, async {
        while !matches!(registration.state(), RegistrationState::Registered) {
            states.next().await;
        }
    });
    registered.await.unwrap();
    shows(&mut watch, &["a"]).await;
    outage(&mut watch, false).await;
    assert_eq!(consul.ask("GET", "/v1/agent/services", None).as_object().unwrap().len(), 1, "once, not twice");
}

/// Whom nobody renews is gone within his TTL.
#[tokio::test]
async fn the_instance_of_a_dead_owner_is_gone_after_its_ttl() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = at(&consul);
    let mut watch = registry.watch(&name("s"));
    let lease = registry.register(&instance("s", "a")).await.unwrap();
    shows(&mut watch, &["a"]).await;
    let begun = Instant::now();
    shows(&mut watch, &[]).await;
    assert!(begun.elapsed() < TTL * 2, "{:?}", begun.elapsed());
    // It comes back with a renewal, as the agent has it still.
    assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Kept);
    shows(&mut watch, &["a"]).await;
    // One that is taken out by hand is lost, and its owner would register it again.
    consul.ask("PUT", "/v1/agent/service/deregister/a", None);
    assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Lost);
}

/// E10 of Consul's: an agent's ids are one space; who would take another service's is told.
#[tokio::test]
async fn an_id_of_another_service_is_refused_and_qualified_ids_are_not() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = at(&consul);
    registry.register(&instance("s", "a")).await.unwrap();
    let error = registry.register(&instance("t", "a")).await.unwrap_err();
    assert!(error.kind() == Kind::Conflict && format!("{error:#}").contains("ids=qualified"), "{error:#}");
    let qualified = Consul::builder([consul.address()]).qualified_ids(true).build().unwrap();
    qualified.register(&instance("t", "a")).await.unwrap();
    let mut watch = registry.watch(&name("t"));
    shows(&mut watch, &["a"]).await;
    shows(&mut registry.watch(&name("s")), &["a"]).await;
}

/// W4, C18 (kratos #1698, #1892): bad neighbours, and services of others.
#[tokio::test]
async fn a_bad_neighbour_is_skipped_counted_and_told_once() {
    let Some(consul) = real::Consul::start() else { return };
    let told = Arc::new(Told::default());
    let registry = Consul::builder([consul.address()]).observer(told.clone()).build().unwrap();
    let bad = json!({"ID": " bad ", "Name": "s", "Port": 1});
    consul.ask("PUT", "/v1/agent/service/register", Some(&bad));
    consul.ask("PUT", "/v1/agent/service/register", Some(&json!({"ID": "plain", "Name": "s", "Port": 80})));
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["plain"]).await;
    assert_eq!(watch.view().snapshot().unwrap().instances()[0].addresses()[0].to_string(), "grpc://127.0.0.1:80");
    registry.register(&instance("s", "z")).await.unwrap();
    shows(&mut watch, &["plain", "z"]).await;
    assert_eq!(watch.view().snapshot().unwrap().skipped(), 1);
    let told = told.0.lock().unwrap();
    assert!(told.len() == 1 && told[0].starts_with(" bad :"), "{told:?}");
}

/// C11 (consul #3569): a missing permission is an error that says what to change, never "no instances".
#[tokio::test]
async fn acls_are_seen() {
    let Some(consul) = real::Consul::with_acl(true) else { return };
    let allowed = Consul::builder([consul.address()]).token(real::TOKEN).ttl(TTL).build().unwrap();
    allowed.register(&instance("s", "a")).await.unwrap();
    shows(&mut allowed.watch(&name("s")), &["a"]).await;
    // Nobody at all, and somebody unknown.
    let error = format!("{:#}", at(&consul).list(&name("s")).await.unwrap_err());
    assert!(error.contains("CONSUL_HTTP_TOKEN"), "{error}");
    let unknown = Consul::builder([consul.address()]).token("00000000-0000-4000-8000-000000000009").build().unwrap();
    let error = unknown.register(&instance("s", "b")).await.unwrap_err();
    assert!(error.kind() == Kind::PermissionDenied && format!("{error:#}").contains("service:write"), "{error:#}");
    // One who may read services, but not this one.
    let policy = json!({"Name": "none", "Rules": "service \"other\" { policy = \"read\" }"});
    consul.ask("PUT", "/v1/acl/policy", Some(&policy));
    let token = consul.ask("PUT", "/v1/acl/token", Some(&json!({"Policies": [{"Name": "none"}]})));
    let blind = Consul::builder([consul.address()]).token(token["SecretID"].as_str().unwrap()).build().unwrap();
    let mut watch = blind.watch(&name("s"));
    let why = outage(&mut watch, true).await;
    assert!(why.contains("service:read"), "{why}");
    assert!(watch.view().snapshot().is_none());
}

/// C9 (kratos #1537): bounded, whatever the agent does.
#[tokio::test]
async fn deregistering_while_it_is_away_is_bounded_and_leaves_nothing() {
    let Some(mut consul) = real::Consul::start() else { return };
    let registry: Registry = at(&consul).into();
    let registration = Registration::new(&registry, Arc::unwrap_or_clone(instance("s", "a"))).unwrap();
    registration.start();
    registration.registered().await.unwrap();
    consul.signal("STOP");
    let begun = Instant::now();
    registration.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    consul.signal("CONT");
    consul.kill();
}
