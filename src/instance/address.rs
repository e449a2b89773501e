//! Where an instance can be reached.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use crate::error::{Error, Result};

/// One address of an instance, such as `grpc://10.0.0.5:9000`.
///
/// Written `scheme://host:port`, where the scheme is `grpc`, `grpcs`, `http` or `https` and an IPv6
/// host stands in brackets; or `unix:///path/of/socket`, or `unix://@name` for an abstract socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Tcp { scheme: Scheme, host: Arc<str>, port: u16 },
    Unix { path: Arc<str> },
}

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// gRPC in plaintext.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// HTTP in plaintext.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC in plaintext over a Unix socket.
    Unix,
}

impl Scheme {
    /// The text before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
        }
    }

    /// Whether gRPC is spoken there.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs | Self::Unix)
    }

    /// Whether TLS is.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Grpcs | Self::Https)
    }
}

impl Address {
    /// An address of a host, by name or IP without brackets, and a port.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if the host is none, the port is 0, or the scheme is
    /// [`Scheme::Unix`].
    pub fn tcp(scheme: Scheme, host: &str, port: u16) -> Result<Self> {
        let wrong = |why: &str| Err(Error::invalid(format!("{scheme}://{host}:{port} is no address: {why}")));
        if scheme == Scheme::Unix {
            return wrong("a Unix socket has a path, not a host");
        }
        if port == 0 {
            return wrong("the port is 0");
        }
        if !is_host(host) {
            return wrong("the host is neither a name nor an IP address");
        }
        if ends_in_a_number(host) {
            return wrong("the host ends in a number, as no name does, but is no IP address");
        }
        Ok(Self(Repr::Tcp { scheme, host: host.into(), port }))
    }

    /// A Unix socket by its absolute path; or by `@` and its name an abstract one, on Linux.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if the path is relative, or longer than a socket's may be.
    pub fn unix(path: &str) -> Result<Self> {
        let begins = path.starts_with('/') || path.len() > 1 && path.starts_with('@');
        if !begins || path.len() > 107 || path.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "{path:?} is no path of a Unix socket: it is absolute, or @ and the name of an abstract one, and has \
                 at most 107 bytes and no control character"
            )));
        }
        Ok(Self(Repr::Unix { path: path.into() }))
    }

    /// Why a client dials no such address on a registry's word: nobody's service is there, but perhaps
    /// the credentials of the client's own machine. A link-local one that names its interface is meant.
    pub(crate) fn forbidden(&self) -> Option<&'static str> {
        let host = self.host()?;
        let Ok(ip) = host.parse::<IpAddr>() else {
            return host.eq_ignore_ascii_case("metadata.google.internal").then_some("a cloud's metadata service");
        };
        match ip.to_canonical() {
            ip if ip.is_unspecified() => Some("no one host's"),
            ip if ip.is_multicast() => Some("a group's"),
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some("everybody's"),
            IpAddr::V4(ip) if ip.is_link_local() => Some("link-local"),
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("link-local"),
            ip if METADATA.contains(&ip) => Some("a cloud's metadata service"),
            _ => None,
        }
    }

    /// What is spoken there.
    pub fn scheme(&self) -> Scheme {
        match self.0 {
            Repr::Tcp { scheme, .. } => scheme,
            Repr::Unix { .. } => Scheme::Unix,
        }
    }

    /// The host, an IPv6 one without brackets; none for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.0 {
            Repr::Tcp { host, .. } => Some(host),
            Repr::Unix { .. } => None,
        }
    }

    /// The port; none for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self.0 {
            Repr::Tcp { port, .. } => Some(port),
            Repr::Unix { .. } => None,
        }
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<&str> {
        match &self.0 {
            Repr::Tcp { .. } => None,
            Repr::Unix { path } => Some(path),
        }
    }

    /// The address without its scheme, as one dials or reads it: `10.0.0.5:9000`, `[::1]:80`, a path.
    pub fn authority(&self) -> impl fmt::Display + '_ {
        struct Authority<'a>(&'a Repr);
        impl fmt::Display for Authority<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Repr::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
                    Repr::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
                    Repr::Unix { path } => f.write_str(path),
                }
            }
        }
        Authority(&self.0)
    }
}

/// Where clouds tell a machine its secrets, besides link-local addresses: AWS's in IPv6, and Alibaba's.
const METADATA: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200))];

/// Of a name the last label is never a number; resolvers read `127.1`, `0x7f000001` and `2130706433` as addresses.
fn ends_in_a_number(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let number = hexadecimal.map_or_else(
        || last.bytes().all(|byte| byte.is_ascii_digit()),
        |digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
    );
    number && host.parse::<IpAddr>().is_err()
}

impl FromStr for Address {
    type Err = Error;

    /// Reads an address. A path is dropped, and of the query only `isSecure=true` counts, which
    /// Kratos wrote before it had `grpcs`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(128).collect();
            Error::invalid(format!("{shown:?} is no address: {why}; write it as grpc://10.0.0.5:9000"))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let mut scheme = match scheme.to_ascii_lowercase().as_str() {
            "grpc" => Scheme::Grpc,
            "grpcs" => Scheme::Grpcs,
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => return Self::unix(rest),
            _ => return Err(wrong("its scheme is not grpc, grpcs, http, https or unix")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = split_host_port(authority).ok_or_else(|| wrong("it lacks a host and a port"))?;
        let secure = query.split('&').any(|pair| pair.eq_ignore_ascii_case("isSecure=true"));
        if secure && scheme == Scheme::Grpc {
            scheme = Scheme::Grpcs;
        } else if secure && scheme == Scheme::Http {
            scheme = Scheme::Https;
        }
        Self::tcp(scheme, host, port).map_err(|error| error.context(format!("cannot read {authority:?}")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Splits `host:port`, taking the brackets off an IPv6 host.
pub(crate) fn split_host_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').filter(|host| host.contains(':'))?,
        None if host.contains(':') => return None,
        None => host,
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, digits.then(|| port.parse().ok()).flatten()?))
}

/// A name of at most 253 letters, digits, `-`, `_` and `.`, or an IP address.
fn is_host(host: &str) -> bool {
    if host.contains(':') {
        let (ip, zone) = host.split_once('%').map_or((host, None), |(ip, zone)| (ip, Some(zone)));
        let zone_ok = zone.is_none_or(|zone| !zone.is_empty() && zone.bytes().all(is_name_byte));
        return ip.parse::<Ipv6Addr>().is_ok() && zone_ok;
    }
    !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
