//! What is asked of the API server while nothing happens.

use super::*;

const MINUTE: Duration = Duration::from_secs(61);

/// Watches of slices and of Pods and a registration, as they are unless set; and a token that rotates meanwhile, with
/// the old one as good as the new, is read in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_at_rest_is_one_request_and_a_token_that_rotated_is_read() {
    let Some(real) = shared() else { return };
    real.make_pod("quiet", &[9000]);
    real.ask("POST", SLICES, JSON, &slice("quiet", "quiet", &["10.3.0.1"]).to_string());
    let kubeconfig = real.make_kubeconfig("quiet", "tokenFile: quiet-token", real.port());
    let token = kubeconfig.with_file_name("quiet-token");
    std::fs::write(&token, "counted-token").unwrap();
    let services = Kubernetes::new().with_kubeconfig(&kubeconfig);
    let pods = Kubernetes::pods().with_kubeconfig(&kubeconfig).with_pod("quiet");
    let log = Arc::new(Log::default());
    let registration = follow::registered(pods.clone(), instance("quiet", "a", 9000), &log).await;
    let (mut slices, mut watch) = (services.watch(&name("quiet")), pods.watch(&name("quiet")));
    until(&mut slices, &["10.3.0.1"]).await;
    until(&mut watch, &["a"]).await;
    let asked = |user: &str| {
        let mut asked = std::collections::BTreeMap::<String, usize>::new();
        real.requests(user).into_iter().for_each(|request| *asked.entry(request).or_default() += 1);
        asked
    };
    let watches = |user: &str| asked(user).keys().filter(|request| request.starts_with("watch")).count();
    eventually("both watch", || watches("counted") == 2).await;
    let before = asked("counted");
    let begun: Vec<_> = before.iter().map(|(request, count)| format!("{request} {count}")).collect();
    let expected = ["get pods 1", "list endpointslices 1", "list pods 1", "patch pods 1", "watch endpointslices 1"];
    assert_eq!(begun, [&expected[..], &["watch pods 1"]].concat());

    std::fs::write(&token, "renewed-token").unwrap();
    sleep(MINUTE).await;
    assert!(slices.view().outage().is_none() && watch.view().outage().is_none());
    let mut after = asked("renewed");
    for (request, count) in asked("counted") {
        *after.entry(request.clone()).or_default() += count - before.get(&request).copied().unwrap_or(0);
    }
    after.retain(|_, count| *count > 0);
    // The one of the registration, which looks each third of its TTL of 180 s; the watches are as they were.
    assert!(after.into_iter().eq([("get pods".to_owned(), 1)]), "{:?}, {:?}", asked("counted"), asked("renewed"));

    let before = asked("counted");
    services.list(&name("quiet")).await.unwrap();
    registration.shutdown().await;
    assert_eq!(asked("counted"), before, "the old token is used no more");
    assert_eq!(asked("renewed").get("patch pods"), Some(&1), "{:?}", asked("renewed"));
    assert_eq!(log.count("LeaseLost") + log.count("DeregisterFailed"), 0, "{log:?}");
    until(&mut watch, &[]).await;
}
