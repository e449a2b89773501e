//! Kratos's own servers and clients, and ours, in one registry: each finds and calls the other.

#![cfg(all(feature = "tls", any(feature = "consul", feature = "etcd", feature = "kubernetes", feature = "zookeeper")))]
#![allow(missing_docs, clippy::unwrap_used)]

#[cfg(feature = "consul")]
#[path = "support/servers/consul.rs"]
mod consul;
#[path = "support/dir.rs"]
mod dir;
#[cfg(feature = "etcd")]
#[path = "support/servers/etcd.rs"]
mod etcd;
#[path = "support/servers/kube_apiserver.rs"]
mod kube_apiserver;
#[path = "support/process.rs"]
mod process;
#[path = "support/servers/mod.rs"]
mod servers;
#[cfg(feature = "zookeeper")]
#[path = "support/servers/zookeeper.rs"]
mod zookeeper;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use callsign::{Registry, ServiceInstance, ServiceName, registry::Watch};
use dir::TempDir;
use kube_apiserver::KubeApiserver;
use servers::Daemon;
use tokio::time::timeout;

const SERVICE: &str = "helloworld";
const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem");
const CHAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/server.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/server.key");

/// A registry, as Kratos is told of it and as we are.
struct Place<'a> {
    program: PathBuf,
    kind: &'static str,
    at: &'a str,
    uri: &'a str,
    directory: TempDir,
    /// Where a server is a Pod.
    pods: Option<&'a KubeApiserver>,
}

impl<'a> Place<'a> {
    fn new(kind: &'static str, at: &'a str, uri: &'a str) -> Option<Self> {
        Some(Self { program: servers::cached("kratos")?, kind, at, uri, directory: TempDir::new(), pods: None })
    }

    /// What a client of ours calls.
    fn target(&self, service: &str, more: &str) -> String {
        let (registry, query) = self.uri.split_once('?').unwrap_or((self.uri, ""));
        let query = [query, more].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/{service}{mark}{query}", registry)
    }

    /// A new Pod for a server, and the addresses of its ports, which a Pod declares before.
    fn pod(&self, name: &str, id: &str) -> Option<(String, [String; 2])> {
        let (pod, ports) = (format!("{name}-{id}"), [servers::free_port(), servers::free_port()]);
        self.pods?.make_pod(&pod, &ports);
        Some((pod, ports.map(|port| format!("127.0.0.1:{port}"))))
    }

    fn kratos(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-registry", self.kind, "-at", self.at]).args(flags);
        command
    }

    fn serve(&self, name: &str, id: &str, flags: &[&str]) -> Daemon {
        let mut command = self.kratos(&[&["-name", name, "-id", id], flags].concat());
        if let Some((pod, [grpc, http])) = self.pod(name, id) {
            command.env("HOSTNAME", pod).args(["-address", &grpc, "-http-address", &http]);
        }
        Daemon::start(&command, &self.directory.path().join(format!("{id}.log")))
    }

    fn serve_ours(&self, name: &str, id: &str, flags: &[&str]) -> process::Server {
        match self.pod(name, id) {
            Some((pod, [grpc, _])) => {
                let registry = format!("{}&pod={pod}", self.uri);
                process::Server::start_as(name, &registry, id, &[&["--grpc", &*grpc], flags].concat())
            }
            None => process::Server::start_as(name, self.uri, id, flags),
        }
    }

    /// Who answered a client of Kratos's, and how often.
    fn call(&self, flags: &[&str]) -> BTreeMap<String, u64> {
        let output = self.kratos(flags).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}: {}", self.kind, String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

async fn shown(watch: &mut Watch, ids: &[&str]) -> Vec<ServiceInstance> {
    let found = async {
        loop {
            let view = watch.view();
            let set = view.snapshot().into_iter().flat_map(|set| set.instances());
            let set: Vec<_> = set.map(|one| ServiceInstance::clone(one)).collect();
            if set.iter().map(|one| one.id().as_str()).eq(ids.iter().copied()) {
                return set;
            }
            watch.next().await.unwrap();
        }
    };
    let found = timeout(Duration::from_secs(30), found).await;
    found.unwrap_or_else(|_| panic!("wanted {ids:?}, there is {:?}", watch.view()))
}

/// Both ways, with metadata, versions, HTTP endpoints, and over TLS.
async fn each_finds_the_other(place: &Place<'_>) {
    let registry: Registry = callsign::registry(place.uri).unwrap();
    let service: ServiceName = SERVICE.parse().unwrap();
    let mut watch = registry.discovery().watch(&service);

    // Ours reads Kratos's.
    let mut theirs =
        place.serve(SERVICE, "theirs", &["-metadata", "weight=70,zone=sh001", "-version", "v1.2.3", "-http"]);
    let found = shown(&mut watch, &["theirs"]).await;
    assert_eq!(found[0].version(), "v1.2.3");
    assert_eq!(found[0].metadata().get("zone").map(|zone| &**zone), Some("sh001"));
    let mut schemes: Vec<_> = found[0].addresses().iter().map(|address| address.to_string()).collect();
    schemes.sort();
    assert!(schemes[0].starts_with("grpc://127.0.0.1:") && schemes[1].starts_with("http://127.0.0.1:"), "{schemes:?}");

    let report = process::Client::start(&place.target(SERVICE, ""), &["--count", "20"]).report();
    assert!(report.status.success(), "{report:?}");
    assert_eq!(report.count("ok"), 20, "{report:?}");

    // Kratos's finds and calls ours; each in its turn.
    let mut ours = place.serve_ours(SERVICE, "ours", &["--version", "v2", "--drain", "0"]);
    shown(&mut watch, &["ours", "theirs"]).await;
    // Its first calls may all be made before it is connected to the second.
    let answered = place.call(&["-calls", "40", "-servers", "2"]);
    assert!(answered.values().sum::<u64>() >= 40, "{answered:?}");
    assert!(answered.contains_key("ours") && answered.contains_key("hello kratos from theirs"), "{answered:?}");

    // What stops is gone for the other.
    theirs.signal("TERM");
    shown(&mut watch, &["ours"]).await;
    assert_eq!(place.call(&["-calls", "10"]), BTreeMap::from([("ours".to_owned(), 10)]));
    ours.stop();
    shown(&mut watch, &[]).await;
    theirs.kill();

    // `grpcs`: Kratos takes the service's name for the certificate's.
    let secure = "echo.example";
    let mut watch = registry.discovery().watch(&secure.parse().unwrap());
    let mut theirs = place.serve(secure, "secure", &["-cert", CHAIN, "-key", KEY]);
    let found = shown(&mut watch, &["secure"]).await;
    assert!(found[0].addresses()[0].to_string().starts_with("grpcs://"), "{found:?}");
    let report = process::Client::start(&place.target(secure, &format!("tls={CA}")), &["--count", "5"]).report();
    assert_eq!(report.count("ok"), 5, "{report:?}");
    theirs.signal("TERM");
    shown(&mut watch, &[]).await;
    let mut ours = place.serve_ours(secure, "ours", &["--cert", CHAIN, "--key", KEY, "--drain", "0"]);
    assert!(ours.endpoints[0].starts_with("grpcs://"), "{:?}", ours.endpoints);
    let answered = place.call(&["-name", secure, "-calls", "5", "-ca", CA]);
    assert_eq!(answered, BTreeMap::from([("ours".to_owned(), 5)]));
    ours.stop();
    theirs.kill();
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread")]
async fn kratos_and_callsign_find_each_other_on_etcd() {
    let Some(etcd) = etcd::Etcd::start(1) else { return };
    let at = format!("127.0.0.1:{}", etcd.port(0));
    let uri = format!("etcd://{at}");
    let Some(place) = Place::new("etcd", &at, &uri) else { return };
    each_finds_the_other(&place).await;
}

#[cfg(feature = "consul")]
#[tokio::test(flavor = "multi_thread")]
async fn kratos_and_callsign_find_each_other_on_consul() {
    let Some(consul) = consul::Consul::start() else { return };
    let at = consul.address();
    let uri = format!("consul://{at}");
    let Some(place) = Place::new("consul", &at, &uri) else { return };
    each_finds_the_other(&place).await;
}

#[cfg(feature = "kubernetes")]
#[tokio::test(flavor = "multi_thread")]
async fn kratos_and_callsign_find_each_other_on_kubernetes() {
    let directory = TempDir::new();
    let Some(mut server) = KubeApiserver::start(directory.path()) else { return };
    server.wait();
    let at = server.kubeconfig("admin").display().to_string();
    let uri = format!("kubernetes://?mode=pods&kubeconfig={at}");
    let Some(place) = Place::new("kubernetes", &at, &uri) else { return };
    each_finds_the_other(&Place { pods: Some(&server), ..place }).await;
}

#[cfg(feature = "zookeeper")]
#[tokio::test(flavor = "multi_thread")]
async fn kratos_and_callsign_find_each_other_on_zookeeper() {
    let Some(zookeeper) = zookeeper::ZooKeeper::start(1) else { return };
    let at = zookeeper.members().join(",");
    let uri = format!("zookeeper://{at}");
    let Some(place) = Place::new("zookeeper", &at, &uri) else { return };
    each_finds_the_other(&place).await;
}
