//! A registration, as agents take it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::Tagged;
use crate::{
    error::{Error, Kind, Result},
    instance::{Address, ServiceInstance},
};

/// What keeps an instance in the catalog's passing part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsulCheck {
    /// Renewals of the lease: always there, whatever else is.
    Ttl,
    /// The agent connects to each address.
    Tcp,
    /// The agent asks gRPC's health service at each gRPC address, with TLS where that says so.
    Grpc,
    /// The agent asks with GET at each HTTP address for the [path](crate::registry::ConsulBuilder::check_path) that is set:
    /// 2xx passes.
    Http,
    /// Byte for byte what Kratos registers: TCP and TTL, both critical at first.
    Kratos,
}

/// How an instance is registered.
#[derive(Debug, Clone)]
pub(in crate::registry::consul) struct Shape {
    pub(in crate::registry::consul) ttl: Duration,
    pub(in crate::registry::consul) checks: Vec<ConsulCheck>,
    /// How often the agent's own checks run.
    pub(in crate::registry::consul) interval: Duration,
    /// What HTTP checks ask for, from its slash on.
    pub(in crate::registry::consul) path: String,
    pub(in crate::registry::consul) deregister_after: Duration,
    pub(in crate::registry::consul) tags: Vec<String>,
    /// Whether ids carry the service's name.
    pub(in crate::registry::consul) qualified: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Registered<'a> {
    #[serde(rename = "ID")]
    id: String,
    name: &'a str,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    port: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<String, Tagged>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<&'a str, &'a str>,
    check: Option<()>,
    checks: Vec<Check>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// The fields in the order of Go's client.
#[derive(Serialize, Default)]
struct Check {
    #[serde(rename = "CheckID", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "Interval", skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(rename = "Timeout", skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "Status", skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(rename = "Notes", skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "Option::is_none")]
    grpc_tls: Option<bool>,
    #[serde(rename = "TLSServerName", skip_serializing_if = "Option::is_none")]
    tls_name: Option<String>,
    #[serde(rename = "DeregisterCriticalServiceAfter")]
    deregister_after: String,
}

/// How long the agent's own checks wait, as Kratos sets it.
const CHECK_TIMEOUT: &str = "5s";

impl Shape {
    /// The id by which Consul knows an instance: one space for all services of an agent.
    pub(in crate::registry::consul) fn id(&self, instance: &ServiceInstance) -> String {
        let (id, service) = (instance.id().as_str(), instance.service().as_str());
        if self.qualified { format!("{id}@{service}") } else { id.to_owned() }
    }

    /// The body of a registration; `owner` stands in the notes of its TTL check.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if Consul could not hold it.
    pub(in crate::registry::consul) fn encode(&self, instance: &ServiceInstance, owner: &str) -> Result<Vec<u8>> {
        check_limits(instance)?;
        let addresses = instance.addresses();
        let first = addresses.first();
        let mut tagged = BTreeMap::new();
        for address in addresses.iter() {
            let scheme = address.scheme().as_str();
            let mut key = scheme.to_owned();
            // Two of one scheme: readers take any key.
            for n in 2.. {
                if !tagged.contains_key(&key) {
                    break;
                }
                key = format!("{scheme}-{n}");
            }
            let port = address.port().unwrap_or_default().into();
            tagged.insert(key, Tagged { address: address.to_string(), port });
        }
        let id = self.id(instance);
        let registered = Registered {
            name: instance.service().as_str(),
            tags: [format!("version={}", instance.version())].into_iter().chain(self.tags.iter().cloned()).collect(),
            port: first.and_then(Address::port).unwrap_or_default(),
            address: first.and_then(Address::host).unwrap_or_default(),
            tagged_addresses: tagged,
            meta: instance.metadata().iter().map(|(key, value)| (&**key, &**value)).collect(),
            check: None,
            checks: self.checks(instance, &id, owner),
            id,
        };
        serde_json::to_vec(&registered)
            .map_err(|source| Error::with_source(Kind::Internal, "an instance cannot be written", source))
    }

    fn checks(&self, instance: &ServiceInstance, id: &str, owner: &str) -> Vec<Check> {
        let of_agent = || Check {
            interval: Some(go(self.interval)),
            timeout: Some(CHECK_TIMEOUT.to_owned()),
            deregister_after: go(self.deregister_after),
            ..Check::default()
        };
        let kratos = self.checks.contains(&ConsulCheck::Kratos);
        // We are accepting, or would not register.
        let status = (!kratos).then_some("passing");
        let mut checks = Vec::new();
        for address in instance.addresses().iter() {
            let at = address.authority().to_string();
            let wants = |check: ConsulCheck| self.checks.contains(&check);
            if kratos || wants(ConsulCheck::Tcp) {
                checks.push(Check { tcp: Some(at.clone()), status, ..of_agent() });
            }
            // Certificates are for the service's name, not for addresses.
            let tls_name = || address.scheme().is_secure().then(|| instance.service().to_string());
            if address.scheme().is_grpc() && wants(ConsulCheck::Grpc) {
                let grpc_tls = address.scheme().is_secure().then_some(true);
                checks.push(Check { grpc: Some(at.clone()), grpc_tls, tls_name: tls_name(), status, ..of_agent() });
            }
            if !address.scheme().is_grpc() && wants(ConsulCheck::Http) {
                let http = format!("{}://{at}{}", address.scheme(), self.path);
                checks.push(Check { http: Some(http), tls_name: tls_name(), status, ..of_agent() });
            }
        }
        checks.push(Check {
            id: Some(check_id(id)),
            ttl: Some(go(self.ttl)),
            status,
            notes: (!kratos).then(|| owner.to_owned()),
            deregister_after: go(self.deregister_after),
            ..Check::default()
        });
        checks
    }
}

/// The TTL check of a service, as Kratos names it.
pub(in crate::registry::consul) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

/// A time as Go reads it.
fn go(time: Duration) -> String {
    if time.subsec_nanos() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

/// [Consul's own](https://developer.hashicorp.com/consul/api-docs/agent/service#meta), told before asking.
fn check_limits(instance: &ServiceInstance) -> Result<()> {
    let wrong = |why: String| Err(Error::invalid(format!("Consul cannot hold {}: {why}", instance.id())));
    let metadata = instance.metadata();
    if metadata.len() > 64 {
        return wrong(format!("it has {} entries of metadata, and 64 are the most", metadata.len()));
    }
    for (key, value) in metadata {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if key.is_empty() || key.len() > 128 || !key.bytes().all(allowed) || key.starts_with("consul-") {
            return wrong(format!(
                "the key {key:?} of its metadata: keys have 1 to 128 of A-Z, a-z, 0-9, _ and -, and do not begin with \
                 consul-"
            ));
        }
        if value.len() > 512 {
            return wrong(format!("the value of {key:?} has {} bytes, and 512 are the most", value.len()));
        }
    }
    if let Some(unix) = instance.addresses().iter().find(|address| address.path().is_some()) {
        return wrong(format!("its address {unix} is no host and port"));
    }
    Ok(())
}
