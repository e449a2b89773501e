//! What every registry's real server must stand, beside the conformance suite.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "each test uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use callsign::{Channel, Registration, Registry, registry::Lease};
use futures_util::future::{join, join_all};
use tokio::{task::yield_now, time::sleep};

use super::{
    follow::{BOUND, Log, eventually, instance_of, registered, seen, until, until_outage},
    link::Link,
    process,
};

/// The owner's process is killed: its instance stays no longer than its lease, and no shorter than
/// the rest of that.
pub async fn the_owner_is_killed(uri: &str, ttl: Duration) {
    let mut watch = callsign::registry(uri).unwrap().discovery().watch(&"killed".parse().unwrap());
    let mut owner = process::Server::start_as("killed", uri, "a", &[]);
    until(&mut watch, &["a"]).await;
    owner.kill();
    let killed = Instant::now();
    until(&mut watch, &[]).await;
    // Its last renewal was up to a third of the TTL before.
    assert!(killed.elapsed() > ttl / 2, "{:?}: it was not the lease that ended", killed.elapsed());
    assert!(killed.elapsed() < ttl * 2 + Duration::from_secs(5), "{:?}", killed.elapsed());
}

/// Deregistering while a renewal is under way, a thousand times and at all moments of it: nothing
/// comes back.
pub async fn no_renewal_brings_one_back(registry: &Registry) {
    let registrar = registry.registrar().unwrap();
    let one = |n: usize| {
        let service = format!("raced-{n}");
        async move {
            let instance = Arc::new(instance_of(&service, &service));
            for round in 0..100 {
                let lease = registrar.register(&instance).await.unwrap();
                let later = async {
                    for _ in 0..round % 10 {
                        yield_now().await;
                    }
                    registrar.deregister(&lease).await.unwrap();
                };
                let (renewed, ()) = join(registrar.renew(&lease), later).await;
                renewed.unwrap();
                let left = registry.discovery().list(instance.service()).await.unwrap();
                assert!(left.instances().is_empty(), "{service}, round {round}: {left:?}");
            }
        }
    };
    join_all((0..10).map(one)).await;
}

/// Numbers that are the same each time.
struct Draws(u64);

impl Draws {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// A thousand instances come, change and go, by ten writers: those that stay are never missed, and
/// what a watch shows in the end is the truth, versions included. TTLs must be long; so many changes a writer.
pub async fn a_thousand_churn(open: impl Fn() -> Registry, changes: usize) {
    let service = "churning";
    let mut watch = open().discovery().watch(&service.parse().unwrap());
    let with = |id: &str, version: usize| {
        Arc::new(instance_of(service, id).to_builder().version(version.to_string()).build().unwrap())
    };
    let registry = open();
    let steady: Vec<_> = (0..10).map(|n| format!("a{n}")).collect();
    for id in &steady {
        registry.registrar().unwrap().register(&with(id, 0)).await.unwrap();
    }
    until(&mut watch, &steady.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let over = AtomicBool::new(false);
    let writer = |n: usize| {
        let registry = registry.clone();
        async move {
            let (registrar, mut draws) = (registry.registrar().unwrap(), Draws(n as u64));
            let mut held: BTreeMap<String, (usize, Lease)> = BTreeMap::new();
            let ids: Vec<_> = (0..100).map(|m| format!("w{n}-{m:02}")).collect();
            for id in &ids {
                held.insert(id.clone(), (0, registrar.register(&with(id, 0)).await.unwrap()));
            }
            for version in 1..=changes {
                let id = &ids[draws.below(ids.len())];
                match held.remove(id) {
                    Some((_, lease)) if draws.below(2) == 0 => registrar.deregister(&lease).await.unwrap(),
                    _ => {
                        let lease = registrar.register(&with(id, version)).await.unwrap();
                        held.insert(id.clone(), (version, lease));
                    }
                }
            }
            held.into_iter().map(|(id, (version, _))| (id, version.to_string())).collect::<Vec<_>>()
        }
    };
    let writers = async {
        let truth: BTreeMap<_, _> = join_all((0..10).map(writer)).await.into_iter().flatten().collect();
        over.store(true, Ordering::SeqCst);
        truth
    };
    let follower = async {
        let mut most = 0;
        while !over.load(Ordering::SeqCst) {
            if let Ok(Some(view)) = tokio::time::timeout(Duration::from_millis(50), watch.next()).await {
                let set: BTreeSet<_> =
                    view.snapshot().unwrap().instances().iter().map(|one| one.id().as_str()).collect();
                most = most.max(set.len());
                assert!(steady.iter().all(|id| set.contains(id.as_str())), "one that stayed was missed");
            }
        }
        (watch, most)
    };
    let (mut truth, (mut watch, most)) = join(writers, follower).await;
    truth.extend(steady.iter().map(|id| (id.clone(), "0".to_owned())));
    let shown = |watch: &callsign::registry::Watch| {
        let view = watch.view();
        let set = view.snapshot().into_iter().flat_map(|set| set.instances());
        set.map(|one| (one.id().to_string(), one.version().to_owned())).collect::<BTreeMap<_, _>>()
    };
    let begun = Instant::now();
    while shown(&watch) != truth {
        assert!(begun.elapsed() < BOUND, "{} are shown, {} are true", shown(&watch).len(), truth.len());
        let _ = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
    }
    assert!(most > 500, "only {most} were seen at once");
}

/// Two registrations of one process, of two services: one's end is not the other's.
pub async fn two_services_of_a_process(registry: &Registry) {
    let log = Arc::new(Log::default());
    let mut watches = ["first", "second"].map(|name| registry.discovery().watch(&name.parse().unwrap()));
    let [first, second]: [Registration; 2] = [
        registered(registry.clone(), instance_of("first", "p-1"), &log).await,
        registered(registry.clone(), instance_of("second", "p-2"), &log).await,
    ];
    until(&mut watches[0], &["p-1"]).await;
    until(&mut watches[1], &["p-2"]).await;
    first.shutdown().await;
    until(&mut watches[0], &[]).await;
    assert_eq!(seen(&watches[1]), ["p-2"]);
    second.shutdown().await;
    until(&mut watches[1], &[]).await;
}

/// 500 channels on one service use the connections of one, and few bytes; a change costs them those
/// of one watch. The URI is of an authority and a path; the server is at the one, the link leads there.
pub async fn channels_share_a_watch(link: &Link, authority: &str, uri: impl Fn(&str, &str) -> String) {
    let mut server = process::Server::start_as("shared", &uri(authority, ""), "a", &[]);
    let near = link.endpoint();
    let target = uri(&near, "/shared");
    let first = Channel::connect(&target).await.unwrap();
    let (connections, before) = (link.open(), link.moved());
    assert!(connections > 0, "it goes over the link");
    let more = join_all((0..499).map(|_| Channel::connect(&target))).await;
    let more: Vec<_> = more.into_iter().map(Result::unwrap).collect();
    assert_eq!(link.open(), connections, "connections to the registry");
    let each = (link.moved() - before) / more.len();
    assert!(each < 20, "{each} bytes for each further channel");
    let mut watch = callsign::registry(&uri(&near, "")).unwrap().discovery().watch(&"shared".parse().unwrap());
    server.stop();
    until(&mut watch, &[]).await;
    assert!(link.moved() - before < 64 << 10, "{} bytes for one change", link.moved() - before);
    drop((first, more));
}

const CROWD: usize = 150;

/// Many clients of a registry that was away for some seconds: no more than a fifth of them connect
/// again within any 100 ms.
pub async fn a_crowd_comes_back_spread(link: &Link, open: impl Fn() -> Registry) {
    let service = "crowd".parse().unwrap();
    let registries: Vec<_> = (0..CROWD).map(|_| open()).collect();
    let mut watches: Vec<_> = registries.iter().map(|registry| registry.discovery().watch(&service)).collect();
    for watch in &mut watches {
        until(watch, &[]).await;
    }
    link.cut();
    for watch in &watches {
        eventually("the outage is seen", || watch.view().outage().is_some()).await;
    }
    sleep(Duration::from_secs(2)).await;
    let healed = Instant::now();
    link.heal();
    for watch in &mut watches {
        until_outage(watch, false).await;
    }
    let came: Vec<_> = link.came().into_iter().filter_map(|at| at.checked_duration_since(healed)).collect();
    // Who was accepted just before may have got through after.
    assert!(came.len() >= CROWD * 9 / 10, "{} came", came.len());
    let crowded = came.windows(CROWD / 5 + 1).find(|some| some[CROWD / 5] - some[0] < Duration::from_millis(100));
    assert!(crowded.is_none(), "{:?} after it was back", crowded.map(|some| some[0]));
}
