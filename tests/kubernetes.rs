//! Kubernetes: a real kube-apiserver, and a fake one for what a real one does not do on demand.
//!
//! The conformance suite does not fit: a Pod is one instance of one service, and no lease ends by itself. Its rows
//! that can hold are here.

#![cfg(feature = "kubernetes")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use callsign::{
    Kind, ServiceInstance,
    registry::{Discovery, Kubernetes, Registrar, Renewal, Watch},
};
use serde_json::{Value, json};

#[path = "support/dir.rs"]
mod dir;
#[path = "kubernetes/fake.rs"]
mod fake;
#[path = "support/servers/kube_apiserver.rs"]
mod kube_apiserver;
#[path = "support/servers/mod.rs"]
mod servers;

use kube_apiserver::KubeApiserver;

fn server() -> Option<(dir::TempDir, KubeApiserver)> {
    let directory = dir::TempDir::new();
    let mut server = KubeApiserver::start(directory.path())?;
    server.wait();
    Some((directory, server))
}

fn ids(watch: &Watch) -> Vec<String> {
    let view = watch.view();
    view.snapshot().into_iter().flat_map(|set| set.instances()).map(|one| one.id().to_string()).collect()
}

async fn until(watch: &mut Watch, wanted: &[&str]) {
    let shown = async {
        while watch.view().snapshot().is_none() || watch.view().outage().is_some() || ids(watch) != wanted {
            watch.next().await.unwrap();
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(60), shown).await;
    assert!(shown.is_ok(), "wanted {wanted:?}, there is {:?}", watch.view());
}

async fn until_outage(watch: &mut Watch) -> callsign::Error {
    let told = async {
        loop {
            if let Some(outage) = watch.view().outage() {
                return outage.error().clone();
            }
            watch.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("an outage")
}

const JSON: &str = "application/json";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// A Pod that runs, as its kubelet would say.
fn make_pod(server: &KubeApiserver, name: &str, port: u16) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": port}]}]}});
    server.ask("POST", PODS, JSON, &pod.to_string());
    let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let path = format!("{PODS}/{name}/status");
    let said = server.ask("PATCH", &path, "application/strategic-merge-patch+json", &status.to_string());
    assert!(said.contains("\"Running\""), "{said}");
}

fn patch_pod(server: &KubeApiserver, name: &str, patch: &Value) {
    server.ask("PATCH", &format!("{PODS}/{name}"), "application/strategic-merge-patch+json", &patch.to_string());
}

fn delete(server: &KubeApiserver, path: &str) {
    server.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), JSON, "");
}

fn instance(service: &str, id: &str, port: u16) -> Arc<ServiceInstance> {
    let address = format!("grpc://127.0.0.1:{port}").parse().unwrap();
    let builder = ServiceInstance::builder(service, id).unwrap().version("v1.2.3").metadata("note", "<a&b> \"q\" é");
    Arc::new(builder.address(address).build().unwrap())
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "grpc", "port": 9000}], "endpoints": endpoints})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server() {
    let Some((_directory, mut server)) = server() else { return };
    endpoint_slices(&server).await;
    pods(&server).await;
    rights(&server).await;
    outages(&mut server).await;
}

async fn endpoint_slices(server: &KubeApiserver) {
    for user in ["admin", "certificate"] {
        let kubernetes = Kubernetes::new().with_kubeconfig(server.kubeconfig(user));
        assert!(kubernetes.list(&"greeter".parse().unwrap()).await.unwrap().instances().is_empty(), "{user}");
    }
    let uri = format!("kubernetes://?kubeconfig={}", server.kubeconfig("admin").display());
    let registry = callsign::registry(&uri).unwrap();
    let mut watch = registry.discovery().watch(&"greeter.default:grpc".parse().unwrap());
    until(&mut watch, &[]).await;
    server.ask("POST", SLICES, JSON, &slice("g-1", "greeter", &["10.1.0.1", "10.1.0.2"]).to_string());
    server.ask("POST", SLICES, JSON, &slice("g-2", "greeter", &["10.1.0.2", "10.1.0.3"]).to_string());
    server.ask("POST", SLICES, JSON, &slice("h-1", "greeter-long", &["10.1.0.9"]).to_string());
    until(&mut watch, &["10.1.0.1", "10.1.0.2", "10.1.0.3"]).await;
    delete(server, &format!("{SLICES}/g-1"));
    until(&mut watch, &["10.1.0.2", "10.1.0.3"]).await;
    delete(server, &format!("{SLICES}/g-2"));
    until(&mut watch, &[]).await;
}

async fn pods(server: &KubeApiserver) {
    let pods = || Kubernetes::pods().with_kubeconfig(server.kubeconfig("admin"));
    for pod in ["p-a", "p-b", "p-c"] {
        make_pod(server, pod, 9000);
    }
    let (a, b) = (pods().with_pod("p-a"), pods().with_pod("p-b"));
    let mut watch = pods().watch(&"helloworld".parse().unwrap());
    until(&mut watch, &[]).await;
    let (one, two) = (instance("helloworld", "inst-a", 9000), instance("helloworld", "inst-b", 9000));
    let lease = a.register(&one).await.unwrap();
    until(&mut watch, &["inst-a"]).await;
    assert_eq!(watch.view().snapshot().unwrap().instances()[0], one, "found as it was registered");
    let other = b.register(&two).await.unwrap();
    until(&mut watch, &["inst-a", "inst-b"]).await;
    assert_eq!(a.renew(&lease).await.unwrap(), Renewal::Kept);

    // The same id again is idempotent, and ends the lease before.
    let again = a.register(&one).await.unwrap();
    assert_eq!(a.renew(&lease).await.unwrap(), Renewal::Lost);
    a.deregister(&lease).await.unwrap();
    assert_eq!(a.renew(&again).await.unwrap(), Renewal::Kept);

    // A Pod is an instance of one service; ports must be declared; W9: labels have rules.
    for refused in
        [instance("other", "x", 9000), instance("helloworld", "x", 9001), instance("helloworld", "h/1", 9000)]
    {
        let error = a.register(&refused).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput, "{error:#}");
    }
    let nowhere = pods().with_pod("p-none").register(&one).await.unwrap_err();
    assert_eq!(nowhere.kind(), Kind::NotFound, "{nowhere:#}");

    // Labels taken away by hand are a lost lease.
    patch_pod(server, "p-a", &json!({"metadata": {"labels": {"kratos-service-app": ""}}}));
    assert_eq!(a.renew(&again).await.unwrap(), Renewal::Lost);
    until(&mut watch, &["inst-b"]).await;
    let again = a.register(&one).await.unwrap();
    until(&mut watch, &["inst-a", "inst-b"]).await;

    // W4: a bad annotation costs only its Pod; what Kratos wrote is found.
    let kratos: Value = serde_json::from_str(include_str!("data/kubernetes/patch.json")).unwrap();
    let mut bad = kratos.clone();
    bad["metadata"]["labels"]["kratos-service-id"] = "inst-c".into();
    bad["metadata"]["annotations"]["kratos-service-metadata"] = "{".into();
    patch_pod(server, "p-c", &bad);
    until_where(&mut watch, |watch| watch.view().snapshot().unwrap().skipped() == 1).await;
    assert_eq!(ids(&watch), ["inst-a", "inst-b"]);
    bad["metadata"]["annotations"] = kratos["metadata"]["annotations"].clone();
    patch_pod(server, "p-c", &bad);
    until(&mut watch, &["inst-a", "inst-b", "inst-c"]).await;

    // K5: not ready, or gone, is out.
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}).to_string();
    server.ask("PATCH", &format!("{PODS}/p-c/status"), "application/strategic-merge-patch+json", &unready);
    until(&mut watch, &["inst-a", "inst-b"]).await;
    delete(server, &format!("{PODS}/p-b"));
    until(&mut watch, &["inst-a"]).await;
    assert_eq!(b.renew(&other).await.unwrap(), Renewal::Lost);

    // A renewal in flight brings nothing back.
    for _ in 0..10 {
        let lease = a.register(&one).await.unwrap();
        let (renewed, left) = tokio::join!(a.renew(&lease), a.deregister(&lease));
        renewed.unwrap();
        left.unwrap();
        assert!(a.list(one.service()).await.unwrap().instances().is_empty());
    }
    a.deregister(&again).await.unwrap();
    until(&mut watch, &[]).await;
}

async fn until_where(watch: &mut Watch, mut holds: impl FnMut(&Watch) -> bool) {
    let shown = async {
        while !holds(watch) {
            watch.next().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), shown).await.is_ok(), "{:?}", watch.view());
}

/// K6: 403 is reported clearly; so is 401.
async fn rights(server: &KubeApiserver) {
    let user = Kubernetes::new().with_kubeconfig(server.kubeconfig("user"));
    let error = until_outage(&mut user.watch(&"greeter".parse().unwrap())).await;
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("list endpointslices in namespace default"), "{error}");
    assert!(error.to_string().contains("discovery.k8s.io"), "{error}");
    let pods = Kubernetes::pods().with_kubeconfig(server.kubeconfig("user")).with_pod("p-a");
    let error = pods.register(&instance("helloworld", "a", 9000)).await.unwrap_err();
    assert!(error.kind() == Kind::PermissionDenied && error.to_string().contains("get, patch"), "{error}");
    let stranger = Kubernetes::new().with_kubeconfig(server.kubeconfig("stranger"));
    let error = stranger.list(&"greeter".parse().unwrap()).await.unwrap_err();
    assert!(error.kind() == Kind::PermissionDenied && !format!("{error:?}").contains("nobody"), "{error:?}");
}

async fn outages(server: &mut KubeApiserver) {
    let kubernetes = Kubernetes::new().with_kubeconfig(server.kubeconfig("admin")).with_idle(Duration::from_secs(2));
    let mut watch = kubernetes.watch(&"greeter".parse().unwrap());
    server.ask("POST", SLICES, JSON, &slice("g-1", "greeter", &["10.1.0.1", "10.1.0.2"]).to_string());
    until(&mut watch, &["10.1.0.1", "10.1.0.2"]).await;

    // Stopped, not ended: half open.
    server.api.signal("STOP");
    until_outage(&mut watch).await;
    assert_eq!(ids(&watch), ["10.1.0.1", "10.1.0.2"], "an outage removes nothing");
    server.api.signal("CONT");
    server.wait();
    until(&mut watch, &["10.1.0.1", "10.1.0.2"]).await;

    // Ended and started again with its data.
    tokio::task::block_in_place(|| server.restart(true));
    until(&mut watch, &["10.1.0.1", "10.1.0.2"]).await;

    // Started again with nothing: its versions begin anew.
    tokio::task::block_in_place(|| server.restart(false));
    until(&mut watch, &[]).await;
    server.ask("POST", SLICES, JSON, &slice("g-1", "greeter", &["10.1.0.7"]).to_string());
    until(&mut watch, &["10.1.0.7"]).await;
}
