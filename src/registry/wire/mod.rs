//! What registries on servers have in common.

mod secret;
#[cfg(any(feature = "consul", feature = "etcd", feature = "zookeeper"))]
mod tls;

use std::net::IpAddr;

pub(super) use self::secret::Secret;
#[cfg(any(feature = "consul", feature = "etcd", feature = "zookeeper"))]
pub(super) use self::tls::tls_of;
use crate::instance::Address;

/// Whether what goes there stays on this machine.
pub(super) fn is_loopback(address: &Address) -> bool {
    let host = address.host().unwrap_or_default();
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// `host:port` of what may be a host alone; an IPv6 address stands in brackets.
pub(super) fn with_port(text: &str, default: u16) -> String {
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if has_port { text.to_owned() } else { format!("{text}:{default}") }
}
