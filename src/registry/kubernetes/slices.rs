//! EndpointSlices of a Service → instances.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::codec::Meta;
use crate::{
    error::{Error, Kind, Result},
    instance::{Address, Scheme, ServiceInstance, ServiceName, Status},
};

/// What a name asks for: `service`, `service.namespace`, `service.namespace.svc…`, each with `:port` or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) service: String,
    pub(super) namespace: Option<String>,
    port: Option<String>,
}

impl Query {
    pub(super) fn parse(name: &ServiceName) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid(format!("{name} names no Kubernetes service: {why}; write it as service.namespace:port"))
        };
        let (host, port) =
            name.as_str().split_once(':').map_or((name.as_str(), None), |(host, port)| (host, Some(port)));
        let mut labels = host.split('.');
        let service = labels.next().unwrap_or_default();
        let namespace = labels.next();
        if !is_dns_label(service) || !namespace.is_none_or(is_dns_label) {
            return Err(wrong("lower case letters, digits and `-` are allowed"));
        }
        if labels.next().is_some_and(|svc| svc != "svc") {
            return Err(wrong("behind the namespace there is `svc` or nothing"));
        }
        if !port.is_none_or(is_dns_label) {
            return Err(wrong("the port is no number and no name of one"));
        }
        let owned = |text: &str| text.to_owned();
        Ok(Self { service: owned(service), namespace: namespace.map(owned), port: port.map(owned) })
    }
}

pub(super) fn is_dns_label(text: &str) -> bool {
    let inside = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    !text.is_empty() && text.len() <= 63 && inside && !text.starts_with('-') && !text.ends_with('-')
}

/// How endpoints are chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    pub(super) secure: bool,
    pub(super) ipv6_first: bool,
    pub(super) hint_zone: Option<String>,
    pub(super) hint_node: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Meta,
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    target_ref: Option<TargetRef>,
    node_name: Option<String>,
    zone: Option<String>,
    hints: Option<Hints>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    name: String,
    uid: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

impl Slice {
    pub(super) fn read(object: Value) -> Result<Self> {
        serde_json::from_value(object)
            .map_err(|source| Error::with_source(Kind::Corrupt, "this is no EndpointSlice", source))
    }

    /// The port to call in this slice: slices of one service may have different numbers.
    fn port(&self, wanted: Option<&str>) -> Result<u16> {
        let tcp = |port: &&Port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let ports: Vec<&Port> = self.ports.iter().flatten().filter(tcp).collect();
        let speaks = |port: &&&Port| matches!(port.app_protocol.as_deref(), Some("kubernetes.io/h2c" | "grpc"));
        let one = |mut found: Vec<&Port>| if found.len() == 1 { found.pop().and_then(|port| port.port) } else { None };
        let number = wanted.and_then(|wanted| wanted.parse::<u16>().ok()).filter(|number| *number > 0);
        let found = match (wanted, number) {
            (_, Some(number)) => ports.iter().find(|port| port.port.is_none_or(|port| port == number)).map(|_| number),
            (Some(name), None) => {
                ports.iter().find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.port)
            }
            (None, None) if ports.len() == 1 => ports[0].port,
            (None, None) => one(ports.iter().filter(speaks).copied().collect()),
        };
        found.ok_or_else(|| {
            let all = ports.iter().map(|port| {
                let number = port.port.map_or_else(|| "any".to_owned(), |port| port.to_string());
                format!("{} {number}", port.name.as_deref().unwrap_or("unnamed"))
            });
            let all: Vec<_> = all.collect();
            let why = match wanted {
                Some(wanted) => format!("no port {wanted}"),
                None => {
                    "no single port, nor one with appProtocol kubernetes.io/h2c: name it as service:port".to_owned()
                }
            };
            Error::new(Kind::Corrupt, format!("it has {why}; there are: {}", all.join(", ")))
        })
    }
}

/// An endpoint that could be called.
struct Found<'a> {
    endpoint: &'a Endpoint,
    address: &'a str,
    port: u16,
    ready: bool,
    preferred: bool,
}

/// All instances in all slices, and which slices or endpoints are skipped and why.
pub(super) fn merge<'a>(
    service: &ServiceName,
    slices: impl IntoIterator<Item = &'a Slice>,
    query: &Query,
    choice: &Choice,
) -> (Vec<Arc<ServiceInstance>>, BTreeMap<String, Error>) {
    let (mut found, mut skipped) = (BTreeMap::<&str, Found<'_>>::new(), BTreeMap::new());
    for slice in slices {
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        if endpoints.is_empty() || slice.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let port = match slice.port(query.port.as_deref()) {
            Ok(port) => port,
            Err(error) => {
                skipped.insert(slice.metadata.name.clone(), error);
                continue;
            }
        };
        let preferred = (slice.address_type == "IPv6") == choice.ipv6_first;
        for endpoint in endpoints {
            let Some(address) = endpoint.addresses.as_deref().and_then(<[String]>::first) else { continue };
            let conditions = endpoint.conditions.unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            let drains = conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false);
            if !ready && !drains {
                continue;
            }
            let uid = endpoint.target_ref.as_ref().map(|target| target.uid.as_str()).filter(|uid| !uid.is_empty());
            let one = Found { endpoint, address, port, ready, preferred };
            let held = found.get(uid.unwrap_or(address));
            if held.is_none_or(|held| (one.ready, one.preferred) > (held.ready, held.preferred)) {
                found.insert(uid.unwrap_or(address), one);
            }
        }
    }
    // As kube-proxy does: who is on its way out is taken only where nobody else is left.
    if found.values().any(|one| one.ready) {
        found.retain(|_, one| one.ready);
    }
    let mut usable: Vec<_> = found.into_values().collect();
    by_hints(&mut usable, choice);
    let scheme = if choice.secure { Scheme::Grpcs } else { Scheme::Grpc };
    let mut instances = Vec::with_capacity(usable.len());
    for one in usable {
        match one.instance(service, scheme) {
            Ok(instance) => instances.push(Arc::new(instance)),
            Err(error) => drop(skipped.insert(one.address.to_owned(), error)),
        }
    }
    (instances, skipped)
}

/// Keeps those meant for our node, or our zone, if all have such hints and some are for us.
fn by_hints(usable: &mut Vec<Found<'_>>, choice: &Choice) {
    type Of = fn(&Hints) -> &Option<Vec<Named>>;
    let of: [(&Option<String>, Of); 2] =
        [(&choice.hint_node, |hints| &hints.for_nodes), (&choice.hint_zone, |hints| &hints.for_zones)];
    for (ours, of) in of {
        let Some(ours) = ours else { continue };
        let hints =
            |one: &Found<'_>| one.endpoint.hints.as_ref().and_then(|hints| of(hints).clone()).unwrap_or_default();
        let is_ours = |one: &Found<'_>| hints(one).iter().any(|hint| hint.name == *ours);
        if usable.iter().all(|one| !hints(one).is_empty()) && usable.iter().any(is_ours) {
            usable.retain(is_ours);
            return;
        }
    }
}

impl Found<'_> {
    fn instance(&self, service: &ServiceName, scheme: Scheme) -> Result<ServiceInstance> {
        let name = self.endpoint.target_ref.as_ref().map(|target| target.name.as_str()).filter(|name| !name.is_empty());
        let mut builder = ServiceInstance::builder(service, name.unwrap_or(self.address))?
            .address(Address::tcp(scheme, self.address, self.port)?)
            .status(if self.ready { Status::Up } else { Status::Draining });
        if let Some(zone) = &self.endpoint.zone {
            builder = builder.zone(zone.as_str());
        }
        if let Some(node) = &self.endpoint.node_name {
            builder = builder.metadata("node", node.as_str());
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests;
