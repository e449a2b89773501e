//! EndpointSlices as they come and go.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_slices_of_a_service_are_followed() {
    let Some(real) = shared() else { return };
    for user in ["admin", "certificate"] {
        let kubernetes = Kubernetes::new().with_kubeconfig(real.kubeconfig(user));
        assert!(kubernetes.list(&name("greeter")).await.unwrap().instances().is_empty(), "{user}");
    }
    let uri = format!("kubernetes://?kubeconfig={}", real.kubeconfig("admin").display());
    let registry = callsign::registry(&uri).unwrap();
    let mut watch = registry.discovery().watch(&name("greeter.default:grpc"));
    until(&mut watch, &[]).await;
    real.ask("POST", SLICES, JSON, &slice("g-1", "greeter", &["10.1.0.1", "10.1.0.2"]).to_string());
    real.ask("POST", SLICES, JSON, &slice("g-2", "greeter", &["10.1.0.2", "10.1.0.3"]).to_string());
    real.ask("POST", SLICES, JSON, &slice("h-1", "greeter-long", &["10.1.0.9"]).to_string());
    until(&mut watch, &["10.1.0.1", "10.1.0.2", "10.1.0.3"]).await;
    delete(&real, &format!("{SLICES}/g-1"));
    until(&mut watch, &["10.1.0.2", "10.1.0.3"]).await;
    delete(&real, &format!("{SLICES}/g-2"));
    until(&mut watch, &[]).await;
}

/// E9 and R3 of other registries: a watcher that was dropped went on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_after_the_last_handle() {
    let Some(real) = shared() else { return };
    real.make_pod("left", &[9000]);
    let link = link::Link::to(real.port()).await;
    let kubeconfig = real.make_kubeconfig("left", "token: admin-token", link.port());
    let (log, handle) = (Arc::new(Log::default()), tokio::runtime::Handle::current());
    let services = Kubernetes::new().with_kubeconfig(&kubeconfig);
    let pods = Kubernetes::pods().with_kubeconfig(&kubeconfig).with_pod("left");
    let registration = follow::registered(pods.clone(), instance("left", "a", 9000), &log).await;
    let mut watches: Vec<_> = (0..5).map(|_| services.watch(&name("left"))).collect();
    for watch in &mut watches {
        until(watch, &[]).await;
    }
    watches.extend((0..5).map(|_| pods.watch(&name("left"))));
    for watch in &mut watches[5..] {
        until(watch, &["a"]).await;
    }
    assert!(link.open() >= 2, "{} connections", link.open());
    registration.shutdown().await;
    drop((registration, watches, services, pods));
    eventually("no connection is left", || link.open() == 0).await;
    // The link's own listener, and nothing of ours.
    eventually("no task is left", || handle.metrics().num_alive_tasks() <= 1).await;
}

/// The same where the server does not answer: what is under way ends too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_what_is_dropped_in_an_outage() {
    let Some(real) = shared() else { return };
    let link = link::Link::to(real.port()).await;
    let handle = tokio::runtime::Handle::current();
    let kubeconfig = real.make_kubeconfig("frozen", "token: admin-token", link.port());
    let services = Kubernetes::new().with_kubeconfig(&kubeconfig).with_idle(Duration::from_secs(1));
    let mut watch = services.watch(&name("frozen"));
    until(&mut watch, &[]).await;
    link.freeze();
    until_outage(&mut watch, true).await;
    eventually("it is at the server again", || link.open() > 0).await;
    drop((watch, services));
    // What holds back bytes does not see who has gone.
    link.heal();
    eventually("no connection is left", || link.open() == 0).await;
    eventually("no task is left", || handle.metrics().num_alive_tasks() <= 1).await;
}
