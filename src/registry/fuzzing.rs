//! What registries hold, handed to all who read it: for the fuzzer alone.

#![allow(missing_docs)]

use super::{consul, etcd, kubernetes, zookeeper};
use crate::instance::ServiceName;

/// Reads the bytes as each registry's records; each must take them, or say why not.
pub fn read_anything(bytes: &[u8]) {
    let Ok(service) = "s".parse::<ServiceName>() else { return };
    etcd::read_anything(&service, bytes);
    consul::read_anything(&service, bytes);
    zookeeper::read_anything(&service, bytes);
    kubernetes::read_anything(&service, bytes);
}
