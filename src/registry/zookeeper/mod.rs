//! `zookeeper://`: an ensemble of ZooKeeper.

mod builder;
mod client;
mod codec;
mod config;
mod curator;
mod leases;
mod once;
mod pipe;
mod records;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{runtime::Id, sync::Mutex};

pub use self::{builder::ZooKeeperBuilder, codec::ZooKeeperLayout};
use self::{
    client::{Owner, Session},
    config::Config,
    leases::Leases,
    records::{Place, Records},
    watch::Follower,
};
use super::{BoxFuture, Discovery, Lease, Registrar, Registry, Renewal, Snapshot, Update, Watch};
use crate::{
    error::{Error, Result},
    instance::{ServiceInstance, ServiceName},
    util::task,
};

/// An ensemble of ZooKeeper as registry, byte for byte as Kratos uses it, or in another [layout](ZooKeeperLayout).
///
/// An instance is the ephemeral node `/microservices/SERVICE/ID` with its JSON, of a session of its own. A renewal looks
/// whether the node is there *and* is that session's: one that was deleted or replaced is [`Renewal::Lost`], so its
/// owner registers again. A lease that nobody renews ends with its TTL: its session is closed then.
///
/// All watches of one handle share one session. A watch lists once, then reads again only what an event names, and
/// everything after each loss of its connection.
///
/// Clones share sessions, made when first needed and closed when nobody needs them. See the
/// [guide](crate::guide::zookeeper) for URIs, permissions, and what happens when ZooKeeper is away.
///
/// ```no_run
/// # fn main() -> callsign::Result<()> {
/// use callsign::registry::ZooKeeper;
///
/// let zookeeper = ZooKeeper::builder(["10.0.0.5:2181", "10.0.0.6:2181"]).root("/prod").build()?;
/// let channel = callsign::Channel::builder("greeter").registry(zookeeper).connect_lazy()?;
/// # let _ = channel;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ZooKeeper {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    leases: Arc<Leases>,
    /// Of those who watch and list: of this runtime's, as it ends with that.
    reading: Mutex<Option<(Id, Shared)>>,
}

/// Closed when nobody reads any more.
type Shared = std::sync::Weak<Session>;

/// How long the last request of a server that waits to stop may take.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(3);

impl ZooKeeper {
    /// How long a session lives when it is not heard of, unless [set](ZooKeeperBuilder::session).
    pub const DEFAULT_SESSION: Duration = Duration::from_secs(15);

    /// Starts a registry on the members of one ensemble, each `host:port`.
    pub fn builder<E: Into<String>>(members: impl IntoIterator<Item = E>) -> ZooKeeperBuilder {
        ZooKeeperBuilder::new(members.into_iter().map(Into::into).collect())
    }

    fn of(config: Config) -> Self {
        let (config, leases) = (Arc::new(config), Arc::default());
        Self { inner: Arc::new(Inner { config, leases, reading: Mutex::new(None) }) }
    }

    fn place(&self, service: &ServiceName) -> Result<Place> {
        let Config { root, layout, max_instances, .. } = &*self.inner.config;
        let path = codec::service_path(root, service)?;
        Ok(Place { service: service.clone(), path, layout: *layout, most: *max_instances })
    }

    fn node(&self, instance: &ServiceInstance) -> Result<String> {
        codec::instance_path(&self.inner.config.root, instance)
    }
}

impl Inner {
    /// The session of all who read, a new one if there is none that lives.
    async fn session(&self) -> Result<Arc<Session>> {
        let runtime = task::require_runtime("ZooKeeper")?.id();
        let mut reading = self.reading.lock().await;
        let there = reading.as_ref().filter(|(id, _)| *id == runtime).and_then(|(_, session)| session.upgrade());
        if let Some(session) = there.filter(|session| !session.is_over()) {
            return Ok(session);
        }
        let session = Arc::new(Session::connect(&self.config).await?);
        *reading = Some((runtime, Arc::downgrade(&session)));
        Ok(session)
    }
}

impl From<ZooKeeper> for Registry {
    fn from(zookeeper: ZooKeeper) -> Self {
        Self::new(zookeeper.inner.config.name.clone(), Arc::new(zookeeper))
    }
}

fn told(what: &str, instance: &ServiceInstance) -> impl Fn(Error) -> Error {
    move |error| error.context(format!("cannot {what} {} of {}", instance.id(), instance.service()))
}

impl Registrar for ZooKeeper {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move {
            let (parent, path) = (self.place(instance.service())?.path, self.node(instance)?);
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let data = self.inner.config.layout.encode(instance, u64::try_from(at).unwrap_or_default())?;
            let told = told("register", instance);
            let session = Session::connect(&self.inner.config).await.map_err(&told)?;
            session.put(&parent, &path, data.as_bytes()).await.map_err(told)?;
            let (token, ttl) = (session.token(), session.ttl());
            self.inner.leases.insert(token.clone(), path, session);
            Ok(Lease::new(instance.clone(), ttl, token))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(async move {
            let leases = &self.inner.leases;
            let Some((session, path)) = leases.touch(lease.token()) else { return Ok(Renewal::Lost) };
            let owner = session.owner(&path).await;
            match owner {
                Ok(Owner::Us(_)) => Ok(Renewal::Kept),
                // Its end may be why there is no answer.
                Err(error) if !session.is_over() => Err(told("renew", lease.instance())(error)),
                _ => {
                    leases.remove(lease.token());
                    Ok(Renewal::Lost)
                }
            }
        })
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let leases = &self.inner.leases;
            let Some((session, path)) = leases.end(lease.token()) else { return Ok(()) };
            let removed = session.remove(&path, DEREGISTER_WITHIN).await;
            // Whatever it says: nobody renews it any more, and the node goes with the session.
            leases.remove(lease.token());
            removed.map_err(told("deregister", lease.instance()))
        })
    }
}

impl Discovery for ZooKeeper {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let place = self.place(service)?;
            let listed = async {
                let session = self.inner.session().await?;
                Records::list(&session, &place).await
            };
            let records = listed.await.map_err(|error| error.context(format!("cannot list {service}")))?;
            Ok(records.map_or_else(Snapshot::default, |records| records.snapshot()))
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (inner, place) = (self.inner.clone(), self.place(service));
        Watch::driven(|sender| async move {
            match place {
                Ok(place) => Follower::new(inner, place).drive(sender).await,
                Err(error) => {
                    sender.send(Update::Unavailable(error));
                    sender.closed().await;
                }
            }
        })
    }
}

#[cfg(fuzzing)]
pub(super) fn read_anything(service: &ServiceName, bytes: &[u8]) {
    for layout in [ZooKeeperLayout::Kratos, ZooKeeperLayout::Curator, ZooKeeperLayout::Spring] {
        drop(layout.decode(service, bytes));
    }
}
