//! `etcd://`: a cluster of etcd v3.

mod builder;
mod client;
mod cluster;
mod codec;
mod config;
mod proto;
mod records;
mod watch;

use std::{sync::Arc, time::Duration};

use futures_util::future::join;

pub use self::{builder::EtcdBuilder, codec::EtcdLayout};
use self::{cluster::Cluster, records::Records, watch::Follower};
use super::{BoxFuture, Discovery, Lease, Registrar, Registry, Renewal, Snapshot, Update, Watch};
use crate::{
    error::{Error, Result},
    instance::{ServiceInstance, ServiceName},
    util::rng::Rng,
};

/// A cluster of etcd v3 as registry, byte for byte as Kratos uses it.
///
/// An instance is the key `/microservices/SERVICE/ID` with its JSON, on a lease of its own. A renewal prolongs the
/// lease *and* looks whether the key still hangs on it: one that was deleted or overwritten is
/// [`Renewal::Lost`], so its owner registers again. Deregistering revokes the lease, which takes the key with it.
///
/// A watch lists once and then follows events, of any member that answers; it goes on at another where one fails, and
/// asks a silent one every 10 s how far it is.
///
/// Clones share the connections, one to each member and runtime, made when first needed. See the
/// [guide](crate::guide::etcd) for URIs, permissions, and what happens when etcd is away.
///
/// ```no_run
/// # fn main() -> callsign::Result<()> {
/// use callsign::registry::Etcd;
///
/// let etcd = Etcd::builder(["10.0.0.5:2379", "10.0.0.6:2379"]).namespace("/prod").build()?;
/// let channel = callsign::Channel::builder("greeter").registry(etcd).connect_lazy()?;
/// # let _ = channel;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Etcd {
    cluster: Arc<Cluster>,
}

/// How long one try of one request may take.
const WITHIN: Duration = Duration::from_secs(2);

/// The same for the last request of a server that waits to stop.
const DEREGISTER_WITHIN: Duration = Duration::from_millis(1200);

impl Etcd {
    /// How long a lease lives without a renewal, unless [set](EtcdBuilder::ttl).
    pub const DEFAULT_TTL: Duration = Duration::from_secs(15);

    /// Starts a registry on the members of one cluster, each `host:port`.
    pub fn builder<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> EtcdBuilder {
        EtcdBuilder::new(endpoints.into_iter().map(Into::into).collect())
    }

    fn of(cluster: Cluster) -> Self {
        Self { cluster: Arc::new(cluster) }
    }

    fn records(&self, service: &ServiceName) -> Result<Records> {
        let config = self.cluster.config();
        let prefix = config.layout.prefix(&config.namespace, service)?;
        Ok(Records::new(config.layout, service.clone(), prefix, config.max_instances))
    }

    fn key(&self, instance: &ServiceInstance) -> Result<String> {
        let config = self.cluster.config();
        config.layout.key(&config.namespace, instance)
    }

    fn told(&self, what: &str, instance: &ServiceInstance, failure: cluster::Failure) -> Error {
        let context = format!("cannot {what} {} of {}", instance.id(), instance.service());
        self.cluster.error(failure).context(context)
    }
}

impl From<Etcd> for Registry {
    fn from(etcd: Etcd) -> Self {
        Self::new(etcd.cluster.config().name.clone(), Arc::new(etcd))
    }
}

impl Registrar for Etcd {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move {
            let config = self.cluster.config();
            let (key, value) = (self.key(instance)?, config.layout.encode(instance)?);
            let asked = config.ttl.as_secs() + u64::from(config.ttl.subsec_nanos() > 0);
            let asked = i64::try_from(asked.max(1)).unwrap_or(i64::MAX);
            // From 1 on: to etcd, 0 asks for an id of its own choosing.
            let id = (Rng::from_entropy().next_u64() >> 2).cast_signed() + 1;
            let told = |failure| self.told("register", instance, failure);
            let granted = self.cluster.grant(id, asked, WITHIN).await.map_err(told)?;
            if let Err(failure) = self.cluster.put(&key, value, id, WITHIN).await {
                // It may have been put all the same.
                drop(self.cluster.revoke(id, WITHIN / 4).await);
                return Err(told(failure));
            }
            let ttl = Duration::from_secs(u64::try_from(granted).unwrap_or_default().max(1));
            Ok(Lease::new(instance.clone(), ttl, format!("{id:016x}")))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(async move {
            let (Some(id), Ok(key)) = (lease_id(lease), self.key(lease.instance())) else { return Ok(Renewal::Lost) };
            let within = (lease.ttl() / 9).clamp(Duration::from_millis(300), WITHIN);
            let (alive, held) = join(self.cluster.keep_alive(id, within), self.cluster.lease_of(key, within)).await;
            match (alive.map(|ttl| ttl > 0), held.map(|holder| holder == Some(id))) {
                (Ok(false), _) | (_, Ok(false)) => Ok(Renewal::Lost),
                (Ok(true), Ok(true)) => Ok(Renewal::Kept),
                (Err(failure), _) | (_, Err(failure)) => Err(self.told("renew", lease.instance(), failure)),
            }
        })
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (Some(id), Ok(key)) = (lease_id(lease), self.key(lease.instance())) else { return Ok(()) };
            let within = DEREGISTER_WITHIN;
            let done = match self.cluster.revoke(id, within).await {
                // It may not let us, but the key is ours.
                Err(failure) if failure.is_answer() => self.cluster.delete_of(key, id, within).await,
                done => done,
            };
            done.map_err(|failure| self.told("deregister", lease.instance(), failure))
        })
    }
}

impl Discovery for Etcd {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let mut records = self.records(service)?;
            let at = self.cluster.list(&mut records).await;
            let at = at.map_err(|failure| self.cluster.error(failure).context(format!("cannot list {service}")))?;
            Ok(records.snapshot(at.revision))
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (cluster, service, records) = (self.cluster.clone(), service.clone(), self.records(service));
        Watch::driven(|sender| async move {
            match records {
                Ok(records) => Follower::new(cluster, service, records).drive(sender).await,
                Err(error) => {
                    sender.send(Update::Unavailable(error));
                    sender.closed().await;
                }
            }
        })
    }
}

fn lease_id(lease: &Lease) -> Option<i64> {
    i64::from_str_radix(lease.token(), 16).ok()
}

#[cfg(fuzzing)]
pub(super) fn read_anything(service: &ServiceName, bytes: &[u8]) {
    for layout in [EtcdLayout::Kratos, EtcdLayout::Grpc, EtcdLayout::GoZero] {
        let mut records = records::Records::new(layout, service.clone(), "s/".to_owned(), 100);
        records.put(b"s/a", bytes);
        records.put(bytes, b"h:1");
        drop((records.snapshot(1), records.skipped()));
    }
}
