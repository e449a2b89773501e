//! What registries on servers have in common.

mod secret;
mod tls;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod user;

use std::net::IpAddr;

#[cfg(feature = "consul")]
pub(super) use self::secret::Secret;
pub(super) use self::tls::tls_of;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
pub(super) use self::user::{Credentials, PLAINTEXT_KEY};
use crate::{
    error::{Error, Result},
    instance::Address,
};

/// Whether what goes there stays on this machine.
fn is_loopback(address: &Address) -> bool {
    let host = address.host().unwrap_or_default();
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// That `whose` password or token goes to none of these in plaintext, unless it stays on this machine.
///
/// # Errors
///
/// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if it would; `allowed` is what a URI allows it by.
pub(super) fn keeps_secret(whose: &str, addresses: &[Address], allowed: &str) -> Result<()> {
    let is_exposed = |address: &&Address| !address.scheme().is_secure() && !is_loopback(address);
    addresses.iter().find(is_exposed).map_or(Ok(()), |to| {
        let to = to.authority();
        Err(Error::invalid(format!(
            "{whose} would go to {to} in plaintext; name its issuer (ca=), or allow it ({allowed}=true)"
        )))
    })
}

/// `host:port` of what may be a host alone; an IPv6 address stands in brackets.
pub(super) fn with_port(text: &str, default: u16) -> String {
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if has_port { text.to_owned() } else { format!("{text}:{default}") }
}
