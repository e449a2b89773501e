//! Kubernetes: a real kube-apiserver, and a fake one for what a real one does not do on demand.
//!
//! The conformance suite does not fit: a Pod is one instance of one service, and no lease ends by itself. Its rows
//! that can hold are here.

#![cfg(all(feature = "kubernetes", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use callsign::{
    Kind, Registration, ServiceInstance, ServiceName,
    registry::{Discovery, Kubernetes, Registrar, Renewal, Watch},
    server::RegistrationState,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

#[path = "support/dir.rs"]
mod dir;
#[allow(dead_code, unreachable_pub, reason = "another's part")]
#[path = "support/echo.rs"]
mod echo;
#[path = "support/follow.rs"]
mod follow;
#[path = "support/servers/kube_apiserver.rs"]
mod kube_apiserver;
#[path = "support/link.rs"]
mod link;
#[path = "support/servers/mod.rs"]
mod servers;

#[path = "kubernetes/at_rest.rs"]
mod at_rest;
#[path = "kubernetes/calls.rs"]
mod calls;
#[path = "kubernetes/fake.rs"]
mod fake;
#[path = "kubernetes/outage.rs"]
mod outage;
#[path = "kubernetes/pods.rs"]
mod pods;
#[path = "kubernetes/slices.rs"]
mod slices;
#[path = "kubernetes/stand.rs"]
mod stand;
#[path = "kubernetes/users.rs"]
mod users;

use follow::{BOUND, Log, eventually, seen, until, until_outage};
use kube_apiserver::{JSON, KubeApiserver, MERGE, PODS, SLICES};
use servers::Shared;

struct Real {
    server: KubeApiserver,
    _directory: dir::TempDir,
}

impl std::ops::Deref for Real {
    type Target = KubeApiserver;

    fn deref(&self) -> &KubeApiserver {
        &self.server
    }
}

/// A server of one's own.
fn real() -> Option<Real> {
    let directory = dir::TempDir::new();
    let mut server = KubeApiserver::start(directory.path())?;
    server.wait();
    Some(Real { server, _directory: directory })
}

/// One server for all tests that do it no harm; each has services and Pods of its own.
fn shared() -> Option<Arc<Real>> {
    static SHARED: Shared<Real> = Shared::new();
    SHARED.get(real)
}

fn services(real: &KubeApiserver) -> Kubernetes {
    Kubernetes::new().with_kubeconfig(real.kubeconfig("admin"))
}

fn pods_of(real: &KubeApiserver) -> Kubernetes {
    Kubernetes::pods().with_kubeconfig(real.kubeconfig("admin"))
}

fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

fn delete(server: &KubeApiserver, path: &str) {
    server.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), JSON, "");
}

fn instance(service: &str, id: &str, port: u16) -> ServiceInstance {
    let address = format!("grpc://127.0.0.1:{port}").parse().unwrap();
    let builder = ServiceInstance::builder(service, id).unwrap().version("v1.2.3").metadata("note", "<a&b> \"q\" é");
    builder.address(address).build().unwrap()
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    slice_of(name, service, 9000, &json!(endpoints))
}

fn slice_of(name: &str, service: &str, port: u16, endpoints: &Value) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "grpc", "port": port}], "endpoints": endpoints})
}

async fn outage_of(watch: &mut Watch) -> callsign::Error {
    until_outage(watch, true).await;
    watch.view().outage().unwrap().error().clone()
}
