//! What watches cost an agent: at rest, and when it comes back and all of them do.

use std::{collections::BTreeMap, time::Duration};

use axum::http::StatusCode;
use callsign::registry::{Consul, Discovery};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{
    fake::{Fake, at},
    follow::eventually,
    name, outage,
    pipe::Pipe,
    real, shows,
};

/// At most two a minute with the usual wait of 55 s: one in each wait, here of 2 s, and nothing beside.
#[tokio::test]
async fn at_rest_a_real_agent_is_asked_once_in_a_wait() {
    let Some(consul) = real::Consul::start() else { return };
    let pipe = Pipe::to(&consul.address()).await;
    let registry = Consul::builder([pipe.address()]).wait(Duration::from_secs(2)).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &[]).await;
    eventually("it waits", || pipe.requests().last().is_some_and(|line| line.contains("wait=2000ms"))).await;
    let before = pipe.requests().len();
    let quiet = timeout(Duration::from_millis(5_000), watch.next()).await;
    assert!(quiet.is_err(), "nothing changed, and it told {quiet:?}");
    let asked = &pipe.requests()[before..];
    // After 2 s and after 4 s, or a sixteenth later.
    assert!((1..=2).contains(&asked.len()), "{asked:#?}");
}

/// Of those who all lost it at the same moment, at most a fifth come back within any 100 ms.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_watches_come_back_spread() {
    let (fake, address, _served) = Fake::start().await;
    let services: Vec<_> = (0..200).map(|n| format!("s{n}")).collect();
    // Each in a program of its own, as it were.
    let open = |service: &String| at(&address).build().unwrap().watch(&name(service));
    let mut watches: Vec<_> = services.iter().map(open).collect();
    join_all(watches.iter_mut().map(|watch| shows(watch, &["a"]))).await;
    fake.set("", |set| set.trouble = Some((StatusCode::SERVICE_UNAVAILABLE, "restarts")));
    join_all(watches.iter_mut().map(|watch| outage(watch, true))).await;
    sleep(Duration::from_secs(2)).await;
    let away = fake.asked();
    fake.set("", |set| (set.trouble, set.index) = (None, 11));
    join_all(watches.iter_mut().map(|watch| outage(watch, false))).await;
    let mut first = BTreeMap::new();
    for (at, service) in fake.services_asked().into_iter().skip(away) {
        first.entry(service).or_insert(at);
    }
    let mut times: Vec<_> = first.into_values().collect();
    assert_eq!(times.len(), 200);
    times.sort();
    let crowded = times.windows(41).map(|some| some[40] - some[0]).min().unwrap();
    assert!(crowded >= Duration::from_millis(100), "41 of 200 within {crowded:?}");
}
