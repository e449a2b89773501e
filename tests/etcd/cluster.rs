//! Three members, of which some are away.

use super::*;

/// E14, etcd #15247: the leader's end ended leases and watches. Here it is killed five times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_killed_five_times_costs_nobody_his_registration() {
    let Some(mut real) = real::Etcd::start(3) else { return };
    let log = Arc::new(Log::default());
    let etcd = at(&real).ttl(Duration::from_secs(15)).build().unwrap();
    let registration = registered(etcd.clone(), instance("a"), &log).await;
    let mut watch = etcd.watch(&service());
    until(&mut watch, &["a"]).await;
    for n in 0..5 {
        let mut leader = None;
        eventually("there is a leader", || {
            leader = real.leader();
            leader.is_some()
        })
        .await;
        let leader = leader.unwrap();
        real.kill(leader);
        // What happens meanwhile is seen; it may take an election.
        let id = format!("b{n}");
        let begun = Instant::now();
        let lease = loop {
            match etcd.register(&Arc::new(instance(&id))).await {
                Ok(lease) => break lease,
                Err(error) => assert!(error.is_retryable() && begun.elapsed() < BOUND, "{error:#}"),
            }
        };
        until(&mut watch, &["a", &id]).await;
        while let Err(error) = etcd.deregister(&lease).await {
            assert!(begun.elapsed() < BOUND, "{error:#}");
        }
        until(&mut watch, &["a"]).await;
        real.restart(leader);
    }
    until_state(&registration, "it is kept", |state| matches!(state, RegistrationState::Registered)).await;
    assert_eq!((log.count("LeaseLost"), log.count("RegisterFailed")), (0, 0), "{log:?}");
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

/// E4, k8s #89488: a member cut off from the others told nothing of it, and its watchers stayed behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_leader_says_so_and_a_stopped_member_is_passed_over() {
    let Some(real) = real::Etcd::start(3) else { return };
    let etcd = at(&real).ttl(Duration::from_secs(60)).build().unwrap();
    let mut watch = etcd.watch(&service());
    etcd.register(&Arc::new(instance("a"))).await.unwrap();
    until(&mut watch, &["a"]).await;
    let mut alone = Etcd::builder([real.endpoints()[2].clone()]).build().unwrap().watch(&service());
    until(&mut alone, &["a"]).await;

    // One of three: the others are asked.
    real.signal(0, "STOP");
    for id in ["b", "c"] {
        let begun = Instant::now();
        while let Err(error) = etcd.register(&Arc::new(instance(id))).await {
            assert!(error.is_retryable() && begun.elapsed() < BOUND, "{error:#}");
        }
    }
    until(&mut alone, &["a", "b", "c"]).await;

    // Two of three: the last one has no leader.
    real.signal(1, "STOP");
    until_outage(&mut alone, true).await;
    assert_eq!(seen(&alone), ["a", "b", "c"]);
    real.signal(0, "CONT");
    real.signal(1, "CONT");
    until_outage(&mut alone, false).await;
    assert_eq!(seen(&alone), ["a", "b", "c"]);
    until(&mut watch, &["a", "b", "c"]).await;
}
