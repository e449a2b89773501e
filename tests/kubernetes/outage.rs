//! An API server that stops, is killed, or comes back without its data.

use super::*;

const TTL: Duration = Duration::from_secs(2);

async fn until_registered(registration: &Registration) {
    let is = || matches!(registration.state(), RegistrationState::Registered);
    eventually("it is registered", is).await;
}

/// The labels of a Pod, as the server has them.
fn app_on(server: &KubeApiserver, pod: &str) -> Value {
    let said = server.ask("GET", &format!("{PODS}/{pod}"), JSON, "");
    serde_json::from_str::<Value>(&said).unwrap()["metadata"]["labels"]["kratos-service-app"].clone()
}

/// One server, one outage after the other: such servers take seconds to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_remove_nobody_and_are_recovered_from() {
    let Some(mut real) = real() else { return };
    let server = &mut real.server;
    server.make_pod("p", &[9000]);
    server.ask("POST", SLICES, JSON, &slice("g", "greeter", &["10.1.0.1", "10.1.0.2"]).to_string());
    let idle = Duration::from_secs(2);
    let (services, pods) = (services(server).with_idle(idle), pods_of(server).with_idle(idle).with_ttl(TTL));
    let log = Arc::new(Log::default());
    let registration = follow::registered(pods.clone().with_pod("p"), instance("s", "a", 9000), &log).await;
    // Of a lease that outlives the restarts: only a look at the Pod finds out that its labels went.
    server.make_pod("long", &[9000]);
    let (long, of_long) = (pods.clone().with_pod("long").with_ttl(Duration::from_secs(45)), Arc::new(Log::default()));
    let _long = follow::registered(long, instance("long", "l", 9000), &of_long).await;
    let (mut slices, mut watch) = (services.watch(&name("greeter")), pods.watch(&name("s")));
    until(&mut slices, &["10.1.0.1", "10.1.0.2"]).await;
    until(&mut watch, &["a"]).await;
    // As they are unless set: nothing but what the server says, or its end, tells these.
    let (mut patient, mut of_pods) =
        (self::services(server).watch(&name("greeter")), pods_of(server).watch(&name("s")));
    until(&mut patient, &["10.1.0.1", "10.1.0.2"]).await;
    until(&mut of_pods, &["a"]).await;

    // Stopped, not ended: half open, longer than the TTL.
    server.api.signal("STOP");
    let stopped = Instant::now();
    until_outage(&mut slices, true).await;
    until_outage(&mut watch, true).await;
    while stopped.elapsed() < TTL * 3 {
        assert_eq!((seen(&slices).len(), seen(&watch).len()), (2, 1), "an outage removes nothing");
        sleep(Duration::from_millis(100)).await;
    }
    let registrations = log.count("Registered");
    server.api.signal("CONT");
    until_outage(&mut slices, false).await;
    until_outage(&mut watch, false).await;
    eventually("it is registered anew", || log.count("Registered") > registrations).await;
    assert_eq!((seen(&slices).len(), seen(&watch).len()), (2, 1));

    // Ended, and changed while away: nothing here can come from before.
    let lost = log.count("LeaseLost");
    tokio::task::block_in_place(|| {
        server.restart_changing(|beside| {
            let none = json!({"metadata": {"labels": {"kratos-service-app": null, "kratos-service-id": null}}});
            for pod in ["p", "long"] {
                beside.patch_pod(pod, &none);
                assert!(app_on(beside, pod).is_null());
            }
            beside.make_pod("q", &[9000]);
            let b = json!({"labels": {"kratos-service-app": "s", "kratos-service-id": "b"}});
            beside.patch_pod("q", &json!({"metadata": b}));
            let changed = slice("g", "greeter", &["10.1.0.2", "10.1.0.3"]).to_string();
            beside.ask("PUT", &format!("{SLICES}/g"), JSON, &changed);
        });
    });
    until(&mut slices, &["10.1.0.2", "10.1.0.3"]).await;
    eventually("the labels are missed", || log.count("LeaseLost") > lost).await;
    until_registered(&registration).await;
    assert_eq!(app_on(server, "p"), "s", "put back");
    until(&mut watch, &["a", "b"]).await;
    until(&mut patient, &["10.1.0.2", "10.1.0.3"]).await;
    until(&mut of_pods, &["a", "b"]).await;
    eventually("they are put back", || app_on(server, "long") == "long").await;
    assert_eq!(of_long.count("Registered"), 2, "{of_long:?}");

    // Started again with nothing: its versions begin anew, and no Pod is there.
    tokio::task::block_in_place(|| server.restart(false));
    for watch in [&mut slices, &mut watch, &mut patient, &mut of_pods] {
        until(watch, &[]).await;
    }
    server.make_pod("p", &[9000]);
    until(&mut watch, &["a"]).await;
    server.ask("POST", SLICES, JSON, &slice("g", "greeter", &["10.1.0.7"]).to_string());
    until(&mut slices, &["10.1.0.7"]).await;
    until(&mut patient, &["10.1.0.7"]).await;

    // C9's kin: a shutdown hung while the registry was down.
    until_registered(&registration).await;
    server.api.signal("STOP");
    let begun = Instant::now();
    registration.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(log.count("DeregisterFailed"), 1, "{log:?}");
    server.api.signal("CONT");
}

/// R1, W5: a registry that is away at the start is waited for, by servers and clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_before_the_api_server_is_no_failure() {
    let Some(mut real) = real() else { return };
    let server = &mut real.server;
    server.make_pod("p", &[9000]);
    server.api.kill();
    let (pods, log) = (pods_of(server).with_pod("p"), Arc::new(Log::default()));
    let mut watch = pods.watch(&name("s"));
    until_outage(&mut watch, true).await;
    assert!(pods.list(&name("s")).await.unwrap_err().is_retryable());
    let registration =
        Registration::with_observer(&pods.clone().into(), instance("s", "a", 9000), log.clone()).unwrap();
    registration.start();
    eventually("a try fails", || log.count("RegisterFailed") > 0).await;
    tokio::task::block_in_place(|| server.restart(true));
    until(&mut watch, &["a"]).await;
    until_registered(&registration).await;
    registration.shutdown().await;
    until(&mut watch, &[]).await;
    assert_eq!(app_on(server, "p"), "");
}
