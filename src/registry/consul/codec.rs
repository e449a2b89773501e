//! Consul's JSON of a service: what agents take, and what the catalog tells.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::{Error, Kind, Result},
    instance::{Address, Scheme, ServiceInstance, ServiceName},
};

/// What keeps an instance in the catalog's passing part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsulCheck {
    /// Renewals of the lease: always there, whatever else is.
    Ttl,
    /// The agent connects to each address.
    Tcp,
    /// The agent asks gRPC's health service at each gRPC address.
    Grpc,
    /// The agent asks `GET /` at each HTTP address.
    Http,
    /// Byte for byte what Kratos registers: TCP and TTL, both critical at first.
    Kratos,
}

/// How an instance is registered.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) ttl: Duration,
    pub(super) checks: Vec<ConsulCheck>,
    /// How often the agent's own checks run.
    pub(super) interval: Duration,
    pub(super) deregister_after: Duration,
    pub(super) tags: Vec<String>,
    /// Whether ids carry the service's name.
    pub(super) qualified: bool,
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

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    #[serde(default, alias = "address")]
    address: String,
    #[serde(default, alias = "port")]
    port: i64,
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
    #[serde(rename = "DeregisterCriticalServiceAfter")]
    deregister_after: String,
}

/// How long the agent's own checks wait, as Kratos sets it.
const CHECK_TIMEOUT: &str = "5s";

impl Shape {
    /// The id by which Consul knows an instance: one space for all services of an agent.
    pub(super) fn id(&self, instance: &ServiceInstance) -> String {
        let (id, service) = (instance.id().as_str(), instance.service().as_str());
        if self.qualified { format!("{id}@{service}") } else { id.to_owned() }
    }

    /// The body of a registration; `owner` stands in the notes of its TTL check.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if Consul could not hold it.
    pub(super) fn encode(&self, instance: &ServiceInstance, owner: &str) -> Result<Vec<u8>> {
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
            if address.scheme().is_grpc() && wants(ConsulCheck::Grpc) {
                let grpc_tls = address.scheme().is_secure().then_some(true);
                checks.push(Check { grpc: Some(at.clone()), grpc_tls, status, ..of_agent() });
            }
            if !address.scheme().is_grpc() && wants(ConsulCheck::Http) {
                checks.push(Check { http: Some(format!("{}://{at}/", address.scheme())), status, ..of_agent() });
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
pub(super) fn check_id(id: &str) -> String {
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

/// What is asked of the catalog's entries.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// Of addresses that do not say.
    pub(super) scheme: Scheme,
    /// Put into the metadata as `dc`.
    pub(super) datacenter: bool,
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
pub(super) type Read = (Vec<Arc<ServiceInstance>>, BTreeMap<String, Error>);

impl Reading {
    /// Reads the answer to a question for one service.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`] if it is no list at all.
    pub(super) fn decode(&self, service: &ServiceName, body: &[u8]) -> Result<Read> {
        let entries: Option<Vec<Value>> = serde_json::from_slice(body)
            .map_err(|source| Error::with_source(Kind::Corrupt, "Consul's answer is no list of services", source))?;
        let (mut instances, mut skipped) = (Vec::new(), BTreeMap::new());
        for entry in entries.unwrap_or_default() {
            let name = entry["Service"]["ID"].as_str().unwrap_or("?").chars().take(128).collect();
            match self.entry(service, entry) {
                Ok(instance) => instances.extend(instance.map(Arc::new)),
                Err(error) => drop(skipped.insert(name, error)),
            }
            if instances.len() > MOST {
                let error = Error::new(Kind::Exhausted, format!("there are more than {MOST} instances"));
                skipped.insert("*".to_owned(), error);
                instances.truncate(MOST);
                break;
            }
        }
        Ok((instances, skipped))
    }

    /// None if it is another service's: Consul takes names that differ in case for one.
    fn entry(&self, service: &ServiceName, entry: Value) -> Result<Option<ServiceInstance>> {
        let Entry { node, service: found } = serde_json::from_value(entry)
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
        builder.addresses(addresses).build().map(Some).map_err(corrupt)
    }
}

/// So many instances of one service are held.
const MOST: usize = 20_000;

/// What the agent puts beside a service's own addresses.
fn is_agents_own(key: &str) -> bool {
    matches!(key, "lan_ipv4" | "wan_ipv4" | "lan_ipv6" | "wan_ipv6" | "lan" | "wan")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(checks: &[ConsulCheck]) -> Shape {
        Shape {
            ttl: Duration::from_secs(4),
            checks: checks.to_vec(),
            interval: Duration::from_secs(2),
            deregister_after: Duration::from_secs(600),
            tags: Vec::new(),
            qualified: false,
        }
    }

    fn instance() -> ServiceInstance {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        ServiceInstance::builder("helloworld", "inst-a")
            .and_then(|builder| {
                builder
                    .version("v1.2.3")
                    .metadata("zone", "sh001")
                    .addresses([address("grpc://127.0.0.1:9000"), address("http://127.0.0.1:8000")])
                    .build()
            })
            .expect("valid")
    }

    #[test]
    fn registers_byte_for_byte_as_kratos_does() {
        let recorded = include_str!("../../../tests/data/consul/register.json").trim_end();
        let written = shape(&[ConsulCheck::Kratos]).encode(&instance(), "me").expect("fits");
        assert_eq!(String::from_utf8(written).expect("JSON"), recorded);
    }

    #[test]
    fn by_default_it_is_the_same_with_one_check_that_passes() {
        let recorded: Value =
            serde_json::from_str(include_str!("../../../tests/data/consul/register.json")).expect("JSON");
        let written: Value =
            serde_json::from_slice(&shape(&[]).encode(&instance(), "me").expect("fits")).expect("JSON");
        for key in ["ID", "Name", "Tags", "Port", "Address", "TaggedAddresses", "Meta"] {
            assert_eq!(written[key], recorded[key], "{key}");
        }
        let check = &written["Checks"][0];
        assert_eq!((&check["Status"], &check["CheckID"]), (&"passing".into(), &"service:inst-a".into()));
        assert_eq!(written["Checks"].as_array().map(Vec::len), Some(1));
    }

    fn read(entries: &str) -> Read {
        let reading = Reading { scheme: Scheme::Grpc, datacenter: false };
        reading.decode(&"helloworld".parse().expect("a name"), entries.as_bytes()).expect("a list")
    }

    #[test]
    fn reads_what_it_and_kratos_write() {
        let entry = r#"[{"Node":{"Address":"10.0.0.1","Datacenter":"dc1"},"Service":{"ID":"inst-a","Service":"helloworld",
            "Tags":["version=v1.2.3"],"Address":"127.0.0.1","Port":9000,"TaggedAddresses":{
            "http":{"Address":"http://127.0.0.1:8000","Port":8000},"grpc":{"Address":"grpc://127.0.0.1:9000","Port":9000},
            "lan_ipv4":{"Address":"127.0.0.1","Port":9000}},"Meta":{"zone":"sh001"},"Weights":{"Passing":1,"Warning":1}}}]"#;
        let (instances, skipped) = read(entry);
        assert_eq!(instances, [Arc::new(instance())]);
        assert!(skipped.is_empty());
    }

    /// C16, C17, C18.
    #[test]
    fn foreign_services_are_read_and_what_is_none_is_skipped() {
        let (instances, skipped) = read(
            r#"[{"Node":{"Address":"10.0.0.1"},"Service":{"ID":"a","Service":"helloworld","Address":"","Port":80,
                 "Weights":{"Passing":7}}},
                {"Node":{"Address":"10.0.0.1"},"Service":{"ID":"b","Service":"helloworld","Address":"10.0.0.2",
                 "Ports":[{"Name":"x","Port":1},{"Name":"y","Port":2,"Default":true}]}},
                {"Node":null,"Service":{"ID":"c","Service":"helloworld","TaggedAddresses":null,"Port":70000}},
                {"Service":{"ID":"d","Service":"HelloWorld"}},
                {"Service":{"ID":"e","Service":"helloworld","Meta":{"n":1}}}, null, 7,
                {"Service":{"ID":"","Service":"helloworld"}}]"#,
        );
        let all: Vec<_> = instances
            .iter()
            .map(|one| {
                let addresses: Vec<_> = one.addresses().iter().map(ToString::to_string).collect();
                format!("{} {} {}", one.id(), addresses.join(","), one.weight())
            })
            .collect();
        assert_eq!(all, ["a grpc://10.0.0.1:80 7", "b grpc://10.0.0.2:2 100", "c  100"]);
        assert_eq!(skipped.keys().collect::<Vec<_>>(), ["", "?", "e"]);
    }

    #[test]
    fn addresses_of_one_scheme_are_all_kept() {
        let more = ["grpc://h:1", "grpc://h:2"].map(|text| text.parse::<Address>().expect("an address"));
        let more = instance().to_builder().addresses(more).build().expect("valid");
        let written: Value = serde_json::from_slice(&shape(&[]).encode(&more, "").expect("fits")).expect("JSON");
        let tagged = &written["TaggedAddresses"];
        for (key, address) in [("grpc", "grpc://127.0.0.1:9000"), ("grpc-2", "grpc://h:1"), ("grpc-3", "grpc://h:2")] {
            assert_eq!(tagged[key]["Address"], address, "{tagged}");
        }
    }

    #[test]
    fn what_consul_cannot_hold_is_refused_with_the_rule() {
        for (key, value) in [("a.b", "1"), ("consul-x", "1"), ("a", &*"x".repeat(513))] {
            let wrong = instance().to_builder().metadata(key, value).build().expect("valid");
            let error = shape(&[]).encode(&wrong, "").expect_err(key);
            assert!(error.kind() == Kind::InvalidInput && error.to_string().contains(key), "{error}");
        }
    }
}
