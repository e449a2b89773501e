//! A member that stops, is killed, or comes back without its data.

use super::*;

const TTL: Duration = Duration::from_secs(3);

/// E1 and W1 of the list, Kratos #3883, #3464: after 25 s of SIGSTOP with a TTL of 5 s a server never came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_longer_than_the_ttl_removes_nobody_and_is_recovered_from() {
    let Some(real) = real::Etcd::start(1) else { return };
    let log = Arc::new(Log::default());
    let ttl = Duration::from_secs(2);
    let etcd = at(&real).ttl(ttl).build().unwrap();
    let registration = registered(etcd.clone(), instance("a"), &log).await;
    let mut watch = etcd.watch(&service());
    until(&mut watch, &["a"]).await;

    real.signal(0, "STOP");
    let stopped = Instant::now();
    until_outage(&mut watch, true).await;
    until_state(&registration, "it is registered anew", |state| matches!(state, RegistrationState::Registering(_)))
        .await;
    while stopped.elapsed() < ttl * 4 {
        assert_eq!(seen(&watch), ["a"], "an outage removes nothing");
        sleep(Duration::from_millis(100)).await;
    }
    real.signal(0, "CONT");
    until_state(&registration, "it is back", |state| matches!(state, RegistrationState::Registered)).await;
    until_outage(&mut watch, false).await;
    until(&mut watch, &["a"]).await;
    assert!(log.count("Registered") >= 2, "{log:?}");
    // Once, and not twice: what took the stop out is over.
    sleep(ttl).await;
    assert_eq!(seen(&watch), ["a"]);
    assert_eq!(etcd.list(&service()).await.unwrap().instances().len(), 1);
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_the_data_keeps_the_lease_and_one_without_is_recovered_from() {
    let Some(mut real) = real::Etcd::start(1) else { return };
    let log = Arc::new(Log::default());
    let etcd = at(&real).ttl(Duration::from_secs(9)).build().unwrap();
    // The history is made longer than that of the empty one will be.
    for n in 0..50 {
        real.put("/elsewhere", &n.to_string());
    }
    let registration = registered(etcd.clone(), instance("a"), &log).await;
    let mut watch = etcd.watch(&service());
    until(&mut watch, &["a"]).await;
    let (_, lease) = real.read(0, "/microservices/s/a").unwrap();

    real.kill(0);
    until_outage(&mut watch, true).await;
    real.restart(0);
    until_outage(&mut watch, false).await;
    until_state(&registration, "it is kept", |state| matches!(state, RegistrationState::Registered)).await;
    assert_eq!(real.read(0, "/microservices/s/a").unwrap().1, lease, "the old lease lives");
    assert_eq!(log.count("LeaseLost"), 0, "{log:?}");
    etcd.register(&Arc::new(instance("b"))).await.unwrap();
    until(&mut watch, &["a", "b"]).await;

    // W3 of the list: a watcher at revision 60 waited for ever where the count began anew.
    real.kill(0);
    until_outage(&mut watch, true).await;
    assert_eq!(seen(&watch), ["a", "b"]);
    real.restart_empty();
    until_outage(&mut watch, false).await;
    until(&mut watch, &["a"]).await;
    assert!(real.read(0, "/microservices/s/a").is_some());
    assert_eq!(log.count("LeaseLost"), 1, "{log:?}");
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

/// E2, go-zero #4960: a key deleted by hand while its lease lives was never put back. And one overwritten.
#[tokio::test]
async fn a_key_deleted_or_overwritten_by_hand_is_put_back() {
    let Some(real) = shared() else { return };
    let log = Arc::new(Log::default());
    let etcd = at(&real).namespace("/by-hand").ttl(TTL).build().unwrap();
    let registration = registered(etcd.clone(), instance("a"), &log).await;
    real.delete("/by-hand/s/a");
    eventually("it is put back", || real.read(0, "/by-hand/s/a").is_some()).await;
    real.put("/by-hand/s/a", "x");
    eventually("it is put back", || real.read(0, "/by-hand/s/a").unwrap().0 != "x").await;
    let (_, lease) = real.read(0, "/by-hand/s/a").unwrap();
    real.ask(0, "/v3/lease/revoke", &serde_json::json!({ "ID": lease.to_string() }));
    eventually("it is put back", || real.read(0, "/by-hand/s/a").is_some()).await;
    assert_eq!(log.count("LeaseLost"), 3, "{log:?}");
    registration.shutdown().await;
}

/// C9's kin: a shutdown hung while the registry was down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deregistering_in_an_outage_is_bounded_and_the_lease_ends_the_key() {
    let Some(real) = real::Etcd::start(1) else { return };
    let log = Arc::new(Log::default());
    let etcd = at(&real).ttl(TTL).build().unwrap();
    let registration = registered(etcd.clone(), instance("a"), &log).await;
    real.signal(0, "STOP");
    let begun = Instant::now();
    registration.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(log.count("DeregisterFailed"), 1, "{log:?}");
    real.signal(0, "CONT");
    eventually("the lease ends", || real.read(0, "/microservices/s/a").is_none()).await;
}

/// R1, W5: a registry that is away at the start is waited for, by servers and clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_before_etcd_is_no_failure() {
    let Some(mut real) = real::Etcd::start(1) else { return };
    real.kill(0);
    let log = Arc::new(Log::default());
    let etcd = at(&real).ttl(TTL).build().unwrap();
    let mut watch = etcd.watch(&service());
    until_outage(&mut watch, true).await;
    let registration = Registration::with_observer(&etcd.clone().into(), instance("a"), log.clone()).unwrap();
    registration.start();
    eventually("a try fails", || log.count("RegisterFailed") > 0).await;
    let error = etcd.list(&service()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    real.restart(0);
    until(&mut watch, &["a"]).await;
    registration.shutdown().await;
}
