//! What is dialled: the projection of an instance onto a connection.

use std::{fmt, sync::Arc};

use crate::instance::{Address, ServiceInstance};

/// The identity of an endpoint's connection: if it changes, and only then, one must connect anew.
///
/// The addresses are alternatives to reach one and the same process, in the order to try them
/// ([gRFC A61](https://github.com/grpc/proposal/blob/master/A61-IPv4-IPv6-dualstack-backends.md)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    addresses: Arc<[Address]>,
    server_name: Option<Arc<str>>,
}

impl EndpointKey {
    /// A key of addresses to try in this order.
    pub fn new(addresses: impl Into<Arc<[Address]>>) -> Self {
        Self { addresses: addresses.into(), server_name: None }
    }

    /// Sets the name that the server's certificate must be valid for. Default: the service's.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The addresses in the order to try them.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The name that the server's certificate must be valid for, if it is not the service's.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

impl From<Address> for EndpointKey {
    fn from(address: Address) -> Self {
        Self::new([address])
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { "," }, address.authority())?;
        }
        Ok(())
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something to call: how to [reach](EndpointKey) it, and the instance that it is.
///
/// A new weight or new metadata make another endpoint of the same key: nobody connects anew.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    key: EndpointKey,
    instance: Arc<ServiceInstance>,
}

impl Endpoint {
    /// An endpoint of an instance, reached by a key of one's own making.
    pub fn new(key: EndpointKey, instance: impl Into<Arc<ServiceInstance>>) -> Self {
        Self { key, instance: instance.into() }
    }

    /// Projects an instance onto its gRPC endpoint: all its addresses of the first gRPC scheme that
    /// it lists and that `carries` accepts, `grpcs` before others; none if it has none such.
    pub fn of(instance: &Arc<ServiceInstance>, carries: impl Fn(&Address) -> bool) -> Option<Self> {
        let usable = |address: &&Address| address.scheme().is_grpc() && carries(address);
        let mut all = instance.addresses().iter().filter(usable);
        let secure = all.clone().find(|address| address.scheme().is_secure());
        let first = secure.or_else(|| all.next())?;
        let same = instance.addresses().iter().filter(usable).filter(|address| address.scheme() == first.scheme());
        Some(Self { key: EndpointKey::new(same.cloned().collect::<Vec<_>>()), instance: instance.clone() })
    }

    /// How it is reached.
    pub fn key(&self) -> &EndpointKey {
        &self.key
    }

    /// What it is.
    pub fn instance(&self) -> &Arc<ServiceInstance> {
        &self.instance
    }
}

/// `id (host:port)`, as a person would look for it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.instance.id(), self.key)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}
