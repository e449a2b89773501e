//! Paths and data of nodes ↔ instances. Pure.

use std::sync::Arc;

use super::curator;
use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
};

/// How instances are laid out in ZooKeeper, for the programs of other frameworks that share them.
///
/// In each the node of an instance is `ROOT/SERVICE/ID`, and its data JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ZooKeeperLayout {
    /// Kratos's: the whole instance in JSON.
    #[default]
    Kratos,
    /// That of Apache Curator's service discovery: a host, a port, a port for TLS, and the metadata as payload.
    Curator,
    /// Spring Cloud ZooKeeper's: Curator's, with a payload of its own that holds the metadata.
    Spring,
}

impl ZooKeeperLayout {
    /// The name in a URI.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "kratos" => Some(Self::Kratos),
            "curator" => Some(Self::Curator),
            "spring" => Some(Self::Spring),
            _ => None,
        }
    }

    /// The root where nobody says so.
    pub(super) fn root(self) -> &'static str {
        match self {
            Self::Kratos => "/microservices",
            Self::Curator | Self::Spring => "/services",
        }
    }

    /// The data of an instance that is registered `at` so many milliseconds after 1970.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if the layout has no place for such an instance.
    pub(super) fn encode(self, instance: &ServiceInstance, at: u64) -> Result<String> {
        match self {
            Self::Kratos => Ok(instance.to_json()),
            Self::Curator => curator::encode(instance, curator::Payload::Metadata, at),
            Self::Spring => curator::encode(instance, curator::Payload::Spring, at),
        }
    }

    /// Reads the data of a node of the service.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`], saying why it is no instance of the service.
    pub(super) fn decode(self, service: &ServiceName, data: &[u8]) -> Result<Arc<ServiceInstance>> {
        let instance = match self {
            Self::Kratos => ServiceInstance::from_json(data)?,
            Self::Curator | Self::Spring => curator::decode(data)?,
        };
        if instance.service() != service {
            let context = format!("it says that it is an instance of {}", instance.service());
            return Err(Error::new(Kind::Corrupt, context));
        }
        Ok(Arc::new(instance))
    }
}

/// The node of a service: its instances are the children.
pub(super) fn service_path(root: &str, service: &ServiceName) -> Result<String> {
    Ok(format!("{root}/{}", segment("service name", service.as_str())?))
}

/// The node of an instance.
pub(super) fn instance_path(root: &str, instance: &ServiceInstance) -> Result<String> {
    let id = segment("instance id", instance.id().as_str())?;
    Ok(format!("{}/{id}", service_path(root, instance.service())?))
}

/// What ZooKeeper takes as one segment of a path.
pub(super) fn segment<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    let unfit = |char: char| matches!(char, '/' | '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if text.is_empty() || text == "." || text == ".." || text.contains(unfit) {
        return Err(Error::invalid(format!(
            "the {what} {text:?} cannot be part of a path in ZooKeeper: it is not empty, `.` or `..`, and has no slash, \
             no control character and none that Unicode leaves to private use"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../../tests/data/zookeeper/znode.json");

    #[test]
    fn kratos_s_bytes_are_read_and_written() {
        let one = ZooKeeperLayout::Kratos.decode(&"helloworld".parse().expect("a name"), RECORDED.as_bytes());
        let one = one.expect("Kratos's own");
        assert_eq!(ZooKeeperLayout::Kratos.encode(&one, 0).expect("all fits"), RECORDED);
        assert_eq!(one.addresses().len(), 2);
        assert_eq!(instance_path("/microservices", &one).expect("fit"), "/microservices/helloworld/inst-a");
    }

    /// W9 of the list: a slash in an id.
    #[test]
    fn what_a_path_cannot_hold_is_refused_with_the_rule() {
        for text in ["a/b", ".", "..", "a\u{1}", "\u{e000}", ""] {
            let error = segment("instance id", text).expect_err(text);
            assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("slash"), "{error}");
        }
        assert_eq!(segment("instance id", "v1.0+b ä").expect("fit"), "v1.0+b ä");
    }

    #[test]
    fn another_service_s_record_is_no_instance() {
        let other = "other".parse().expect("a name");
        let error = ZooKeeperLayout::Kratos.decode(&other, RECORDED.as_bytes()).expect_err("helloworld's");
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for layout in [ZooKeeperLayout::Kratos, ZooKeeperLayout::Curator, ZooKeeperLayout::Spring] {
                let _ = layout.decode(&"s".parse().expect("a name"), &data);
            }
        }
    }
}
