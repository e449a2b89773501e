//! Paths and data of nodes ↔ instances. Pure.

use std::sync::Arc;

use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
};

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

/// Reads the data of a node of the service.
///
/// # Errors
///
/// [`Kind::Corrupt`], saying why it is no instance of the service.
pub(super) fn decode(service: &ServiceName, data: &[u8]) -> Result<Arc<ServiceInstance>> {
    let instance = ServiceInstance::from_json(data)?;
    if instance.service() != service {
        let context = format!("it says that it is an instance of {}", instance.service());
        return Err(Error::new(Kind::Corrupt, context));
    }
    Ok(Arc::new(instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../../tests/data/zookeeper/znode.json");

    #[test]
    fn kratos_s_bytes_are_read_and_written() {
        let one = decode(&"helloworld".parse().expect("a name"), RECORDED.as_bytes()).expect("Kratos's own");
        assert_eq!(one.to_json(), RECORDED);
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
        let error = decode(&"other".parse().expect("a name"), RECORDED.as_bytes()).expect_err("helloworld's");
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}
