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
struct Wire {
    metadata: Meta,
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

/// What a slice says, read once: neither its JSON nor its instances are made again when another changes.
pub(super) struct Slice {
    /// Why none of it is used.
    skipped: Option<Error>,
    endpoints: Vec<Found>,
}

/// An endpoint that could be called.
struct Found {
    /// The same for one endpoint in several slices.
    key: String,
    address: String,
    ready: bool,
    preferred: bool,
    node: Hint,
    zone: Hint,
    instance: Result<Arc<ServiceInstance>>,
}

/// Whom an endpoint is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    Nobody,
    Others,
    Us,
}

impl Hint {
    fn of(hints: Option<&Vec<Named>>, ours: Option<&String>) -> Self {
        match hints.map_or(&[][..], Vec::as_slice) {
            [] => Self::Nobody,
            hints if hints.iter().any(|hint| Some(&hint.name) == ours) => Self::Us,
            _ => Self::Others,
        }
    }
}

impl Slice {
    pub(super) fn read(object: Value, service: &ServiceName, query: &Query, choice: &Choice) -> Result<Self> {
        let wire: Wire = serde_json::from_value(object)
            .map_err(|source| Error::with_source(Kind::Corrupt, "this is no EndpointSlice", source))?;
        let endpoints = wire.endpoints.as_deref().unwrap_or_default();
        if endpoints.is_empty() || wire.metadata.deletion_timestamp.is_some() {
            return Ok(Self { skipped: None, endpoints: Vec::new() });
        }
        let port = match wire.port(query.port.as_deref()) {
            Ok(port) => port,
            Err(error) => return Ok(Self { skipped: Some(error), endpoints: Vec::new() }),
        };
        let preferred = (wire.address_type == "IPv6") == choice.ipv6_first;
        let found = endpoints.iter().filter_map(|endpoint| endpoint.found(service, choice, port, preferred));
        Ok(Self { skipped: None, endpoints: found.collect() })
    }
}

impl Endpoint {
    fn found(&self, service: &ServiceName, choice: &Choice, port: u16, preferred: bool) -> Option<Found> {
        let address = self.addresses.as_deref()?.first()?;
        let conditions = self.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let drains = conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false);
        if !ready && !drains {
            return None;
        }
        let of_target =
            |text: fn(&TargetRef) -> &String| self.target_ref.as_ref().map(text).filter(|text| !text.is_empty());
        let scheme = if choice.secure { Scheme::Grpcs } else { Scheme::Grpc };
        let instance = || {
            let id = of_target(|target| &target.name).unwrap_or(address);
            let mut builder = ServiceInstance::builder(service, id)?
                .address(Address::tcp(scheme, address, port)?)
                .status(if ready { Status::Up } else { Status::Draining });
            if let Some(zone) = &self.zone {
                builder = builder.zone(zone.as_str());
            }
            if let Some(node) = &self.node_name {
                builder = builder.metadata("node", node.as_str());
            }
            builder.build().map(Arc::new)
        };
        let hints = self.hints.as_ref();
        Some(Found {
            key: of_target(|target| &target.uid).unwrap_or(address).clone(),
            address: address.clone(),
            ready,
            preferred,
            node: Hint::of(hints.and_then(|hints| hints.for_nodes.as_ref()), choice.hint_node.as_ref()),
            zone: Hint::of(hints.and_then(|hints| hints.for_zones.as_ref()), choice.hint_zone.as_ref()),
            instance: instance(),
        })
    }
}

impl Wire {
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

/// All instances in all slices, and which slices or endpoints are skipped and why.
pub(super) fn merge<'a>(
    slices: impl IntoIterator<Item = (&'a String, &'a Slice)>,
) -> (Vec<Arc<ServiceInstance>>, BTreeMap<String, Error>) {
    let (mut found, mut skipped) = (BTreeMap::<&str, &Found>::new(), BTreeMap::new());
    for (name, slice) in slices {
        if let Some(error) = &slice.skipped {
            skipped.insert(name.clone(), error.clone());
        }
        for one in &slice.endpoints {
            let held = found.entry(&one.key).or_insert(one);
            if (one.ready, one.preferred) > (held.ready, held.preferred) {
                *held = one;
            }
        }
    }
    // As kube-proxy does: who is on its way out is taken only where nobody else is left.
    if found.values().any(|one| one.ready) {
        found.retain(|_, one| one.ready);
    }
    let mut usable: Vec<_> = found.into_values().collect();
    by_hints(&mut usable);
    let mut instances = Vec::with_capacity(usable.len());
    for one in usable {
        match &one.instance {
            Ok(instance) => instances.push(instance.clone()),
            Err(error) => drop(skipped.insert(one.address.clone(), error.clone())),
        }
    }
    (instances, skipped)
}

/// Keeps those meant for our node, or our zone, if all have such hints and some are for us.
fn by_hints(usable: &mut Vec<&Found>) {
    for of in [|one: &Found| one.node, |one: &Found| one.zone] {
        if usable.iter().all(|one| of(one) != Hint::Nobody) && usable.iter().any(|one| of(one) == Hint::Us) {
            usable.retain(|one| of(one) == Hint::Us);
            return;
        }
    }
}

#[cfg(test)]
mod tests;
