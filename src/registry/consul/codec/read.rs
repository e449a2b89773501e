//! The catalog's entries, ours and those of others.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::Tagged;
use crate::{
    error::{Error, Kind, Result},
    instance::{Address, Scheme, ServiceInstance, ServiceName},
};

/// What is asked of the catalog's entries.
#[derive(Debug, Clone)]
pub(in crate::registry::consul) struct Reading {
    /// Of addresses that do not say.
    pub(in crate::registry::consul) scheme: Scheme,
    /// Put into the metadata as `dc`.
    pub(in crate::registry::consul) datacenter: bool,
    /// So many instances are taken in.
    pub(in crate::registry::consul) most: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(alias = "node")]
    node: Option<Node>,
    #[serde(alias = "service")]
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default, alias = "address")]
    address: String,
    #[serde(default, alias = "datacenter")]
    datacenter: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID", alias = "id", alias = "Id")]
    id: String,
    #[serde(alias = "service")]
    service: String,
    #[serde(default, alias = "tags")]
    tags: Option<Vec<String>>,
    #[serde(default, alias = "address")]
    address: String,
    #[serde(default, alias = "port")]
    port: i64,
    #[serde(default, alias = "ports")]
    ports: Option<Vec<Port>>,
    #[serde(default, alias = "taggedaddresses", alias = "taggedAddresses")]
    tagged_addresses: Option<BTreeMap<String, Tagged>>,
    #[serde(default, alias = "meta")]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default, alias = "weights")]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(default, alias = "port")]
    port: i64,
    #[serde(default, alias = "default")]
    default: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default, alias = "passing")]
    passing: i64,
}

/// One service's passing entries: instances, and what is none by its id and why.
pub(in crate::registry::consul) type Read = (Vec<Arc<ServiceInstance>>, BTreeMap<String, Error>);

impl Reading {
    /// Reads the answer to a question for one service.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`] if it is no list at all.
    pub(in crate::registry::consul) fn decode(&self, service: &ServiceName, body: &[u8]) -> Result<Read> {
        // Whole entries first: a bad one costs only itself.
        let entries: Option<Vec<&RawValue>> = serde_json::from_slice(body)
            .map_err(|source| Error::with_source(Kind::Corrupt, "Consul's answer is no list of services", source))?;
        let (mut instances, mut skipped) = (Vec::new(), BTreeMap::new());
        for entry in entries.unwrap_or_default() {
            match self.entry(service, entry.get()) {
                Ok(instance) => instances.extend(instance.map(Arc::new)),
                Err(error) => drop(skipped.insert(id_of(entry.get()), error)),
            }
            if instances.len() > self.most {
                let error = Error::new(Kind::Exhausted, format!("there are more than {} instances", self.most));
                skipped.insert("*".to_owned(), error);
                instances.truncate(self.most);
                break;
            }
        }
        Ok((instances, skipped))
    }

    /// None if it is another service's: Consul takes names that differ in case for one.
    fn entry(&self, service: &ServiceName, entry: &str) -> Result<Option<ServiceInstance>> {
        let Entry { node, service: found } = serde_json::from_str(entry)
            .map_err(|source| Error::with_source(Kind::Corrupt, "this is no service of Consul's", source))?;
        if found.service != service.as_str() {
            return Ok(None);
        }
        let corrupt = |error| Error::with_source(Kind::Corrupt, "this is no instance", error);
        let id = found.id.strip_suffix(service.as_str()).and_then(|id| id.strip_suffix('@')).unwrap_or(&found.id);
        let mut builder = ServiceInstance::builder(service.as_str(), id).map_err(corrupt)?;
        let mut versions = found.tags.iter().flatten().filter_map(|tag| tag.strip_prefix("version="));
        builder = builder.version(versions.next_back().unwrap_or_default());
        let metadata = found.meta.unwrap_or_default();
        if let Some(Weights { passing }) = found.weights
            && passing > 1
            && !metadata.contains_key("weight")
        {
            builder = builder.metadata("weight", passing.to_string());
        }
        for (key, value) in metadata {
            builder = builder.metadata(key, value);
        }
        let node = node.unwrap_or(Node { address: String::new(), datacenter: String::new() });
        if self.datacenter {
            builder = builder.metadata("dc", node.datacenter);
        }
        let tagged = found.tagged_addresses.unwrap_or_default();
        let own = tagged.iter().filter(|(key, _)| !is_agents_own(key));
        let mut addresses: Vec<Address> = own.filter_map(|(_, tagged)| tagged.address.parse().ok()).collect();
        if addresses.is_empty() {
            // A service that is not ours nor Kratos's.
            let host = if found.address.is_empty() { &node.address } else { &found.address };
            let ports = found.ports.unwrap_or_default();
            let default = ports.iter().find(|port| port.default).or_else(|| ports.first());
            let port = if found.port == 0 { default.map_or(0, |port| port.port) } else { found.port };
            let port = u16::try_from(port).ok().filter(|port| *port > 0);
            addresses.extend(port.and_then(|port| Address::tcp(self.scheme, host, port).ok()));
        }
        // gRPC first: Kratos takes the first.
        addresses.sort_by_key(|address| !address.scheme().is_grpc());
        builder.found_at(addresses)?.build().map(Some).map_err(corrupt)
    }
}

/// The id in what is no entry, for whom is told of it.
fn id_of(entry: &str) -> String {
    let entry: Value = serde_json::from_str(entry).unwrap_or_default();
    entry["Service"]["ID"].as_str().unwrap_or("?").chars().take(128).collect()
}

/// What the agent puts beside a service's own addresses.
fn is_agents_own(key: &str) -> bool {
    matches!(key, "lan_ipv4" | "wan_ipv4" | "lan_ipv6" | "wan_ipv6" | "lan" | "wan")
}
