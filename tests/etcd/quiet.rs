//! What is asked of etcd while nothing happens.

use super::*;

/// A watch at rest asks for its progress every 10 s, at most 7 times a minute, and never lists again; a registration
/// beats and looks each third of its TTL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_rest_a_watch_asks_at_most_seven_times_a_minute() {
    let Some(real) = real::Etcd::start(1) else { return };
    let log = Arc::new(Log::default());
    let etcd = at(&real).ttl(Duration::from_secs(6)).build().unwrap();
    let watching = at(&real).build().unwrap();
    let registration = registered(etcd, instance("a"), &log).await;
    // Behind the last write: a member answers for its progress also where nothing comes after what it was asked for.
    let mut watch = watching.watch(&service());
    until(&mut watch, &["a"]).await;
    let count = |metric: &str, method: &str| real.metric(metric, &format!("grpc_method=\"{method}\""));
    let counts = || {
        let begun = ["Range", "LeaseKeepAlive", "LeaseGrant", "Put", "Watch"];
        let [ranges, beats, grants, puts, watches] = begun.map(|method| count("grpc_server_started_total", method));
        [count("grpc_server_msg_received_total", "Watch"), ranges, beats, grants, puts, watches]
    };
    // The first question comes soon, to find out whether anybody is there.
    sleep(Duration::from_secs(2)).await;
    let (begun, before) = (Instant::now(), counts());
    eventually("the watch asks", || counts()[0] > before[0]).await;
    sleep(Duration::from_secs(4)).await;
    let (after, span) = (counts(), begun.elapsed().as_secs_f64());
    let [asked, ranges, beats, grants, puts, watches] = std::array::from_fn(|n| after[n] - before[n]);
    assert!(asked <= 1.0 + 6.0 * span / 60.0 && span > 7.0, "{asked} questions of the watch in {span} s");
    assert!((1.0..=span / 2.0 + 1.0).contains(&beats), "{beats} beats in {span} s");
    assert!((ranges - beats).abs() <= 1.0, "{ranges} reads: one beside each beat");
    assert_eq!((grants, puts, watches), (0.0, 0.0, 0.0));
    assert!(watch.view().outage().is_none());
    registration.shutdown().await;
}
