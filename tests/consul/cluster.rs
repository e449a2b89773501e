//! Several servers: one cluster that loses its leader, one whose server hangs, and two datacenters.

use std::{sync::Arc, time::Duration};

use callsign::{
    Registration,
    registry::{Consul, Discovery, Registrar, Registry},
};
use serde_json::json;
use tokio::time::Instant;

use super::{BOUND, TTL, follow::eventually, ids, instance, name, outage, pipe::Pipe, real, shows};

fn at(servers: &[&real::Consul]) -> callsign::registry::ConsulBuilder {
    let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
    Consul::builder(addresses).ttl(TTL).wait(Duration::from_secs(2))
}

async fn registered(registry: &Registry, id: &str) -> Registration {
    let registration = Registration::new(registry, Arc::unwrap_or_clone(instance("s", id))).unwrap();
    registration.start();
    registration.registered_within(BOUND).await.unwrap();
    registration
}

/// C10 (spring-cloud-consul #473): a server that ends takes with it only what was registered there, until it is at another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_leader_is_killed_goes_on_with_another() {
    let Some(mut servers) = real::Consul::cluster(3) else { return };
    let leads = servers.iter().position(real::Consul::is_leader).unwrap();
    servers.swap(0, leads);
    let [leader, second, third] = servers.as_mut_slice() else { unreachable!() };
    // One is registered with the leader, and one is not.
    let registry: Registry = at(&[leader, second, third]).build().unwrap().into();
    let other: Registry = at(&[second, third]).build().unwrap().into();
    let (mine, others) = (registered(&registry, "a").await, registered(&other, "b").await);
    let mut watch = registry.discovery().watch(&name("s"));
    shows(&mut watch, &["a", "b"]).await;
    assert!(leader.ask("GET", "/v1/agent/services", None).get("a").is_some());

    leader.kill();
    eventually("another leader", || second.leader().is_some() && (second.is_leader() || third.is_leader())).await;
    // It is registered again, with a server that lives, and what is told is true.
    let held = |server: &real::Consul| server.ask("GET", "/v1/agent/services", None).get("a").is_some();
    eventually("registered again", || held(second) || held(third)).await;
    shows(&mut watch, &["a", "b"]).await;
    outage(&mut watch, false).await;
    let late = registered(&other, "c").await;
    shows(&mut watch, &["a", "b", "c"]).await;

    // The one that was killed still has it, and says so when it is back; nobody renews that.
    leader.restart();
    eventually("critical where it was", || {
        let checks = leader.ask("GET", "/v1/agent/checks", None);
        checks.get("service:a").is_none_or(|check| check["Status"] == "critical")
    })
    .await;
    assert_eq!(ids(&watch), ["a", "b", "c"]);
    mine.shutdown().await;
    shows(&mut watch, &["b", "c"]).await;
    drop((others, late));
}

/// One that takes connections and says nothing is passed over, and the watch goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_named_first_that_hangs_is_passed_over_and_the_watch_keeps_its_place() {
    let Some(mut servers) = real::Consul::cluster(3) else { return };
    // Without its leader nothing would go on: that is another test.
    let leads = servers.iter().position(real::Consul::is_leader).unwrap();
    servers.swap(2, leads);
    let [first, second, third] = servers.as_slice() else { unreachable!() };
    let pipe = Pipe::to(&second.address()).await;
    let builder = Consul::builder([first.address(), pipe.address()]).ttl(TTL).wait(Duration::from_secs(1));
    let registry = builder.build().unwrap();
    let mut watch = registry.watch(&name("s"));
    let elsewhere = at(&[third]).ttl(Duration::from_secs(300)).build().unwrap();
    elsewhere.register(&instance("s", "a")).await.unwrap();
    shows(&mut watch, &["a"]).await;
    let known = watch.view().snapshot().unwrap().revision();
    assert!(pipe.requests().is_empty(), "the first answers");

    first.signal("STOP");
    let begun = Instant::now();
    eventually("asked the second one", || !pipe.requests().is_empty()).await;
    // A wait of 1 s, a sixteenth of it, and 10 s for the answer.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let asked = pipe.requests()[0].clone();
    assert!(asked.contains(&format!("&index={known}&")), "{asked} does not keep the place {known}");
    elsewhere.register(&instance("s", "b")).await.unwrap();
    shows(&mut watch, &["a", "b"]).await;
    assert!(watch.view().outage().is_none(), "another one answered");

    // Whoever comes anew waits for the first no longer than a question may take.
    let begun = Instant::now();
    let fresh = at(&[first, second]).build().unwrap();
    assert_eq!(fresh.list(&name("s")).await.unwrap().instances().len(), 2);
    let lease = fresh.register(&instance("s", "c")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    shows(&mut watch, &["a", "b", "c"]).await;
    fresh.deregister(&lease).await.unwrap();
    first.signal("CONT");
}

/// C3 (kratos #2813): the instances of both, each with where it is; one that goes away costs its news and nobody's instances.
#[tokio::test(flavor = "multi_thread")]
async fn two_datacenters_are_one_set_and_one_that_goes_away_costs_no_instance() {
    let Some(mut servers) = real::Consul::datacenters(&["dc1", "dc2"]) else { return };
    let [near, far] = servers.as_mut_slice() else { unreachable!() };
    let registry = at(&[near]).datacenters(["dc1", "dc2"]).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    let ttl = Duration::from_secs(300);
    let there = at(&[far]).ttl(ttl).build().unwrap();
    let here = at(&[near]).ttl(ttl).build().unwrap();
    there.register(&instance("s", "far")).await.unwrap();
    here.register(&instance("s", "near")).await.unwrap();
    shows(&mut watch, &["far", "near"]).await;
    let places = |watch: &callsign::registry::Watch| -> Vec<_> {
        let view = watch.view();
        view.snapshot().unwrap().instances().iter().map(|one| one.metadata().get("dc").cloned().unwrap()).collect()
    };
    assert_eq!(places(&watch).iter().map(|dc| &**dc).collect::<Vec<_>>(), ["dc2", "dc1"]);
    assert_eq!(registry.list(&name("s")).await.unwrap().instances().len(), 2);
    // Who asks for none hears of the agent's own.
    shows(&mut here.watch(&name("s")), &["near"]).await;

    far.kill();
    let path = "/v1/health/service/s?dc=dc2";
    eventually("no way to dc2", || near.ask_bytes("GET", path, b"", None).is_some_and(|(status, _)| status == 500))
        .await;
    here.register(&instance("s", "new")).await.unwrap();
    shows(&mut watch, &["far", "near", "new"]).await;
    let error = format!("{:#}", registry.list(&name("s")).await.unwrap_err());
    assert!(error.contains("in dc2"), "{error}");
    // A watch that begins now has what there is to have.
    shows(&mut registry.watch(&name("s")), &["near", "new"]).await;

    far.restart();
    there.register(&instance("s", "later")).await.unwrap();
    far.ask("PUT", "/v1/agent/service/deregister/far", Some(&json!({})));
    shows(&mut watch, &["later", "near", "new"]).await;
}
