//! At which host others reach a server that listens on all of them.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use if_addrs::{IfAddr, IfOperStatus, Interface};
use tokio::{
    net::{UdpSocket, lookup_host},
    time::timeout,
};

use crate::{
    error::{Error, Result},
    instance::{Address, Scheme},
    target::RegistryUri,
};

/// Environment variables that may name the host, the first that is set counts.
const VARIABLES: [&str; 2] = ["CALLSIGN_ADVERTISE", "POD_IP"];

/// The host to advertise for a listener on `bound`, the first of these that there is:
///
/// 1. what the user says;
/// 2. what the environment says;
/// 3. the IP address that is listened on, if it is one;
/// 4. the source of the route to the registry, if that is not this machine;
/// 5. the source of the default route;
/// 6. a fit interface;
/// 7. loopback, where the registry is on this machine.
pub(super) async fn host(bound: IpAddr, explicit: Option<&str>, registry: &str) -> Result<String> {
    if let Some(host) = explicit {
        return checked(host, "the host to advertise");
    }
    for variable in VARIABLES {
        if let Some(host) = env::var(variable).ok().filter(|host| !host.is_empty()) {
            return checked(&host, variable);
        }
    }
    if !bound.is_unspecified() {
        return Ok(bound.to_string());
    }
    let near = near(registry, bound.is_ipv4()).await;
    if let Near::From(host) = near {
        return Ok(host.to_string());
    }
    for to in WORLD.into_iter().filter(|to| to.is_ipv4() || bound.is_ipv6()) {
        if let Some(host) = source(to).await.filter(|host| !host.is_loopback()) {
            return Ok(host.to_string());
        }
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    match (fittest(&interfaces, bound.is_ipv4()), near) {
        (Some(host), _) => Ok(host.to_string()),
        (None, Near::Here) if bound.is_ipv4() => Ok(Ipv4Addr::LOCALHOST.to_string()),
        (None, Near::Here) => Ok(Ipv6Addr::LOCALHOST.to_string()),
        (None, _) => Err(Error::invalid(format!(
            "no address of this machine can be reached from outside, and {registry} may be elsewhere: \
             set Server::advertise, or {} in the environment",
            VARIABLES[0]
        ))),
    }
}

fn checked(host: &str, what: &str) -> Result<String> {
    let bare = host.trim().trim_start_matches('[').trim_end_matches(']');
    // The port has its own place.
    Address::tcp(Scheme::Grpc, bare, 1)
        .map(|_| bare.to_owned())
        .map_err(|source| source.context(format!("{what} is {host:?}, which is no host")))
}

/// Where the registry is, as seen from here.
enum Near {
    /// On this machine, as far as can be told.
    Here,
    /// Reached from this address.
    From(IpAddr),
    /// Not reached by any route.
    Unknown,
}

async fn near(registry: &str, only_v4: bool) -> Near {
    let Ok(uri) = registry.parse::<RegistryUri>() else { return Near::Unknown };
    if matches!(uri.scheme(), "memory" | "file") || uri.authority().is_empty() {
        return Near::Here;
    }
    let mut near = Near::Unknown;
    for peer in uri.authority().split(',') {
        let Ok(Ok(addresses)) = timeout(LOOKUP, lookup_host(peer)).await else { continue };
        for to in addresses.filter(|to| to.is_ipv4() || !only_v4) {
            match source(to).await {
                Some(host) if host.is_loopback() => near = Near::Here,
                Some(host) => return Near::From(host),
                None => {}
            }
        }
    }
    near
}

/// The source of packets to an address, asked of the system without sending any.
async fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(to).await.ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|source| !source.is_unspecified())
}

const LOOKUP: Duration = Duration::from_secs(2);

/// Addresses that are reserved for documents stand for the world.
const WORLD: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The interface that others most likely reach: up, not of a container bridge, rather private
/// than not, rather IPv4.
fn fittest(interfaces: &[Interface], only_v4: bool) -> Option<IpAddr> {
    let fit = interfaces.iter().filter(|interface| {
        let bridge = ["docker", "br-", "veth", "virbr", "cni"].iter().any(|name| interface.name.starts_with(name));
        let up = !matches!(interface.oper_status, IfOperStatus::Down);
        up && !bridge && !interface.is_loopback() && !interface.is_link_local() && !interface.is_p2p()
    });
    let fit = fit.filter(|interface| !only_v4 || matches!(interface.addr, IfAddr::V4(_)));
    fit.map(Interface::ip).min_by_key(|ip| {
        let private = match ip {
            IpAddr::V4(ip) => ip.is_private(),
            IpAddr::V6(ip) => ip.is_unique_local(),
        };
        (ip.is_ipv6(), !private)
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    /// A7, registrator #127, #409: the address of the wrong interface, and no way to say so.
    #[tokio::test]
    async fn what_is_said_goes_before_what_is_found() {
        assert_eq!(host(ANY, Some("lb.example"), "memory://").await.expect("a host"), "lb.example");
        assert_eq!(host(ANY, Some("[::1]"), "memory://").await.expect("a host"), "::1");
        assert!(host(ANY, Some("a b"), "memory://").await.is_err());
        let bound = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(host(bound, None, "consul://10.0.0.1:8500").await.expect("a host"), "127.0.0.2");
    }

    #[tokio::test]
    async fn all_addresses_are_never_advertised_as_such() {
        for bound in [ANY, IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            for registry in ["file:///tmp", "memory://", "consul://127.0.0.1:8500"] {
                let host: IpAddr = host(bound, None, registry).await.expect("a host").parse().expect("an address");
                assert!(!host.is_unspecified(), "{registry}: {host}");
                assert!(bound.is_ipv6() || host.is_ipv4(), "{registry}: {host} for an IPv4 listener");
            }
        }
    }
}
