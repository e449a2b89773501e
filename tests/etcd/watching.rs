//! Watches that are cut off, fall behind, or are not there any more.

use super::{link::Link, *};

/// E6: what a cut watcher missed is made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_watcher_keeps_what_it_knows_and_catches_up() {
    let Some(real) = shared() else { return };
    let link = Link::to(real.port(0)).await;
    let etcd = at(&real).namespace("/cut").ttl(BOUND * 2).build().unwrap();
    let cut_off = Etcd::builder([link.endpoint()]).namespace("/cut").build().unwrap();
    let mut watch = cut_off.watch(&service());
    let one = etcd.register(&Arc::new(instance("a"))).await.unwrap();
    etcd.register(&Arc::new(instance("b"))).await.unwrap();
    until(&mut watch, &["a", "b"]).await;
    link.cut();
    until_outage(&mut watch, true).await;
    etcd.deregister(&one).await.unwrap();
    etcd.register(&Arc::new(instance("c"))).await.unwrap();
    assert_eq!(seen(&watch), ["a", "b"]);
    link.heal();
    until(&mut watch, &["b", "c"]).await;
    assert!(watch.view().outage().is_none());
}

/// E5, Kratos #2603: a watch whose place was compacted away ended, or failed for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_history_is_compacted_the_keys_are_listed_anew() {
    let Some(real) = real::Etcd::start(1) else { return };
    let etcd = at(&real).ttl(BOUND * 2).build().unwrap();
    let (its, other, mut watch) = one_of_two(&real, &etcd).await;
    its.freeze();
    let lease = etcd.register(&Arc::new(instance("b"))).await.unwrap();
    etcd.register(&Arc::new(instance("c"))).await.unwrap();
    etcd.deregister(&lease).await.unwrap();
    real.compact();
    let lists = || real.metric("grpc_server_started_total", "grpc_method=\"Range\"");
    let before = lists();
    assert_eq!(seen(&watch), ["a"]);
    its.cut();
    until(&mut watch, &["a", "c"]).await;
    assert!((lists() - before - 1.0).abs() < 0.5 && watch.view().outage().is_none());
    etcd.register(&Arc::new(instance("d"))).await.unwrap();
    until(&mut watch, &["a", "c", "d"]).await;
    assert!(other.open() == 1 && its.open() == 0);
}

/// A watch that shows `a` by two ways to one member: the one that it is on, and the other.
async fn one_of_two(real: &real::Etcd, etcd: &Etcd) -> (Link, Link, Watch) {
    let (one, two) = (Link::to(real.port(0)).await, Link::to(real.port(0)).await);
    let watcher = Etcd::builder([one.endpoint(), two.endpoint()]).build().unwrap();
    let mut watch = watcher.watch(&service());
    until(&mut watch, &[]).await;
    eventually("both are connected", || one.open() == 1 && two.open() == 1).await;
    // News shows on which of both it is, once it is: that of `a` has some 165 bytes, a PING and its answer have 34.
    loop {
        let before = (one.moved(), two.moved());
        let lease = etcd.register(&Arc::new(instance("a"))).await.unwrap();
        until(&mut watch, &["a"]).await;
        match (one.moved() - before.0 > 100, two.moved() - before.1 > 100) {
            (true, false) => return (one, two, watch),
            (false, true) => return (two, one, watch),
            _ => etcd.deregister(&lease).await.unwrap(),
        }
        until(&mut watch, &[]).await;
    }
}

/// E4, etcd #12534, cilium #23590: a watch on a connection that went silent stayed stale for ever. It goes on at
/// another member where it was, with what came meanwhile in fragments, and lists nothing anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_went_silent_is_found_and_goes_on_elsewhere() {
    let Some(real) = real::Etcd::start(1) else { return };
    let etcd = at(&real).ttl(BOUND * 2).build().unwrap();
    let (its, other, watch) = one_of_two(&real, &etcd).await;
    its.freeze();
    let (frozen, free) = (its.moved(), other.moved());
    for n in 0..100 {
        etcd.register(&large(n)).await.unwrap();
    }
    let lists = || real.metric("grpc_server_started_total", "grpc_method=\"Range\"");
    let before = lists();
    assert_eq!(seen(&watch), ["a"]);
    eventually("all are followed", || seen(&watch).len() == 101).await;
    assert!(watch.view().outage().is_none() && its.moved() == frozen && other.moved() > free + (2 << 20));
    assert!(lists() - before < 0.5, "it was not listed anew");
}

/// An instance of some 24 KB.
fn large(n: usize) -> Arc<ServiceInstance> {
    let one = instance(&format!("i{n:04}")).to_builder().metadata("fill", "<".repeat(4000));
    Arc::new(one.build().unwrap())
}

/// Many events are few updates, large sets come in pages, and pages of large values are made smaller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_service_is_read_in_pages_and_followed() {
    let Some(real) = real::Etcd::start(1) else { return };
    let etcd = at(&real).ttl(BOUND * 2).build().unwrap();
    let mut watch = etcd.watch(&service());
    until(&mut watch, &[]).await;
    for chunk in 0..30 {
        let some: Vec<_> = (0..20).map(|n| large(chunk * 20 + n)).collect();
        for lease in futures_util::future::join_all(some.iter().map(|one| etcd.register(one))).await {
            lease.unwrap();
        }
    }
    eventually("all 600 are followed", || seen(&watch).len() == 600).await;
    assert_eq!(etcd.list(&service()).await.unwrap().instances().len(), 600, "more than a page");
    let late = etcd.watch(&service());
    eventually("all 600 are listed", || seen(&late).len() == 600).await;
    let huge = "x".repeat(1_000_000);
    for n in 0..40 {
        real.put(&format!("/microservices/s/h{n}"), &huge);
    }
    let set = etcd.list(&service()).await.unwrap();
    assert_eq!((set.instances().len(), set.skipped()), (600, 40), "40 MB are more than one answer may have");
    etcd.register(&Arc::new(instance("j"))).await.unwrap();
    for watch in [&watch, &late] {
        eventually("the next is followed", || seen(watch).len() == 601).await;
    }
}

/// E9: a watcher that was dropped went on; R3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_after_the_last_handle() {
    let Some(real) = shared() else { return };
    let link = Link::to(real.port(0)).await;
    let etcd = Etcd::builder([link.endpoint()]).namespace("/left").build().unwrap();
    let (log, handle) = (Arc::new(Log::default()), tokio::runtime::Handle::current());
    let registration = registered(etcd.clone(), instance("a"), &log).await;
    let mut watches: Vec<_> = (0..10).map(|_| etcd.watch(&service())).collect();
    for watch in &mut watches {
        until(watch, &["a"]).await;
    }
    assert!(link.open() >= 1);
    registration.shutdown().await;
    drop((registration, watches));
    assert_eq!(link.open(), 1, "the handle keeps its connection");
    drop(etcd);
    eventually("no connection is left", || link.open() == 0).await;
    // The link's own listener, and nothing of ours.
    eventually("no task is left", || handle.metrics().num_alive_tasks() <= 1).await;
}
