//! The JSON of Apache Curator's service discovery ↔ instances. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::{Error, Kind, Result},
    instance::{Address, Scheme, ServiceInstance, Status},
};

/// What stands in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// The metadata as a map of Java's; nothing where there is none.
    Metadata,
    /// Spring's own class, with the metadata in it.
    Spring,
}

/// As Curator writes it: in this order, and without `enabled` where it is, for readers from before CURATOR-275.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    name: &'a str,
    id: &'a str,
    address: &'a str,
    port: Option<u16>,
    ssl_port: Option<u16>,
    payload: Option<WrittenPayload<'a>>,
    #[serde(rename = "registrationTimeUTC")]
    registration_time: u64,
    service_type: &'a str,
    uri_spec: Option<UriSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenPayload<'a> {
    Metadata {
        #[serde(rename = "@class")]
        class: &'a str,
        #[serde(flatten)]
        metadata: BTreeMap<&'a str, &'a str>,
    },
    Spring {
        #[serde(rename = "@class")]
        class: &'a str,
        id: &'a str,
        name: &'a str,
        metadata: BTreeMap<&'a str, &'a str>,
    },
}

/// How a URI is made of the rest.
#[derive(Serialize)]
struct UriSpec {
    parts: [Part; 5],
}

#[derive(Serialize)]
struct Part {
    value: &'static str,
    variable: bool,
}

/// What is read; all else may stand there too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    name: String,
    id: String,
    address: Option<String>,
    port: Option<u16>,
    ssl_port: Option<u16>,
    payload: Option<Value>,
    enabled: Option<bool>,
}

const MAP: &str = "java.util.LinkedHashMap";
const SPRING: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";

/// The key of a payload's class in Java.
const CLASS: &str = "@class";
/// Metadata for what Curator has no place for, by the names that Spring's programs use.
const VERSION: &str = "version";
const STATUS: &str = "instance_status";
const GRPC_PORT: &str = "gRPC_port";
const OLD_GRPC_PORT: &str = "gRPC.port";

/// # Errors
///
/// [`Kind::InvalidInput`] if there is no place for such an instance.
pub(super) fn encode(instance: &ServiceInstance, payload: Payload, at: u64) -> Result<String> {
    let Places { host, port, ssl_port, grpc_port } = Places::of(instance)?;
    let (status, enabled) = match instance.status() {
        Status::Down => ("OUT_OF_SERVICE", Some(false)),
        _ => ("UP", None),
    };
    let own = [CLASS, STATUS, GRPC_PORT, OLD_GRPC_PORT];
    if let Some(key) = instance.metadata().keys().find(|key| own.contains(&&***key)) {
        return Err(refused(instance, &format!("the layout itself needs the metadata {key:?}")));
    }
    let mut metadata: BTreeMap<_, _> = instance.metadata().iter().map(|(key, value)| (&**key, &**value)).collect();
    if !instance.version().is_empty() && metadata.insert(VERSION, instance.version()).is_some() {
        return Err(refused(instance, "the version is written as metadata \"version\", and there is one already"));
    }
    let grpc_port = grpc_port.map(|port| port.to_string());
    if let Some(port) = &grpc_port {
        metadata.insert(GRPC_PORT, port);
    }
    let (name, id) = (instance.service().as_str(), instance.id().as_str());
    let is_spring = payload == Payload::Spring;
    let payload = if is_spring {
        metadata.insert(STATUS, status);
        Some(WrittenPayload::Spring { class: SPRING, id: name, name, metadata })
    } else {
        (!metadata.is_empty()).then_some(WrittenPayload::Metadata { class: MAP, metadata })
    };
    let uri_spec = is_spring.then(|| {
        let part = |(value, variable)| Part { value, variable };
        let parts = [("scheme", true), ("://", false), ("address", true), (":", false), ("port", true)];
        UriSpec { parts: parts.map(part) }
    });
    let written = Written {
        name,
        id,
        address: host,
        port,
        ssl_port,
        payload,
        registration_time: at,
        service_type: "DYNAMIC",
        uri_spec,
        enabled,
    };
    serde_json::to_string(&written)
        .map_err(|source| Error::with_source(Kind::Internal, "an instance cannot be written", source))
}

/// Where an instance is, as far as there is a place for it.
struct Places<'a> {
    host: &'a str,
    port: Option<u16>,
    ssl_port: Option<u16>,
    /// Where gRPC is spoken if the port is HTTP's.
    grpc_port: Option<u16>,
}

impl<'a> Places<'a> {
    fn of(instance: &'a ServiceInstance) -> Result<Self> {
        let (mut host, mut grpc, mut grpcs, mut http) = (None, None, None, None);
        for address in instance.addresses().iter() {
            let place = match address.scheme() {
                Scheme::Grpc => &mut grpc,
                Scheme::Grpcs => &mut grpcs,
                Scheme::Http => &mut http,
                _ => return Err(refused(instance, &format!("there is no place for {address}"))),
            };
            if place.replace(address.port()).is_some() {
                let scheme = address.scheme();
                return Err(refused(instance, &format!("it has more than one address {scheme}://")));
            }
            if host.replace(address.host()).is_some_and(|before| before != address.host()) {
                return Err(refused(instance, "its addresses are of more than one host"));
            }
        }
        let (grpc, grpcs, http) = (grpc.flatten(), grpcs.flatten(), http.flatten());
        let Some(host) = host.flatten().filter(|_| grpc.or(grpcs).is_some()) else {
            return Err(refused(instance, "it has no address grpc://host:port"));
        };
        match (grpc, http) {
            (None, Some(_)) => Err(refused(instance, "it has an address http:// and none grpc://")),
            (grpc, Some(http)) => Ok(Self { host, port: Some(http), ssl_port: grpcs, grpc_port: grpc }),
            (grpc, None) => Ok(Self { host, port: grpc, ssl_port: grpcs, grpc_port: None }),
        }
    }
}

fn refused(instance: &ServiceInstance, why: &str) -> Error {
    let (id, service) = (instance.id(), instance.service());
    Error::invalid(format!(
        "instance {id} of {service} cannot be written as Curator has it, one host with a port for gRPC, one for gRPC \
         over TLS and one for HTTP: {why}"
    ))
}

/// # Errors
///
/// [`Kind::Corrupt`], saying why it is no instance.
pub(super) fn decode(data: &[u8]) -> Result<ServiceInstance> {
    let corrupt = |error: Error| Error::with_source(Kind::Corrupt, "this is no instance", error);
    let read: Read = serde_json::from_slice(data)
        .map_err(|source| Error::with_source(Kind::Corrupt, "this is no JSON of an instance of Curator's", source))?;
    let mut metadata = metadata(read.payload);
    let grpc_port = metadata.remove(GRPC_PORT);
    let grpc_port = metadata.remove(OLD_GRPC_PORT).filter(|_| grpc_port.is_none()).or(grpc_port);
    let grpc_port = grpc_port.map(|port| port.parse::<u16>());
    let grpc_port = grpc_port.transpose().map_err(|source| {
        Error::with_source(Kind::Corrupt, format!("its metadata {GRPC_PORT:?} is no port"), source)
    })?;
    let places = [
        (Scheme::Grpc, grpc_port.or(read.port)),
        (Scheme::Grpcs, read.ssl_port),
        (Scheme::Http, read.port.filter(|_| grpc_port.is_some())),
    ];
    let Some(host) = read.address else { return Err(Error::new(Kind::Corrupt, "it has no address")) };
    let mut addresses = Vec::new();
    for (scheme, port) in places {
        if let Some(port) = port {
            addresses.push(Address::tcp(scheme, &host, port).map_err(corrupt)?);
        }
    }
    if addresses.is_empty() {
        return Err(Error::new(Kind::Corrupt, "it has no port"));
    }
    let is_up = metadata.remove(STATUS).is_none_or(|status| status.eq_ignore_ascii_case("UP"));
    // Absent before CURATOR-275.
    let status = if is_up && read.enabled.unwrap_or(true) { Status::Up } else { Status::Down };
    let version = metadata.remove(VERSION).unwrap_or_default();
    let builder = ServiceInstance::builder(read.name, read.id).map_err(corrupt)?;
    let builder = builder.found_at(addresses)?.status(status).version(version);
    let builder = metadata.into_iter().fold(builder, |builder, (key, value)| builder.metadata(key, value));
    builder.build().map_err(corrupt)
}

/// What has a place in an instance's metadata: texts, numbers, yes and no; of Spring's payload or any other.
fn metadata(payload: Option<Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(mut payload)) = payload else { return BTreeMap::new() };
    let inner = match payload.remove("metadata") {
        Some(Value::Object(inner)) => inner,
        Some(other) => {
            payload.insert("metadata".to_owned(), other);
            payload
        }
        None => payload,
    };
    let text = |(key, value)| match value {
        Value::String(text) => Some((key, text)),
        Value::Number(_) | Value::Bool(_) => Some((key, value.to_string())),
        _ => None,
    };
    inner.into_iter().filter_map(text).filter(|(key, _)| key != CLASS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Curator 5.7.1 and Spring Cloud ZooKeeper 4.1.2 wrote them.
    const CURATOR: &str = include_str!("../../../tests/data/zookeeper/curator.json");
    const BARE: &str = include_str!("../../../tests/data/zookeeper/curator-bare.json");
    const DISABLED: &str = include_str!("../../../tests/data/zookeeper/curator-disabled.json");
    const SPRING: &str = include_str!("../../../tests/data/zookeeper/spring.json");
    const AT: u64 = 1_618_899_361_271;

    fn read(text: &str) -> ServiceInstance {
        decode(text.as_bytes()).expect(text)
    }

    fn addresses(instance: &ServiceInstance) -> Vec<String> {
        instance.addresses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn curator_s_bytes_are_read_and_written() {
        let one = read(CURATOR);
        assert_eq!((one.id().as_str(), one.version(), one.locality().zone()), ("inst-a", "v1.2.3", Some("sh001")));
        assert_eq!(addresses(&one), ["grpc://10.0.0.5:9000", "grpcs://10.0.0.5:9443"]);
        assert_eq!(one.metadata().len(), 1);
        assert_eq!(encode(&one, Payload::Metadata, AT).expect("fits"), CURATOR);
        let bare = read(BARE);
        assert!(bare.metadata().is_empty() && bare.version().is_empty());
        assert_eq!(encode(&bare, Payload::Metadata, AT).expect("fits"), BARE);
    }

    /// CURATOR-275: `enabled` came later; absent is yes.
    #[test]
    fn an_instance_is_up_unless_it_says_otherwise() {
        assert_eq!(read(CURATOR).status(), Status::Up);
        assert_eq!(read(DISABLED).status(), Status::Down);
        assert_eq!(read(&DISABLED.replace("false", "true")).status(), Status::Up);
        assert_eq!(read(&DISABLED.replace("false", "null")).status(), Status::Up);
        assert_eq!(encode(&read(DISABLED), Payload::Metadata, AT).expect("fits"), DISABLED);
        assert_eq!(read(&SPRING.replace("UP", "OUT_OF_SERVICE")).status(), Status::Down);
    }

    #[test]
    fn spring_s_bytes_are_read_and_written() {
        let one = read(SPRING);
        assert_eq!(addresses(&one), ["grpc://10.0.0.5:9000", "http://10.0.0.5:8000"]);
        assert_eq!((one.version(), one.locality().zone(), one.metadata().len()), ("v1.2.3", Some("sh001"), 1));
        assert_eq!(encode(&one, Payload::Spring, AT).expect("fits"), SPRING);
        let without = read(&SPRING.replace(r#""gRPC_port":"9000","#, ""));
        assert_eq!(addresses(&without), ["grpc://10.0.0.5:8000"]);
        let older = read(&SPRING.replace("gRPC_port", "gRPC.port"));
        assert_eq!(addresses(&older), addresses(&one));
    }

    #[test]
    fn what_is_unknown_does_no_harm_and_what_is_wrong_says_why() {
        let more = r#"{"name":"s","id":"a","address":"::1","sslPort":1,"payload":{"n":7,"deep":{},"yes":true},"new":[{}],
            "serviceType":"PERMANENT","registrationTimeUTC":"?"}"#;
        let one = read(more);
        assert_eq!(addresses(&one), ["grpcs://[::1]:1"]);
        let metadata: Vec<_> = one.metadata().iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(metadata, ["n=7", "yes=true"]);
        assert!(read(r#"{"name":"s","id":"a","address":"h","port":1,"payload":"text"}"#).metadata().is_empty());
        for (text, why) in [
            ("null", "no JSON"),
            (r#"{"name":"s"}"#, "no JSON"),
            (r#"{"name":"s","id":"a","port":1}"#, "no address"),
            (r#"{"name":"s","id":"a","address":"h"}"#, "no port"),
            (r#"{"name":"s","id":"a","address":"h","port":70000}"#, "no JSON"),
            (r#"{"name":"s","id":"a","address":"h","port":0}"#, "port is 0"),
            (r#"{"name":"","id":"a","address":"h","port":1}"#, "no instance"),
            (r#"{"name":"s","id":"a","address":"h","port":1,"payload":{"gRPC_port":"-1"}}"#, "no port"),
        ] {
            let error = decode(text.as_bytes()).expect_err(text);
            assert!(error.kind() == Kind::Corrupt && format!("{error:#}").contains(why), "{text}: {error:#}");
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let with = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
            ServiceInstance::builder("s", "a").expect("names").addresses(addresses)
        };
        let one = || with(&["grpc://h:1"]);
        for (builder, why) in [
            (with(&[]), "no address grpc://"),
            (with(&["http://h:1"]), "no address grpc://"),
            (with(&["http://h:1", "grpcs://h:2"]), "none grpc://"),
            (with(&["grpc://h:1", "grpc://h:2"]), "more than one address grpc://"),
            (with(&["grpc://h:1", "grpcs://i:2"]), "more than one host"),
            (with(&["grpc://h:1", "https://h:2"]), "https://h:2"),
            (with(&["unix:///a"]), "unix:"),
            (one().metadata("@class", "x"), "@class"),
            (one().metadata("gRPC_port", "1"), "gRPC_port"),
            (one().version("1").metadata("version", "2"), "version"),
        ] {
            let instance = builder.build().expect("an instance");
            for payload in [Payload::Metadata, Payload::Spring] {
                let error = encode(&instance, payload, AT).expect_err(why);
                assert!(error.kind() == Kind::InvalidInput && error.to_string().contains(why), "{why}: {error}");
            }
        }
        let all = with(&["http://[::1]:3", "grpcs://[::1]:2", "grpc://[::1]:1"]).version("v").weight(7).build();
        let all = all.expect("an instance");
        for payload in [Payload::Metadata, Payload::Spring] {
            let again = read(&encode(&all, payload, AT).expect("fits"));
            assert_eq!(addresses(&again), ["grpc://[::1]:1", "grpcs://[::1]:2", "http://[::1]:3"]);
            assert_eq!((again.version(), again.weight().get(), again.metadata().len()), ("v", 7, 1));
        }
    }
}
