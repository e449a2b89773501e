//! Registries: who is there.
//!
//! A registry has two sides. Servers use its [`Registrar`], clients its [`Discovery`]; most
//! registries are both, and a [`Registry`] holds them together.

#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "file")]
mod file;
mod fixed;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod keep;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(any(feature = "consul", feature = "etcd", feature = "kubernetes", feature = "zookeeper"))]
mod limit;
mod memory;
mod merge;
mod scheme;
mod shared;
#[cfg(any(feature = "consul", feature = "etcd", feature = "file", feature = "kubernetes", feature = "zookeeper"))]
mod skips;
mod watch;
#[cfg(any(feature = "consul", feature = "etcd", feature = "zookeeper"))]
mod wire;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc, time::Duration};

#[cfg(feature = "consul")]
pub use self::consul::{Consul, ConsulBuilder, ConsulCheck};
#[cfg(feature = "etcd")]
pub use self::etcd::{Etcd, EtcdBuilder, EtcdLayout};
#[cfg(feature = "file")]
pub use self::file::File;
#[cfg(feature = "kubernetes")]
pub use self::kubernetes::Kubernetes;
pub(crate) use self::scheme::default_schemes;
#[cfg(feature = "zookeeper")]
pub use self::zookeeper::{ZooKeeper, ZooKeeperBuilder, ZooKeeperLayout};
pub use self::{
    fixed::Fixed,
    keep::Resilient,
    memory::Memory,
    merge::Merged,
    scheme::{Schemes, open},
    shared::Shared,
    watch::{Outage, Snapshot, Update, View, Watch, WatchSender},
};
use crate::{
    error::{Error, Kind, Result},
    instance::{InstanceId, ServiceInstance, ServiceName},
    observe::{Observer, default_observer},
};

/// A future in a box, as object safe traits return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The servers' side of a registry: three verbs.
///
/// It keeps no lease by itself: [`Registration`](crate::Registration) calls [`renew`](Self::renew)
/// each third of the TTL, and [`register`](Self::register) again when the lease is lost.
pub trait Registrar: Debug + Send + Sync + 'static {
    /// Makes an instance known until its lease ends.
    ///
    /// An instance that is registered under the same service and id is replaced, whoever
    /// registered it.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if this registry cannot hold such an instance, which no retry will
    /// change; else whatever kept it from doing so now.
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>>;

    /// Prolongs a lease by its TTL.
    ///
    /// # Errors
    ///
    /// An error says that the registry did not answer: the lease may live. A lease that is known
    /// to be gone is no error but [`Renewal::Lost`].
    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>>;

    /// Takes the instance out and ends its lease, if the lease still holds it.
    ///
    /// # Errors
    ///
    /// An error says that the registry did not answer: the lease then ends by itself after
    /// [`Lease::ttl`].
    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>>;
}

/// The clients' side of a registry.
pub trait Discovery: Debug + Send + Sync + 'static {
    /// Asks once for all instances of a service; none is an empty snapshot.
    ///
    /// # Errors
    ///
    /// An error says that the registry did not answer, never that there are no instances.
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>>;

    /// Follows the instances of a service until the watch is dropped.
    ///
    /// This cannot fail: what goes wrong is an [`Update`] too, and the registry goes on trying. It
    /// needs a Tokio runtime to be called in.
    fn watch(&self, service: &ServiceName) -> Watch;
}

/// Proof that an instance is registered, for as long as it is renewed.
#[derive(Debug, Clone)]
pub struct Lease {
    instance: Arc<ServiceInstance>,
    ttl: Duration,
    token: Arc<str>,
}

impl Lease {
    /// A lease on an instance that lives for `ttl` after each renewal. The registry finds it again
    /// by its own `token`.
    pub fn new(instance: Arc<ServiceInstance>, ttl: Duration, token: impl Into<Arc<str>>) -> Self {
        Self { instance, ttl, token: token.into() }
    }

    /// What is registered.
    pub fn instance(&self) -> &Arc<ServiceInstance> {
        &self.instance
    }

    /// The service of the instance.
    pub fn service(&self) -> &ServiceName {
        self.instance.service()
    }

    /// The id of the instance.
    pub fn id(&self) -> &InstanceId {
        self.instance.id()
    }

    /// How long the instance stays registered without a renewal.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// By what the registry finds the lease again.
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// The lease lives for another TTL.
    Kept,
    /// The lease is gone, or the instance has another: register again.
    Lost,
}

/// A registry by value: its name, and the sides that it has.
#[derive(Debug, Clone)]
pub struct Registry {
    name: Arc<str>,
    registrar: Option<Arc<dyn Registrar>>,
    discovery: Arc<dyn Discovery>,
    resilient: bool,
}

impl Registry {
    /// A registry that has both sides. The name stands in errors and logs, such as `file:///run/services`.
    pub fn new(name: impl Into<Arc<str>>, both: Arc<impl Registrar + Discovery>) -> Self {
        Self { name: name.into(), registrar: Some(both.clone()), discovery: both, resilient: false }
    }

    /// A registry that can be asked but not written to.
    pub fn read_only(name: impl Into<Arc<str>>, discovery: Arc<dyn Discovery>) -> Self {
        Self { name: name.into(), registrar: None, discovery, resilient: false }
    }

    /// The same registry, asked by way of [`Shared`] and [`Resilient`], as [opened](open) ones are;
    /// a channel does so by itself, and one that is so already stays as it is.
    #[must_use]
    pub fn resilient(self) -> Self {
        self.resilient_telling(default_observer())
    }

    pub(crate) fn resilient_telling(self, observer: Arc<dyn Observer>) -> Self {
        if self.resilient {
            return self;
        }
        let resilient = Resilient::new(self.discovery.clone()).with_observer(observer);
        self.asked_by(Shared::new(Arc::new(resilient)))
    }

    fn asked_by(self, shared: Shared) -> Self {
        Self { discovery: Arc::new(shared), resilient: true, ..self }
    }

    /// The name that stands in errors and logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The clients' side.
    pub fn discovery(&self) -> &Arc<dyn Discovery> {
        &self.discovery
    }

    /// The servers' side.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if there is none.
    pub fn registrar(&self) -> Result<&Arc<dyn Registrar>> {
        self.registrar.as_ref().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("{} can only be asked: a server cannot register there", self.name))
        })
    }
}
