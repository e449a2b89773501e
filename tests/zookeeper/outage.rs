//! A member that stops, is killed, or comes back without its data.

use super::*;

/// Z1, #2235, W1, #3883: a server whose session had expired never came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_longer_than_the_session_removes_nobody_and_is_recovered_from() {
    let Some(real) = real::ZooKeeper::start(1) else { return };
    let log = Arc::new(Log::default());
    let session = Duration::from_secs(2);
    let zookeeper = at(&real).session(session).build().unwrap();
    let registration = registered(zookeeper.clone(), instance("a"), &log).await;
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a"]).await;

    real.signal(0, "STOP");
    let stopped = Instant::now();
    until_outage(&mut watch, true).await;
    while stopped.elapsed() < session * 3 {
        assert_eq!(seen(&watch), ["a"], "an outage removes nothing");
        sleep(Duration::from_millis(100)).await;
    }
    let registrations = log.count("Registered");
    real.signal(0, "CONT");
    eventually("it is registered anew", || log.count("Registered") > registrations).await;
    until_outage(&mut watch, false).await;
    until(&mut watch, &["a"]).await;
    // Once, and not twice: what the stop took out is over.
    sleep(session).await;
    until(&mut watch, &["a"]).await;
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_the_data_and_one_without_are_recovered_from() {
    let Some(mut real) = real::ZooKeeper::start(1) else { return };
    let log = Arc::new(Log::default());
    let zookeeper = at(&real).session(Duration::from_secs(20)).build().unwrap();
    let registration = registered(zookeeper.clone(), instance("a"), &log).await;
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a"]).await;

    real.kill(0);
    until_outage(&mut watch, true).await;
    assert_eq!(seen(&watch), ["a"]);
    real.restart(0);
    until_outage(&mut watch, false).await;
    until(&mut watch, &["a"]).await;
    assert_eq!(log.count("LeaseLost"), 0, "the session lives: {log:?}");
    let lease = zookeeper.register(&Arc::new(instance("b"))).await.unwrap();
    until(&mut watch, &["a", "b"]).await;
    drop(lease);

    real.kill(0);
    until_outage(&mut watch, true).await;
    assert_eq!(seen(&watch), ["a", "b"]);
    real.restart_empty();
    until_outage(&mut watch, false).await;
    until(&mut watch, &["a"]).await;
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

/// Z4, #3517, Z7, ZOOKEEPER-4698: one member stops; what was deleted meanwhile is seen at another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_goes_on_where_one_stops() {
    let Some(real) = real::ZooKeeper::start(3) else { return };
    let log = Arc::new(Log::default());
    let zookeeper = at(&real).session(Duration::from_secs(10)).build().unwrap();
    let registration = registered(zookeeper.clone(), instance("a"), &log).await;
    let client = by_hand(&real).await;
    put(&client, "/microservices/s/b", &instance("b").to_json()).await;
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a", "b"]).await;
    for n in 0..2 {
        real.signal(n, "STOP");
        let (mut ids, gone) = (vec!["a"], if n == 0 { "b" } else { "c" });
        let path = format!("/microservices/s/{gone}");
        timeout(BOUND, async {
            while client.delete(&path, None).await.is_err() && !matches!(client.check_stat(&path).await, Ok(None)) {
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        until(&mut watch, &ids).await;
        real.signal(n, "CONT");
        let next = Arc::new(instance("c"));
        if n == 0 {
            timeout(BOUND, async { while zookeeper.register(&next).await.is_err() {} }).await.unwrap();
            ids.push("c");
            until(&mut watch, &ids).await;
        }
    }
    until_outage(&mut watch, false).await;
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

/// C9's kin: a shutdown hung while the registry was down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deregistering_in_an_outage_is_bounded_and_the_session_ends_the_node() {
    let Some(real) = real::ZooKeeper::start(1) else { return };
    let log = Arc::new(Log::default());
    let zookeeper = at(&real).session(Duration::from_secs(3)).build().unwrap();
    let registration = registered(zookeeper.clone(), instance("a"), &log).await;
    real.signal(0, "STOP");
    let begun = Instant::now();
    registration.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    real.signal(0, "CONT");
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &[]).await;
    sleep(Duration::from_secs(1)).await;
    until(&mut watch, &[]).await;
}

/// R1, W5: a registry that is away at the start is waited for, by servers and clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_before_zookeeper_is_no_failure() {
    let Some(mut real) = real::ZooKeeper::start(1) else { return };
    real.kill(0);
    let log = Arc::new(Log::default());
    let zookeeper = at(&real).session(Duration::from_secs(5)).build().unwrap();
    let mut watch = zookeeper.watch(&service());
    until_outage(&mut watch, true).await;
    let registration = Registration::with_observer(&zookeeper.clone().into(), instance("a"), log.clone()).unwrap();
    registration.start();
    eventually("a try fails", || log.count("RegisterFailed") > 0).await;
    assert!(zookeeper.list(&service()).await.unwrap_err().is_retryable());
    real.restart(0);
    until(&mut watch, &["a"]).await;
    assert!(matches!(registration.state(), RegistrationState::Registered));
    registration.shutdown().await;
}
