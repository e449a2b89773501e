//! A Pod's labels and annotations ↔ an instance, as Kratos writes and reads them.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Kind, Result},
    instance::{Address, Scheme, ServiceInstance},
};

pub(super) const LABEL_ID: &str = "kratos-service-id";
pub(super) const LABEL_APP: &str = "kratos-service-app";
pub(super) const LABEL_VERSION: &str = "kratos-service-version";
pub(super) const NOTE_METADATA: &str = "kratos-service-metadata";
pub(super) const NOTE_PROTOCOLS: &str = "kratos-service-protocols";

/// Kubernetes' own limit on all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// What is read of any object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) resource_version: String,
    pub(super) deletion_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// What is read of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Option<Vec<Container>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    container_port: u16,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// Labels and annotations of a registered Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) id: String,
    pub(super) app: String,
    pub(super) version: String,
    pub(super) metadata: String,
    pub(super) protocols: String,
}

impl Marks {
    /// What marks a Pod as this instance.
    pub(super) fn of(instance: &ServiceInstance) -> Result<Self> {
        for (what, value) in [
            ("service name", instance.service().as_str()),
            ("instance id", instance.id().as_str()),
            ("version", instance.version()),
        ] {
            check_label(what, value)?;
        }
        let mut protocols = BTreeMap::new();
        for address in instance.addresses().iter() {
            let Some(port) = address.port() else {
                return Err(Error::invalid(format!("a Pod has no place for {address}: only ports are written there")));
            };
            let scheme = address.scheme().as_str();
            if protocols.insert(port.to_string(), scheme).is_some_and(|other| other != scheme) {
                return Err(Error::invalid(format!("port {port} has two schemes, and a Pod has room for one")));
            }
        }
        let json = instance.to_json();
        let wrong = |source| Error::with_source(Kind::Internal, "an instance's JSON is none", source);
        // Escaped as Go does it, by the one place that knows how.
        let metadata = slice_of(&json, "\"metadata\":", ",\"endpoints\":").unwrap_or("{}").to_owned();
        let protocols = serde_json::to_string(&protocols).map_err(wrong)?;
        if metadata.len() + protocols.len() > MAX_ANNOTATIONS - 1024 {
            let size = metadata.len();
            return Err(Error::invalid(format!("the metadata has {size} bytes as JSON, more than a Pod holds")));
        }
        let text = |text: &str| text.to_owned();
        let (id, app) = (text(instance.id().as_str()), text(instance.service().as_str()));
        Ok(Self { id, app, version: text(instance.version()), metadata, protocols })
    }

    /// What stays behind an instance that was taken out.
    pub(super) fn none() -> Self {
        let empty = String::new;
        Self { id: empty(), app: empty(), version: empty(), metadata: "{}".into(), protocols: "{}".into() }
    }

    /// What Kratos sends.
    pub(super) fn patch(&self) -> Value {
        json!({"metadata": {
            "labels": {LABEL_ID: self.id, LABEL_APP: self.app, LABEL_VERSION: self.version},
            "annotations": {NOTE_METADATA: self.metadata, NOTE_PROTOCOLS: self.protocols},
        }})
    }

    /// What a Pod has.
    pub(super) fn on(meta: &Meta) -> Self {
        let of = |map: &Option<BTreeMap<String, String>>, key: &str| {
            map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
        };
        Self {
            id: of(&meta.labels, LABEL_ID),
            app: of(&meta.labels, LABEL_APP),
            version: of(&meta.labels, LABEL_VERSION),
            metadata: of(&meta.annotations, NOTE_METADATA),
            protocols: of(&meta.annotations, NOTE_PROTOCOLS),
        }
    }
}

fn slice_of<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let begin = text.find(from)? + from.len();
    let end = text.rfind(to)?;
    text.get(begin..end)
}

impl Pod {
    pub(super) fn read(object: Value) -> Result<Self> {
        serde_json::from_value(object).map_err(|source| Error::with_source(Kind::Corrupt, "this is no Pod", source))
    }

    /// The first port that no container declares: readers take no others.
    pub(super) fn undeclared(&self, instance: &ServiceInstance) -> Option<u16> {
        let declared: Vec<_> = self.ports().map(|port| port.container_port).collect();
        instance.addresses().iter().filter_map(Address::port).find(|port| !declared.contains(port))
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.spec.containers.iter().flatten().flat_map(|container| container.ports.iter().flatten())
    }

    /// Whether it takes calls: running, ready, and not on its way out.
    pub(super) fn is_serving(&self) -> bool {
        let ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        self.status.phase == "Running"
            && self.metadata.deletion_timestamp.is_none()
            && self.status.conditions.iter().flatten().any(ready)
    }

    /// The instance that it says it is.
    pub(super) fn instance(&self) -> Result<Arc<ServiceInstance>> {
        let marks = Marks::on(&self.metadata);
        let id = if marks.id.is_empty() { &self.metadata.name } else { &marks.id };
        let protocols: BTreeMap<String, String> = annotation(NOTE_PROTOCOLS, &marks.protocols)?;
        let metadata: BTreeMap<String, String> = annotation(NOTE_METADATA, &marks.metadata)?;
        let host = self.status.pod_ip.as_deref().unwrap_or_default();
        let corrupt = |error| Error::with_source(Kind::Corrupt, "this is no instance", error);
        let mut builder = ServiceInstance::builder(&marks.app, id).map_err(corrupt)?.version(marks.version);
        for (key, value) in metadata {
            builder = builder.metadata(key, value);
        }
        let mut addresses = Vec::new();
        for port in self.ports() {
            let named = port.name.as_deref().and_then(|name| name.split('-').next());
            let protocol = protocols.get(&port.container_port.to_string()).map(String::as_str).or(named);
            let scheme = match protocol {
                Some("grpc") => Scheme::Grpc,
                Some("grpcs") => Scheme::Grpcs,
                Some("http") => Scheme::Http,
                Some("https") => Scheme::Https,
                // Of no scheme that is called here: left out, as elsewhere.
                _ => continue,
            };
            addresses.extend(Address::tcp(scheme, host, port.container_port));
        }
        builder.found_at(addresses)?.build().map(Arc::new).map_err(corrupt)
    }
}

/// The JSON of an annotation; absent, empty and `null` are all an empty map.
fn annotation(name: &str, text: &str) -> Result<BTreeMap<String, String>> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let map: Option<BTreeMap<String, String>> = serde_json::from_str(text)
        .map_err(|source| Error::with_source(Kind::Corrupt, format!("its annotation {name} makes no sense"), source))?;
    Ok(map.unwrap_or_default())
}

/// Refuses what Kubernetes would not take as a label, or as a selector would misread.
pub(super) fn check_label(what: &str, value: &str) -> Result<()> {
    let alphanumeric = |char: Option<char>| char.is_none_or(|char| char.is_ascii_alphanumeric());
    let inside = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let ends = alphanumeric(value.chars().next()) && alphanumeric(value.chars().next_back());
    if value.len() <= 63 && inside && ends {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the {what} {value:?} cannot be a label of a Pod: at most 63 letters, digits, `-`, `_` and `.`, beginning and \
         ending with a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../../tests/data/kubernetes/patch.json");

    fn built(id: &str, version: &str) -> ServiceInstance {
        let builder = ServiceInstance::builder("helloworld", id).expect("valid").version(version);
        let builder = builder.metadata("zone", "sh001").address("grpc://10.0.0.5:9000".parse().expect("valid"));
        builder.address("http://10.0.0.5:8000".parse().expect("valid")).build().expect("small")
    }

    /// Annotations as what they mean: the order of their keys changes from run to run in Kratos.
    fn meaning(mut patch: Value) -> Value {
        if let Some(metadata) = patch["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        }
        for (_, text) in patch["metadata"]["annotations"].as_object_mut().expect("a map") {
            *text = serde_json::from_str(text.as_str().expect("text")).expect("JSON");
        }
        patch
    }

    #[test]
    fn the_patch_is_what_kratos_sends() {
        let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
        let patch = Marks::of(&built("inst-a", "v1.2.3")).expect("valid").patch();
        assert_eq!(patch["metadata"]["annotations"][NOTE_METADATA], recorded["metadata"]["annotations"][NOTE_METADATA]);
        assert_eq!(meaning(patch), meaning(recorded));
        let odd = built("a", "").to_builder().metadata("note", "<a&b> \"q\"").build().expect("small");
        let marks = Marks::of(&odd).expect("valid");
        assert_eq!(marks.metadata, r#"{"note":"\u003ca\u0026b\u003e \"q\"","zone":"sh001"}"#);
        let bare = ServiceInstance::builder("s", "a").and_then(|builder| builder.build()).expect("valid");
        assert_eq!(Marks::of(&bare).expect("valid").metadata, "{}");
    }

    fn pod(recorded: &str) -> Value {
        let mut pod: Value = serde_json::from_str(recorded).expect("JSON");
        pod["metadata"]["name"] = "p".into();
        pod["spec"] = json!({"containers": [{"ports": [
            {"containerPort": 9000}, {"containerPort": 8000, "name": "x"}, {"containerPort": 1, "name": "metrics-1"},
            {"containerPort": 9001, "name": "grpc-api"}, {"containerPort": 2}]}]});
        pod["status"] = json!({"phase": "Running", "podIP": "10.0.0.5",
            "conditions": [{"type": "Ready", "status": "True"}]});
        pod
    }

    #[test]
    fn what_kratos_wrote_reads_back() {
        let read = Pod::read(pod(RECORDED)).expect("a Pod");
        assert!(read.is_serving());
        let instance = read.instance().expect("an instance");
        let expected = built("inst-a", "v1.2.3").to_builder().address("grpc://10.0.0.5:9001".parse().expect("valid"));
        assert_eq!(*instance, expected.build().expect("small"));
        assert_eq!(read.undeclared(&built("a", "")), None);

        let mut null = pod(RECORDED);
        null["metadata"]["annotations"][NOTE_METADATA] = "null".into();
        assert!(Pod::read(null).expect("a Pod").instance().expect("an instance").metadata().is_empty());
        let only_label = json!({"metadata": {"name": "p", "labels": {LABEL_APP: "s"}}});
        assert_eq!(Pod::read(only_label).expect("a Pod").instance().expect("an instance").id().as_str(), "p");
    }

    /// Kratos panics in every client there (K3, W4).
    #[test]
    fn a_bad_annotation_costs_only_its_pod() {
        for bad in ["{", "[]", "7", r#"{"a":1}"#] {
            let mut pod = pod(RECORDED);
            pod["metadata"]["annotations"][NOTE_PROTOCOLS] = bad.into();
            let error = Pod::read(pod).expect("a Pod").instance().expect_err("no map");
            assert!(error.to_string().contains(NOTE_PROTOCOLS), "{error}");
        }
    }

    /// Kratos lists Pods that are not ready, and those on their way out (K5, W7).
    #[test]
    fn a_pod_that_is_not_ready_or_terminates_does_not_serve() {
        let mut terminating = pod(RECORDED);
        terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut unready = pod(RECORDED);
        unready["status"]["conditions"][0]["status"] = "False".into();
        let mut pending = pod(RECORDED);
        pending["status"]["phase"] = "Pending".into();
        for one in [terminating, unready, pending] {
            assert!(!Pod::read(one).expect("a Pod").is_serving());
        }
    }

    /// W9: `v1.0.0+build` and `h/1` end a Kratos application with 422.
    #[test]
    fn what_cannot_be_a_label_is_refused_with_the_rule() {
        for (id, version) in [("h/1", ""), ("a", "v1.0.0+build"), ("-a", ""), ("a.", ""), (&"x".repeat(64), "")] {
            let error = Marks::of(&built(id, version)).expect_err("no label");
            assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("63"), "{error}");
        }
        let twice = built("a", "").to_builder().address("http://h:9000".parse().expect("valid")).build();
        assert!(Marks::of(&twice.expect("small")).is_err());
        let unix = built("a", "").to_builder().address("unix:///s".parse().expect("valid")).build();
        assert!(Marks::of(&unix.expect("small")).is_err());
    }
}
