//! `consul://`: agents of HashiCorp Consul.

mod builder;
mod client;
mod codec;
mod config;
mod uri;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use self::{builder::ConsulBuilder, codec::ConsulCheck};
use self::{
    client::{Client, Failed},
    watch::Follower,
};
use super::{BoxFuture, Discovery, Lease, Registrar, Registry, Renewal, Snapshot, Watch};
use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
    util::rng::Rng,
};

/// Consul as registry, as Kratos uses it.
///
/// An instance is a service of the agent that registered it, with a TTL check that passes from the
/// beginning; a renewal lets it pass for another TTL. Its notes say who registered it: one whose id
/// another has taken, or that is gone from the agent, is [`Renewal::Lost`]. Lists and watches show what
/// passes all its checks.
///
/// A watch is one blocking query after the other, for each datacenter its own. Clones share connections.
/// See the [guide](crate::guide::consul) for URIs, permissions, and what happens when Consul is away.
///
/// ```no_run
/// # fn main() -> callsign::Result<()> {
/// use callsign::registry::Consul;
///
/// let consul = Consul::builder(["127.0.0.1:8500"]).token_file("/run/secrets/consul").build()?;
/// let channel = callsign::Channel::builder("greeter").registry(consul).connect_lazy()?;
/// # let _ = channel;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Consul {
    client: Arc<Client>,
}

impl Consul {
    /// How long an instance passes without a renewal, unless [set](ConsulBuilder::ttl).
    pub const DEFAULT_TTL: Duration = Duration::from_secs(15);

    /// Starts a registry on agents of one cluster, each `host:port`; the first that answers is used.
    pub fn builder<A: Into<String>>(agents: impl IntoIterator<Item = A>) -> ConsulBuilder {
        ConsulBuilder::new(agents.into_iter().map(Into::into).collect())
    }

    /// Where a lease is held: the agent, the id there, and who registered it.
    fn held<'a>(&self, lease: &'a Lease) -> Option<(usize, String, &'a str)> {
        let (agent, owner) = lease.token().split_once('/')?;
        Some((agent.parse().ok()?, self.client.config().shape.id(lease.instance()), owner))
    }

    fn is_exactly_kratos(&self) -> bool {
        self.client.config().shape.checks.contains(&ConsulCheck::Kratos)
    }

    /// Whether the agent still has what this owner registered. Kratos's own bytes have no room for that.
    async fn is_held(&self, agent: usize, id: &str, owner: &str) -> Result<bool, Failed> {
        let notes = self.client.notes_of(agent, id).await?;
        Ok(notes.is_some_and(|notes| notes == owner || self.is_exactly_kratos()))
    }

    async fn register_at(&self, agent: usize, instance: &ServiceInstance, id: &str, body: &[u8]) -> Result<(), Failed> {
        for (other, service) in self.client.alike(agent, id).await? {
            if other != id {
                let context = format!("Consul takes the ids {id:?} and {other:?} for one: it knows no case");
                return Err(Error::invalid(context).into());
            }
            if service != instance.service().as_str() {
                let context = format!(
                    "the service {service:?} has the id {id:?}, and an agent's ids are one space for all services: use \
                     another id, or ids=qualified"
                );
                return Err(Error::new(Kind::Conflict, context).into());
            }
        }
        self.client.register(agent, body.to_vec()).await?;
        if self.is_exactly_kratos() {
            self.client.pass(agent, id).await?;
        }
        Ok(())
    }

    async fn register(&self, instance: &Arc<ServiceInstance>) -> Result<Lease, Failed> {
        let (client, shape) = (&self.client, &self.client.config().shape);
        let owner = format!("callsign {:016x}", Rng::from_entropy().next_u64());
        let (body, id) = (shape.encode(instance, &owner)?, shape.id(instance));
        let mut tour = client.tour();
        while let Err(failed) = self.register_at(tour.agent(), instance, &id, &body).await {
            if !tour.goes_on(&failed) {
                return Err(failed);
            }
        }
        let agent = tour.agent();
        Ok(Lease::new(instance.clone(), shape.ttl, format!("{agent}/{owner}")))
    }
}

fn told<'a>(what: &'a str, instance: &'a ServiceInstance) -> impl Fn(Failed) -> Error + 'a {
    move |failed| failed.error.context(format!("cannot {what} {} of {}", instance.id(), instance.service()))
}

impl From<Consul> for Registry {
    fn from(consul: Consul) -> Self {
        Self::new(consul.client.config().name.clone(), Arc::new(consul))
    }
}

impl Registrar for Consul {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move { Self::register(self, instance).await.map_err(told("register", instance)) })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(async move {
            let Some((agent, id, owner)) = self.held(lease) else { return Ok(Renewal::Lost) };
            let told = told("renew", lease.instance());
            let alive = match self.is_held(agent, &id, owner).await.map_err(&told)? {
                true => self.client.pass(agent, &id).await.map_err(&told)?,
                false => false,
            };
            Ok(if alive { Renewal::Kept } else { Renewal::Lost })
        })
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some((agent, id, owner)) = self.held(lease) else { return Ok(()) };
            let told = told("deregister", lease.instance());
            if self.is_held(agent, &id, owner).await.map_err(&told)? {
                self.client.deregister(agent, &id).await.map_err(&told)?;
            }
            Ok(())
        })
    }
}

impl Discovery for Consul {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let config = self.client.config();
            let mut datacenters: Vec<_> = config.datacenters.iter().map(|name| Some(&**name)).collect();
            if datacenters.is_empty() {
                datacenters.push(None);
            }
            let (mut all, mut skipped, mut revision) = (Vec::new(), BTreeMap::new(), 0);
            for datacenter in datacenters {
                let mut tour = self.client.tour();
                let answer = loop {
                    match self.client.health(tour.agent(), service, datacenter, 0).await {
                        Ok(answer) => break answer,
                        Err(failed) if tour.goes_on(&failed) => {}
                        Err(failed) => {
                            let place = datacenter.map_or_else(String::new, |name| format!(" in {name}"));
                            return Err(failed.error.context(format!("cannot list {service}{place}")));
                        }
                    }
                };
                let (instances, wrong) = self.client.read(service, answer.body).await?;
                all.extend(instances);
                skipped.extend(wrong);
                revision = revision.max(answer.index);
            }
            Ok(Snapshot::new(all).with_revision(revision).with_skipped(skipped.len()))
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let follower = Follower::new(self.client.clone(), service.clone());
        Watch::driven(|sender| follower.drive(sender))
    }
}

#[cfg(fuzzing)]
pub(super) fn read_anything(service: &ServiceName, bytes: &[u8]) {
    let reading = codec::Reading { scheme: crate::instance::Scheme::Grpc, datacenter: true, most: 100 };
    drop(reading.decode(service, bytes));
}
