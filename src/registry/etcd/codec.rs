//! Keys and values ↔ instances. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Kind, Result},
    instance::{Address, InstanceBuilder, ServiceInstance, ServiceName},
};

/// How instances are laid out in etcd, for the programs of other frameworks that share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum EtcdLayout {
    /// Kratos's: the key `NAMESPACE/SERVICE/ID`, the value the whole instance in JSON.
    #[default]
    Kratos,
    /// grpc-go's `naming/endpoints`: the key `SERVICE/ID`, the value one address and its metadata in JSON.
    Grpc,
    /// go-zero's: the key `SERVICE/ID`, the value one address, `host:port`, and nothing else.
    GoZero,
}

/// No value is longer, nor could an instance's be.
const MAX_VALUE: usize = 1024 * 1024;

impl EtcdLayout {
    /// The name in a URI.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "kratos" => Some(Self::Kratos),
            "grpc" => Some(Self::Grpc),
            "gozero" => Some(Self::GoZero),
            _ => None,
        }
    }

    /// What keys begin with where nobody says so.
    pub(super) fn namespace(self) -> &'static str {
        match self {
            Self::Kratos => "/microservices",
            Self::Grpc | Self::GoZero => "",
        }
    }

    /// What the keys of a service begin with, the last slash included: so no service's keys are
    /// among those of one whose name goes on.
    pub(super) fn prefix(self, namespace: &str, service: &ServiceName) -> Result<String> {
        let service = one_segment("service name", service.as_str())?;
        Ok(match (self, namespace) {
            (Self::Grpc | Self::GoZero, "") => format!("{service}/"),
            _ => format!("{namespace}/{service}/"),
        })
    }

    /// The key of an instance.
    pub(super) fn key(self, namespace: &str, instance: &ServiceInstance) -> Result<String> {
        let id = one_segment("instance id", instance.id().as_str())?;
        Ok(format!("{}{id}", self.prefix(namespace, instance.service())?))
    }

    /// The value of an instance.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if the layout has no place for such an instance.
    pub(super) fn encode(self, instance: &ServiceInstance) -> Result<String> {
        match self {
            Self::Kratos => Ok(instance.to_json()),
            Self::Grpc => {
                let addr = address(instance)?;
                let metadata = instance.metadata().iter();
                let metadata: Map<_, _> =
                    metadata.map(|(key, value)| (key.to_string(), Value::String(value.to_string()))).collect();
                let metadata = (!metadata.is_empty()).then_some(Value::Object(metadata));
                serde_json::to_string(&Update { op: 0, addr, metadata })
                    .map_err(|source| Error::with_source(Kind::Internal, "an update cannot be written", source))
            }
            Self::GoZero => address(instance),
        }
    }

    /// Reads what is under a key of the service, which is `last` behind the prefix.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`], saying why it is no instance of the service.
    pub(super) fn decode(self, service: &ServiceName, last: &str, value: &[u8]) -> Result<Arc<ServiceInstance>> {
        let corrupt = |error: Error| Error::with_source(Kind::Corrupt, "this is no instance", error);
        if value.len() > MAX_VALUE {
            let context = format!("a value of {} bytes is longer than {MAX_VALUE}", value.len());
            return Err(Error::new(Kind::Corrupt, context));
        }
        let (addr, metadata) = match self {
            Self::Kratos => {
                let instance = ServiceInstance::from_json(value)?;
                if instance.service() != service {
                    let context = format!("it says that it is an instance of {}", instance.service());
                    return Err(Error::new(Kind::Corrupt, context));
                }
                return Ok(Arc::new(instance));
            }
            Self::Grpc => {
                let update: Update = serde_json::from_slice(value)
                    .map_err(|source| Error::with_source(Kind::Corrupt, "this is no JSON of an endpoint", source))?;
                if update.op != 0 {
                    return Err(Error::new(Kind::Corrupt, "it says that the endpoint is deleted"));
                }
                (update.addr, update.metadata)
            }
            Self::GoZero => match std::str::from_utf8(value) {
                Ok(addr) => (addr.trim().to_owned(), None),
                Err(source) => return Err(Error::with_source(Kind::Corrupt, "this is no address", source)),
            },
        };
        let address: Address = format!("grpc://{addr}").parse().map_err(corrupt)?;
        let builder = ServiceInstance::builder(service, last).map_err(corrupt)?.found_at([address])?;
        let builder = metadata.iter().filter_map(Value::as_object).flatten().fold(builder, with_metadata);
        Ok(Arc::new(builder.build().map_err(corrupt)?))
    }
}

/// grpc-go's `naming/endpoints/internal.Update`, whose keys Go writes as its fields are named.
#[derive(Debug, Serialize, Deserialize)]
struct Update {
    #[serde(rename = "Op", alias = "op", default)]
    op: i64,
    #[serde(rename = "Addr", alias = "addr")]
    addr: String,
    #[serde(rename = "Metadata", alias = "metadata", default)]
    metadata: Option<Value>,
}

/// Takes in what has a place in an instance's metadata: texts, numbers, yes and no.
fn with_metadata(builder: InstanceBuilder, (key, value): (&String, &Value)) -> InstanceBuilder {
    match value {
        Value::String(text) => builder.metadata(key.as_str(), text.as_str()),
        Value::Number(_) | Value::Bool(_) => builder.metadata(key.as_str(), value.to_string()),
        _ => builder,
    }
}

/// The first address where gRPC is spoken.
fn address(instance: &ServiceInstance) -> Result<String> {
    let mut addresses = instance.addresses().iter();
    let first = addresses.find(|address| address.scheme().is_grpc() && address.host().is_some());
    first.map(|address| address.authority().to_string()).ok_or_else(|| {
        let (id, service) = (instance.id(), instance.service());
        Error::invalid(format!("instance {id} of {service} has no address grpc://host:port, the one thing to write"))
    })
}

fn one_segment<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    if text.contains('/') {
        return Err(Error::invalid(format!(
            "{text:?} cannot be a {what} in etcd: a slash parts a key's namespace, service and id; leave it out"
        )));
    }
    Ok(text)
}

/// The end of the range of all keys that begin with a prefix that ends in a slash.
pub(super) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// What stands behind the prefix, if that is one segment: what goes on is another service's.
pub(super) fn last_segment(prefix: &str, key: &[u8]) -> Option<String> {
    let last = String::from_utf8_lossy(key.strip_prefix(prefix.as_bytes())?);
    (!last.is_empty() && !last.contains('/')).then(|| last.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a real Kratos program wrote them.
    const VALUE: &str = include_str!("../../../tests/data/etcd/value.json");
    const BARE: &str = include_str!("../../../tests/data/etcd/value-bare.json");

    fn service() -> ServiceName {
        "helloworld".parse().expect("a name")
    }

    fn decode(layout: EtcdLayout, last: &str, value: &str) -> Result<Arc<ServiceInstance>> {
        layout.decode(&service(), last, value.as_bytes())
    }

    #[test]
    fn kratos_is_read_and_written_byte_for_byte() {
        let instance = decode(EtcdLayout::Kratos, "inst-a", VALUE).expect("recorded");
        assert_eq!(EtcdLayout::Kratos.encode(&instance).expect("json"), VALUE);
        let key = EtcdLayout::Kratos.key(EtcdLayout::Kratos.namespace(), &instance).expect("no slash");
        assert_eq!(key, "/microservices/helloworld/inst-a");

        let bare = decode(EtcdLayout::Kratos, "inst-b", BARE).expect("recorded");
        assert!(bare.metadata().is_empty() && bare.version().is_empty());
        let written = EtcdLayout::Kratos.encode(&bare).expect("json");
        assert_eq!(written, BARE.replace("null", "{}"), "never null, which Go reads as the same");
    }

    #[test]
    fn what_is_no_instance_of_the_service_says_why() {
        for (value, why) in [
            ("null", "no JSON of an instance"),
            ("10.0.0.5:9000", "no JSON of an instance"),
            (r#"{"id":"a","name":"helloworld2"}"#, "an instance of helloworld2"),
            (r#"{"id":"a","name":"helloworld","metadata":{"n":1}}"#, "no JSON of an instance"),
        ] {
            let error = decode(EtcdLayout::Kratos, "a", value).expect_err(value);
            assert!(error.kind() == Kind::Corrupt && format!("{error:#}").contains(why), "{error:#}");
        }
        let long = " ".repeat(MAX_VALUE + 1);
        assert!(decode(EtcdLayout::GoZero, "a", &long).is_err());
    }

    #[test]
    fn grpc_go_and_go_zero_are_read_and_written() {
        let value = r#"{"Op":0,"Addr":"10.0.0.5:9000","Metadata":null}"#;
        let one = decode(EtcdLayout::Grpc, "10.0.0.5:9000", value).expect("grpc-go's");
        assert_eq!(one.addresses()[0].to_string(), "grpc://10.0.0.5:9000");
        assert_eq!(EtcdLayout::Grpc.encode(&one).expect("one address"), value);
        assert_eq!(EtcdLayout::Grpc.key("", &one).expect("no slash"), "helloworld/10.0.0.5:9000");
        let rich = r#"{"Op":0,"Addr":"[::1]:9","Metadata":{"weight":7,"zone":"a","deep":{}}}"#;
        let rich = decode(EtcdLayout::Grpc, "x", rich).expect("any JSON");
        assert_eq!((rich.weight().get(), rich.locality().zone()), (7, Some("a")));
        assert!(decode(EtcdLayout::Grpc, "x", r#"{"Op":1,"Addr":"h:1"}"#).is_err());

        let one = decode(EtcdLayout::GoZero, "7587", "10.0.0.5:9000").expect("go-zero's");
        assert_eq!((one.id().as_str(), &*EtcdLayout::GoZero.encode(&one).expect("one")), ("7587", "10.0.0.5:9000"));
        let none = ServiceInstance::builder("s", "a").and_then(|builder| builder.build()).expect("valid");
        assert_eq!(EtcdLayout::GoZero.encode(&none).expect_err("no address").kind(), Kind::InvalidInput);
    }

    /// Kratos PR #1501: a prefix matched the service whose name goes on. go-zero #4960's kin: names with slashes.
    #[test]
    fn a_key_is_of_one_service_alone() {
        let prefix = EtcdLayout::Kratos.prefix("/microservices", &service()).expect("no slash");
        assert_eq!(range_end(&prefix), b"/microservices/helloworld0");
        let last = |key: &str| last_segment(&prefix, key.as_bytes());
        assert_eq!(last("/microservices/helloworld/a").as_deref(), Some("a"));
        for other in ["/microservices/helloworld2/a", "/microservices/helloworld/", "/microservices/helloworld/b/a"] {
            assert_eq!(last(other), None, "{other}");
        }
        let slash = "team/app".parse().expect("a name elsewhere");
        let error = EtcdLayout::Kratos.prefix("", &slash).expect_err("two segments");
        assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("slash"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for layout in [EtcdLayout::Kratos, EtcdLayout::Grpc, EtcdLayout::GoZero] {
                let _ = layout.decode(&service(), "a", &value);
            }
            let _ = last_segment("/m/s/", &value);
        }
    }
}
