//! Who may do what, and tokens that change.

use super::*;

const READ: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

/// What the user may do, of what an error named: these rules and no more.
fn allow(real: &KubeApiserver, rules: &Value) {
    let meta = json!({"name": "app", "namespace": "default"});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
        "subjects": [{"kind": "User", "name": "user", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "app", "apiGroup": "rbac.authorization.k8s.io"}});
    real.ask("POST", &format!("{READ}/roles"), JSON, &role.to_string());
    real.ask("PUT", &format!("{READ}/roles/app"), JSON, &role.to_string());
    real.ask("POST", &format!("{READ}/rolebindings"), JSON, &binding.to_string());
}

/// The rule that an error says is missing.
fn rule_in(error: &callsign::Error) -> Value {
    assert_eq!(error.kind(), Kind::PermissionDenied, "{error:#}");
    let text = error.to_string();
    let (_, rule) = text.split_once('{').unwrap_or_else(|| panic!("no rule in {text}"));
    let (rule, _) = rule.split_once('}').unwrap();
    let list = |key: &str| -> Vec<String> {
        let (_, list) = rule.split_once(&format!("{key}: [")).unwrap_or_else(|| panic!("no {key} in {text}"));
        let (list, _) = list.split_once(']').unwrap();
        list.split(", ").map(|one| one.trim_matches('"').to_owned()).collect()
    };
    json!({"apiGroups": list("apiGroups"), "resources": list("resources"), "verbs": list("verbs")})
}

/// K6: 403 is reported clearly: the rule in the error is all that is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_the_rule_that_is_missing() {
    let Some(real) = shared() else { return };
    real.make_pod("rights", &[9000]);
    let of = |kubernetes: Kubernetes| kubernetes.with_kubeconfig(real.kubeconfig("user"));
    let mut slices = of(Kubernetes::new()).watch(&name("rights"));
    let first = outage_of(&mut slices).await;
    assert!(first.to_string().contains("list endpointslices in namespace default"), "{first}");
    let mut rules = vec![rule_in(&first)];

    // Half of it is told apart.
    allow(&real, &json!([{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}]));
    let told = || slices.view().outage().is_some_and(|outage| outage.error().to_string().contains("watch endpoints"));
    eventually("that it may not watch", told).await;
    allow(&real, &json!(rules));
    until_outage(&mut slices, false).await;

    let pods = of(Kubernetes::pods()).with_pod("rights");
    let one = Arc::new(instance("rights", "a", 9000));
    rules.push(rule_in(&pods.register(&one).await.unwrap_err()));
    allow(&real, &json!(rules));
    let begun = Instant::now();
    while let Err(error) = pods.register(&one).await {
        assert!(begun.elapsed() < BOUND, "{error:#}");
        sleep(Duration::from_millis(50)).await;
    }
    let mut watch = pods.watch(&name("rights"));
    rules.push(rule_in(&outage_of(&mut watch).await));
    allow(&real, &json!(rules));
    until(&mut watch, &["a"]).await;
    until_outage(&mut watch, false).await;
}

/// Where a token is no longer known, its file is read again, by watches and by servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_known_is_read_again() {
    let Some(real) = shared() else { return };
    real.make_pod("token", &[9000]);
    let kubeconfig = real.make_kubeconfig("token-file", "tokenFile: token", real.port());
    let token = kubeconfig.with_file_name("token");
    let of = |kubernetes: Kubernetes| kubernetes.with_kubeconfig(&kubeconfig);
    std::fs::write(&token, "nobody").unwrap();
    let services = of(Kubernetes::new());
    let mut watch = services.watch(&name("token"));
    let error = outage_of(&mut watch).await;
    assert!(error.kind() == Kind::PermissionDenied && !format!("{error:?}").contains("nobody"), "{error:?}");
    let pods = of(Kubernetes::pods()).with_pod("token");
    let listing = of(Kubernetes::new());
    let one = Arc::new(instance("token", "a", 9000));
    for error in [pods.register(&one).await.unwrap_err(), listing.list(&name("token")).await.unwrap_err()] {
        assert_eq!(error.kind(), Kind::PermissionDenied, "{error:#}");
    }
    std::fs::write(&token, "admin-token").unwrap();
    // At once, and not when a minute has passed.
    listing.list(&name("token")).await.unwrap();
    let lease = pods.register(&one).await.unwrap();
    assert_eq!(pods.renew(&lease).await.unwrap(), Renewal::Kept);
    until_outage(&mut watch, false).await;
    pods.deregister(&lease).await.unwrap();
}
