//! What a watch sees, who may ask, and what is left behind.

use super::*;

const TTL: Duration = Duration::from_secs(4);

/// Z3, #2555: a service that is not there yet; and Z5, #1986, W8: data of a node that is there changes.
#[tokio::test]
async fn sees_a_service_begin_and_its_data_change() {
    let Some(real) = shared() else { return };
    let zookeeper = at(&real).root("/begins").session(TTL).build().unwrap();
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &[]).await;
    assert!(watch.view().is_not_found());
    let client = by_hand(&real).await;
    put(&client, "/begins/s/a", &instance("a").to_json()).await;
    until(&mut watch, &["a"]).await;
    let other = instance("a").to_builder().version("v2").build().unwrap();
    client.set_data("/begins/s/a", other.to_json().as_bytes(), None).await.unwrap();
    let version = |watch: &Watch| watch.view().snapshot().unwrap().instances()[0].version().to_owned();
    eventually("the data is new", || version(&watch) == "v2").await;
    // From one to none, and on.
    client.delete("/begins/s/a", None).await.unwrap();
    until(&mut watch, &[]).await;
    client.delete("/begins/s", None).await.unwrap();
    eventually("the service is gone", || watch.view().is_not_found()).await;
    put(&client, "/begins/s/b", &instance("b").to_json()).await;
    until(&mut watch, &["b"]).await;
}

/// A bad neighbour is skipped and told once; a service whose name goes on is another one.
#[tokio::test]
async fn a_bad_neighbour_and_a_longer_name_do_no_harm() {
    let Some(real) = shared() else { return };
    let log = Arc::new(Log::default());
    let zookeeper = at(&real).root("/bad").session(TTL).observer(log.clone()).build().unwrap();
    let client = by_hand(&real).await;
    put(&client, "/bad/s/x", "no JSON").await;
    put(&client, "/bad/s2/b", &instance_of("s2", "b").to_json()).await;
    put(&client, "/bad/s/a", &instance("a").to_json()).await;
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a"]).await;
    assert_eq!(watch.view().snapshot().unwrap().skipped(), 1);
    put(&client, "/bad/s/c", &instance("c").to_json()).await;
    put(&client, "/bad/s2/d", &instance_of("s2", "d").to_json()).await;
    put(&client, "/bad/s/c/deeper", "x").await;
    until(&mut watch, &["a", "c"]).await;
    assert_eq!(log.count("RecordSkipped /bad/s/x"), 1, "{log:?}");
    assert_eq!(log.count("RecordSkipped"), 1, "{log:?}");
}

/// Z2, #2245: a node that another session left is replaced, not leant on.
#[tokio::test]
async fn the_same_id_is_taken_over_and_the_first_owner_cannot_harm_it() {
    let Some(real) = shared() else { return };
    let open = || at(&real).root("/takeover").session(TTL).build().unwrap();
    let (first, second, one) = (open(), open(), Arc::new(instance("a")));
    let old = first.register(&one).await.unwrap();
    let new = second.register(&one).await.unwrap();
    assert_ne!(old.token(), new.token());
    assert_eq!(first.renew(&old).await.unwrap(), Renewal::Lost);
    first.deregister(&old).await.unwrap();
    drop(first);
    assert_eq!(second.renew(&new).await.unwrap(), Renewal::Kept);
    let again = second.register(&one).await.unwrap();
    assert_eq!(second.renew(&new).await.unwrap(), Renewal::Lost);
    second.deregister(&new).await.unwrap();
    assert_eq!(second.renew(&again).await.unwrap(), Renewal::Kept);
    // A persistent one is in the way, too.
    second.deregister(&again).await.unwrap();
    put(&by_hand(&real).await, "/takeover/s/a", "x").await;
    let lease = second.register(&one).await.unwrap();
    assert_eq!(second.list(&service()).await.unwrap().instances().len(), 1);
    second.deregister(&lease).await.unwrap();
    assert_eq!(second.renew(&lease).await.unwrap(), Renewal::Lost, "it is final");
}

#[tokio::test]
async fn a_node_deleted_by_hand_is_put_back_and_a_lease_nobody_renews_ends() {
    let Some(real) = shared() else { return };
    let log = Arc::new(Log::default());
    let zookeeper = at(&real).root("/by-hand").session(TTL).build().unwrap();
    let registration = registered(zookeeper.clone(), instance("a"), &log).await;
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a"]).await;
    by_hand(&real).await.delete("/by-hand/s/a", None).await.unwrap();
    eventually("it is found lost", || log.count("LeaseLost") == 1).await;
    until(&mut watch, &["a"]).await;
    zookeeper.register(&Arc::new(instance("b"))).await.unwrap();
    until(&mut watch, &["a", "b"]).await;
    let begun = Instant::now();
    until(&mut watch, &["a"]).await;
    assert!(begun.elapsed() < TTL * 2, "{:?}", begun.elapsed());
    registration.shutdown().await;
}

/// Digest takes any password: who is wrong finds out at the node's ACL.
#[tokio::test]
async fn who_may_not_is_told_so() {
    let Some(real) = shared() else { return };
    let open = |user: &str, password: &str| at(&real).root("/users").session(TTL).user(user, password).build().unwrap();
    let one = Arc::new(instance("a"));
    let owner = open("app", "right");
    let lease = owner.register(&one).await.unwrap();
    let nobody = by_hand(&real).await.get_data("/users/s/a").await;
    assert_eq!(nobody.unwrap_err(), zookeeper_client::Error::NoAuth);
    for stranger in [open("app", "wrong"), at(&real).root("/users").session(TTL).build().unwrap()] {
        let error = stranger.register(&Arc::new(instance("b"))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::PermissionDenied, "{error:#}");
        assert!(format!("{error:#}").contains("ACL") && !format!("{error:?}").contains("wrong"), "{error:#}");
        let mut watch = stranger.watch(&service());
        until_outage(&mut watch, true).await;
        assert_eq!(watch.view().outage().unwrap().error().kind(), Kind::PermissionDenied);
    }
    let mut watch = owner.watch(&service());
    until(&mut watch, &["a"]).await;
    owner.deregister(&lease).await.unwrap();
    until(&mut watch, &[]).await;
}

/// W9: refused before anything is sent.
#[tokio::test]
async fn a_name_that_no_path_holds_is_refused() {
    let zookeeper = ZooKeeper::builder(["127.0.0.1:1"]).build().unwrap();
    let error = zookeeper.register(&Arc::new(instance("a/b"))).await.unwrap_err();
    assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("slash"), "{error}");
}

/// At rest nothing but pings; and nothing is left after a drop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_quiet_at_rest_reads_what_changed_alone_and_leaves_nothing() {
    let Some(real) = real::ZooKeeper::start(1) else { return };
    let zookeeper = at(&real).session(Duration::from_secs(30)).build().unwrap();
    let client = by_hand(&real).await;
    for n in 0..50 {
        put(&client, &format!("/microservices/s/i{n:02}"), &instance(&format!("i{n:02}")).to_json()).await;
    }
    drop(client);
    eventually("one is closed", || real.metric("zk_num_alive_connections") <= 1.0).await;
    let mut watch = zookeeper.watch(&service());
    let all: Vec<_> = (0..50).map(|n| format!("i{n:02}")).collect();
    let mut ids: Vec<_> = all.iter().map(String::as_str).collect();
    until(&mut watch, &ids).await;
    let lease = zookeeper.register(&Arc::new(instance("j"))).await.unwrap();
    ids.push("j");
    until(&mut watch, &ids).await;

    let reads = |real: &real::ZooKeeper| real.metric("zk_cnt_readlatency");
    let (reading, pings) = (reads(&real), real.metric("zk_packets_received"));
    sleep(Duration::from_secs(5)).await;
    // ZooKeeper counts pings as reads: two sessions, a ping each 1.1 s.
    assert!(reads(&real) - reading <= 16.0, "nothing is read at rest");
    // And our own questions.
    let pings = real.metric("zk_packets_received") - pings;
    assert!(pings <= 20.0, "{pings}");
    let reading = reads(&real);
    let other = by_hand(&real).await;
    other.set_data("/microservices/s/i07", instance("z").to_json().as_bytes(), None).await.unwrap();
    *ids.iter_mut().find(|id| **id == "i07").unwrap() = "z";
    ids.sort_unstable();
    until(&mut watch, &ids).await;
    let read = reads(&real) - reading;
    assert!(read <= 20.0, "one change is one read, not fifty: {read}");

    drop(other);
    zookeeper.deregister(&lease).await.unwrap();
    drop((watch, zookeeper));
    eventually("all are closed", || real.metric("zk_num_alive_connections") <= 1.0).await;
}
