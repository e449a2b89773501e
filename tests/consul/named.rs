//! What went wrong elsewhere, each by its number in the upstream's list of issues. Others stand with what they
//! belong to: look for `C` and a number.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use callsign::{
    Registration,
    registry::{Consul, Discovery, Registrar, Registry, Renewal},
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    BOUND,
    agent::Agent,
    fake::{Fake, at},
    follow::eventually,
    instance, name, outage,
    pipe::Pipe,
    real, shows,
};

fn registration(registry: &Registry, id: &str) -> Registration {
    let registration = Registration::new(registry, Arc::unwrap_or_clone(instance("s", id))).unwrap();
    registration.start();
    registration
}

/// C3 (kratos #2813): a datacenter that is away is not its agent's fault, and nobody leaves the agent for it.
#[tokio::test]
async fn a_datacenter_that_is_away_drives_nobody_from_the_agent() {
    let ((fake, first, _served), (other, second, _second)) = (Fake::start().await, Fake::start().await);
    let trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, "No path to datacenter"));
    fake.set("dc2", |set| set.trouble = trouble);
    let registry = Consul::builder([first, second]).datacenters(["dc1", "dc2"]).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    let before = fake.asked();
    eventually("tried again", || fake.asked() >= before + 3).await;
    fake.set("dc1", |set| (set.index, set.ids) = (11, vec!["a", "b"]));
    shows(&mut watch, &["a", "b"]).await;
    assert_eq!(other.asked(), 0, "the second agent was asked");
    // An agent whose cluster has no leader is left.
    fake.set("dc1", |set| set.trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader")));
    eventually("asked the other one", || other.asked() > 0).await;
}

/// C4 (kratos #2911): a first question that fails is no end, for whoever asked then and for who comes later.
#[tokio::test]
async fn a_watch_whose_first_question_fails_gets_its_data_and_so_does_a_later_one() {
    let (fake, address, _served) = Fake::start().await;
    fake.set("", |set| set.trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, "not yet")));
    let registry = Registry::from(at(&address).build().unwrap()).resilient();
    let mut first = registry.discovery().watch(&name("s"));
    outage(&mut first, true).await;
    let mut second = registry.discovery().watch(&name("s"));
    fake.set("", |set| set.trouble = None);
    shows(&mut first, &["a"]).await;
    shows(&mut second, &["a"]).await;
    shows(&mut registry.discovery().watch(&name("s")), &["a"]).await;
}

/// C5 (kratos #3185, #3162, #3402): who comes as the last one goes is not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_come_as_others_go_all_hear_what_is_new() {
    let (fake, address, _served) = Fake::start().await;
    let registry = Registry::from(at(&address).build().unwrap()).resilient();
    let coming = |registry: Registry| async move {
        for _ in 0..200 {
            drop(registry.discovery().watch(&name("s")));
            tokio::task::yield_now().await;
        }
        registry.discovery().watch(&name("s"))
    };
    let all: Vec<_> = (0..8).map(|_| tokio::spawn(coming(registry.clone()))).collect();
    let mut watches = Vec::new();
    for one in all {
        watches.push(one.await.unwrap());
    }
    fake.set("", |set| (set.index, set.ids) = (11, vec!["b"]));
    for watch in &mut watches {
        shows(watch, &["b"]).await;
    }
    // One loop for all of them.
    assert!(fake.asked() < 20, "{} requests", fake.asked());
}

/// C6 (kratos #3511): one that is taken out, and hangs at that, keeps no other from being renewed.
#[tokio::test]
async fn the_renewals_of_one_go_on_while_another_hangs_in_deregistering() {
    let (agent, address) = Agent::start().await;
    let registry: Registry = at(&address).ttl(Duration::from_secs(1)).build().unwrap().into();
    let (stays, goes) = (registration(&registry, "stays"), registration(&registry, "goes"));
    stays.registered().await.unwrap();
    goes.registered().await.unwrap();
    agent.held().hangs = Some("goes");
    let going = tokio::spawn(async move { goes.shutdown().await });
    eventually("deregistering", || agent.count("deregister goes") > 0).await;
    let before = agent.count("pass stays");
    eventually("three renewals", || agent.count("pass stays") >= before + 3).await;
    assert!(!going.is_finished(), "it hangs still");
    assert_eq!(agent.count("register stays"), 1, "never late, so never again");
    going.abort();
}

/// C7 (kratos #1537, #1777, #1781, #2606): a check that the agent forgot is registered again, and passes at once,
/// whichever way the agent says so.
#[tokio::test]
async fn a_check_that_the_agent_forgot_is_registered_again_and_passes_at_once() {
    for old in [false, true] {
        let (agent, address) = Agent::start().await;
        let registry = at(&address).ttl(Duration::from_secs(1)).build().unwrap();
        let lease = registry.register(&Arc::clone(&instance("s", "x"))).await.unwrap();
        agent.held().old = old;
        agent.held().forgot = true;
        assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Lost, "old: {old}");
        agent.held().forgot = false;
        let registration = registration(&registry.into(), "a");
        registration.registered().await.unwrap();
        agent.held().forgot = true;
        eventually("again", || agent.count("register a passing") == 2).await;
        // C8 (kratos #2647, #3147): and what is out stays out.
        registration.shutdown().await;
        let renewals = agent.count("pass a");
        let lost = lease_of(&agent);
        assert!(lost.is_none(), "{lost:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((agent.count("pass a"), agent.count("register a")), (renewals, 2));
    }
}

fn lease_of(agent: &Agent) -> Option<String> {
    agent.held().services.get("a").map(|(_, notes)| notes.clone())
}

/// C10 (spring-cloud-consul #473): who registered with one agent renews and deregisters there, whichever agent
/// questions have moved to.
#[tokio::test]
async fn a_registration_stays_with_its_agent_when_questions_move_to_another() {
    let ((one, first), (two, second)) = (Agent::start().await, Agent::start().await);
    let registry = Consul::builder([first, second]).wait(Duration::from_secs(1)).build().unwrap();
    let lease = registry.register(&instance("s", "a")).await.unwrap();
    one.held().broken = true;
    let _watch = registry.watch(&name("s"));
    eventually("asked the other one", || two.count("health s") > 0).await;
    assert_eq!(registry.renew(&lease).await.unwrap(), Renewal::Kept);
    registry.deregister(&lease).await.unwrap();
    assert_eq!((one.count("pass a"), one.count("deregister a")), (1, 1));
    assert_eq!((two.count("pass"), two.count("deregister")), (0, 0));
}

/// C13 (consul #7939, its documentation's #5358): a restored snapshot has a lower index and other services. The agent
/// holds the question back all the same, so this is heard at the end of its wait.
#[tokio::test]
async fn what_a_restored_snapshot_holds_is_told() {
    let Some(consul) = real::Consul::start() else { return };
    let entry = |id: &str| {
        json!({"Node": "elsewhere", "Address": "10.0.0.9", "SkipNodeUpdate": true,
            "Service": {"ID": id, "Service": "s", "Address": "10.0.0.9", "Port": 1}})
    };
    consul.ask("PUT", "/v1/catalog/register", Some(&entry("before")));
    let (status, snapshot) = consul.ask_bytes("GET", "/v1/snapshot", b"", None).unwrap();
    assert_eq!(status, 200);
    for n in 0..50 {
        consul.ask("PUT", &format!("/v1/kv/{n}"), Some(&json!(n)));
    }
    consul.ask("PUT", "/v1/catalog/register", Some(&entry("after")));
    let registry = Consul::builder([consul.address()]).wait(Duration::from_secs(2)).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["after", "before"]).await;
    let (status, said) = consul.ask_bytes("PUT", "/v1/snapshot", &snapshot, None).unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
    shows(&mut watch, &["before"]).await;
    consul.ask("PUT", "/v1/catalog/register", Some(&entry("again")));
    shows(&mut watch, &["again", "before"]).await;
}

/// C15 (consul #7527, #8628, #7259): an agent takes so many connections of one address and closes all further ones.
#[tokio::test]
async fn a_hundred_watches_of_a_service_are_one_question_to_an_agent_that_takes_few_connections() {
    let Some(consul) = real::Consul::with(json!({"limits": {"http_max_conns_per_client": 5}})) else { return };
    let pipe = Pipe::to(&consul.address()).await;
    let registry: Registry = Consul::builder([pipe.address()]).build().unwrap().into();
    let registry = registry.resilient();
    let mut watches: Vec<_> = (0..100).map(|_| registry.discovery().watch(&name("s"))).collect();
    let registration = registration(&registry, "a");
    for watch in &mut watches {
        shows(watch, &["a"]).await;
    }
    registration.shutdown().await;
    for watch in &mut watches {
        shows(watch, &[]).await;
        assert!(watch.view().outage().is_none());
    }
    let asked = pipe.requests().iter().filter(|line| line.contains("/v1/health/")).count();
    assert!(asked < 10, "{asked} questions");

    // Of more services than it takes connections, those that it turns away keep what they have, and are not all it hears.
    let mut many: Vec<_> = (0..12).map(|n| registry.discovery().watch(&name(&format!("s{n}")))).collect();
    let begun = Instant::now();
    let before = pipe.requests().len();
    let all = async {
        for watch in &mut many {
            while watch.view().outage().is_none() && watch.view().snapshot().is_none() {
                watch.next().await.unwrap();
            }
        }
    };
    timeout(BOUND, all).await.expect("each is told something");
    let asked = pipe.requests().len() - before;
    assert!(asked as f64 <= 48.0 + begun.elapsed().as_secs_f64() * 60.0, "{asked} in {:?}", begun.elapsed());
}

/// C16: the order in which an answer lists the same instances is no change.
#[tokio::test]
async fn another_order_is_no_news() {
    let (fake, address, _served) = Fake::start().await;
    fake.set("", |set| set.ids = vec!["a", "b", "c"]);
    let mut watch = at(&address).build().unwrap().watch(&name("s"));
    shows(&mut watch, &["a", "b", "c"]).await;
    let before = fake.asked();
    fake.set("", |set| (set.index, set.ids) = (11, vec!["c", "a", "b"]));
    eventually("asked twice more", || fake.asked() >= before + 2).await;
    let news = timeout(Duration::from_millis(200), watch.next()).await;
    assert!(news.is_err(), "{news:?}");
}
