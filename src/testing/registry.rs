//! A registry that does what a test tells it to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    error::{Error, Kind, Result},
    instance::{InstanceId, ServiceInstance, ServiceName},
    registry::{BoxFuture, Discovery, Lease, Registrar, Registry, Renewal, Snapshot, Update, Watch, WatchSender},
};

/// A registry that does what a test tells it to, and counts what is asked of it.
///
/// Clones are the same registry. It holds what is registered and what a test [sets](Self::set);
/// leases end only when a test says so. Any operation can be made to fail or to hang.
///
/// ```
/// use callsign::{ServiceInstance, registry::{Discovery, Watch}, testing::{FakeRegistry, Fault}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> callsign::Result<()> {
/// let registry = FakeRegistry::new();
/// registry.set("greeter", [ServiceInstance::builder("greeter", "a")?.build()?]);
/// let mut watch: Watch = registry.watch(&"greeter".parse()?);
/// registry.outage(Fault::Error);
///
/// let view = watch.next().await.expect("a watch");
/// assert!(view.outage().is_some());
/// assert_eq!(view.snapshot().map(|snapshot| snapshot.instances().len()), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FakeRegistry {
    state: Arc<State>,
    ttl: Duration,
}

/// What can be asked of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Registrar::register`].
    Register,
    /// [`Registrar::renew`].
    Renew,
    /// [`Registrar::deregister`].
    Deregister,
    /// [`Discovery::list`].
    List,
    /// [`Discovery::watch`].
    Watch,
}

impl Operation {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Register, Self::Renew, Self::Deregister, Self::List, Self::Watch];
}

/// What is wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails at once with [`Kind::Unavailable`]; a watch tells an outage.
    Error,
    /// It fails at once with [`Kind::InvalidInput`], which no retry mends; a watch tells an outage.
    Refuse,
    /// It waits until the fault is taken away; a watch tells nothing.
    Hang,
}

/// How often what was asked, whether it succeeded or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Calls of [`Registrar::register`].
    pub registers: usize,
    /// Calls of [`Registrar::renew`].
    pub renews: usize,
    /// Calls of [`Registrar::deregister`].
    pub deregisters: usize,
    /// Calls of [`Discovery::list`].
    pub lists: usize,
    /// Calls of [`Discovery::watch`].
    pub watches_opened: usize,
    /// Watches that somebody still holds.
    pub watches_alive: usize,
}

#[derive(Debug)]
struct State {
    inner: Mutex<Inner>,
    counts: watch::Sender<Counts>,
    faults: watch::Sender<HashMap<Operation, Fault>>,
}

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<ServiceName, Service>,
    watches: BTreeMap<u64, (ServiceName, WatchSender)>,
    next: u64,
}

#[derive(Debug, Default)]
struct Service {
    instances: BTreeMap<InstanceId, Arc<ServiceInstance>>,
    leases: HashMap<InstanceId, Arc<str>>,
}

impl FakeRegistry {
    /// An empty registry in good health.
    #[must_use]
    pub fn new() -> Self {
        let state =
            State { inner: Mutex::default(), counts: watch::Sender::default(), faults: watch::Sender::default() };
        Self { state: Arc::new(state), ttl: Duration::from_secs(15) }
    }

    /// Sets what leases say their TTL is; nothing ends by it. Default 15 s.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Makes these all the instances of a service and tells the watches. Leases on others are lost.
    ///
    /// # Panics
    ///
    /// Panics if the service's name is none.
    pub fn set(&self, service: &str, instances: impl IntoIterator<Item = ServiceInstance>) {
        let name = service_name(service);
        let mut inner = self.state.lock();
        let service = inner.services.entry(name.clone()).or_default();
        service.instances = instances.into_iter().map(|instance| (instance.id().clone(), Arc::new(instance))).collect();
        let Service { instances, leases } = service;
        leases.retain(|id, _| instances.contains_key(id));
        self.state.tell(&inner, &name);
    }

    /// Tells the watches of a service something that need not be true.
    ///
    /// # Panics
    ///
    /// Panics if the service's name is none.
    #[allow(clippy::needless_pass_by_value, reason = "as a `WatchSender` takes it")]
    pub fn update(&self, service: &str, update: Update) {
        let name = service_name(service);
        for (_, watch) in self.state.lock().watches.values().filter(|(service, _)| *service == name) {
            watch.send(update.clone());
        }
    }

    /// Sets what is wrong with one operation; with none it works, and what hung goes on.
    pub fn fault(&self, operation: Operation, fault: impl Into<Option<Fault>>) {
        let fault = fault.into();
        self.state.faults.send_modify(|faults| {
            faults.remove(&operation);
            faults.extend(fault.map(|fault| (operation, fault)));
        });
        if operation == Operation::Watch {
            self.state.tell_all();
        }
    }

    /// Sets the same fault for all operations.
    pub fn outage(&self, fault: Fault) {
        self.state.faults.send_modify(|faults| faults.extend(Operation::ALL.map(|operation| (operation, fault))));
        self.state.tell_all();
    }

    /// Takes all faults away: what hung goes on, watches tell what is true.
    pub fn recover(&self) {
        self.state.faults.send_modify(HashMap::clear);
        self.state.tell_all();
    }

    /// Takes out every instance of this id as if its lease had ended: its renewal will say that it is lost.
    pub fn lose_lease(&self, id: &str) {
        let mut inner = self.state.lock();
        let mut hit = Vec::new();
        for (name, service) in &mut inner.services {
            service.leases.remove(id);
            if service.instances.remove(id).is_some() {
                hit.push(name.clone());
            }
        }
        for name in hit {
            self.state.tell(&inner, &name);
        }
    }

    /// Ends every open watch, as a registry that gives up would.
    pub fn end_watches(&self) {
        self.state.lock().watches.clear();
    }

    /// The instances of a service, sorted by id, whatever the watches were told.
    ///
    /// # Panics
    ///
    /// Panics if the service's name is none.
    pub fn instances(&self, service: &str) -> Vec<Arc<ServiceInstance>> {
        let inner = self.state.lock();
        let service = inner.services.get(&service_name(service));
        service.into_iter().flat_map(|service| service.instances.values().cloned()).collect()
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        *self.state.counts.borrow()
    }

    /// Waits until what was asked fulfils a condition.
    pub async fn until(&self, mut condition: impl FnMut(&Counts) -> bool + Send) -> Counts {
        let mut counts = self.state.counts.subscribe();
        // The sender lives as long as `self`.
        counts.wait_for(|counts| condition(counts)).await.map_or_else(|_| self.counts(), |counts| *counts)
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        self.state.counts.send_modify(count);
    }

    /// Suffers the fault of an operation, if it has one.
    async fn pass(&self, operation: Operation) -> Result<()> {
        let mut faults = self.state.faults.subscribe();
        loop {
            let fault = faults.borrow_and_update().get(&operation).copied();
            match fault {
                None => return Ok(()),
                Some(Fault::Hang) => {
                    // The sender lives as long as `self`.
                    let _ = faults.changed().await;
                }
                Some(fault) => return Err(fault.error(operation)),
            }
        }
    }
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl From<FakeRegistry> for Registry {
    fn from(fake: FakeRegistry) -> Self {
        Self::new("fake://", Arc::new(fake))
    }
}

impl Fault {
    fn error(self, operation: Operation) -> Error {
        let kind = if self == Self::Refuse { Kind::InvalidInput } else { Kind::Unavailable };
        Error::new(kind, format!("the fake registry fails each {operation:?} because a test said so"))
    }
}

impl Registrar for FakeRegistry {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move {
            self.count(|counts| counts.registers += 1);
            self.pass(Operation::Register).await?;
            let mut inner = self.state.lock();
            inner.next += 1;
            let token: Arc<str> = inner.next.to_string().into();
            let service = inner.services.entry(instance.service().clone()).or_default();
            service.instances.insert(instance.id().clone(), instance.clone());
            service.leases.insert(instance.id().clone(), token.clone());
            self.state.tell(&inner, instance.service());
            Ok(Lease::new(instance.clone(), self.ttl, token))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(async move {
            self.count(|counts| counts.renews += 1);
            self.pass(Operation::Renew).await?;
            let inner = self.state.lock();
            Ok(if inner.holds(lease) { Renewal::Kept } else { Renewal::Lost })
        })
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.count(|counts| counts.deregisters += 1);
            self.pass(Operation::Deregister).await?;
            let mut inner = self.state.lock();
            if inner.holds(lease)
                && let Some(service) = inner.services.get_mut(lease.service())
            {
                service.instances.remove(lease.id());
                service.leases.remove(lease.id());
                self.state.tell(&inner, lease.service());
            }
            Ok(())
        })
    }
}

impl Discovery for FakeRegistry {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            self.count(|counts| counts.lists += 1);
            self.pass(Operation::List).await?;
            Ok(self.state.lock().snapshot(service).unwrap_or_default())
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (sender, watch) = Watch::channel();
        let mut inner = self.state.lock();
        inner.next += 1;
        let number = inner.next;
        inner.watches.insert(number, (service.clone(), sender));
        self.state.tell(&inner, service);
        drop(inner);
        self.count(|counts| {
            counts.watches_opened += 1;
            counts.watches_alive += 1;
        });
        watch.holding(Arc::new(Open { number, state: self.state.clone() }))
    }
}

/// Held by a watch and its clones.
#[derive(Debug)]
struct Open {
    number: u64,
    state: Arc<State>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.lock().watches.remove(&self.number);
        self.state.counts.send_modify(|counts| counts.watches_alive -= 1);
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_all(&self) {
        let inner = self.lock();
        for (service, sender) in inner.watches.values() {
            self.tell_one(&inner, service, sender);
        }
    }

    fn tell(&self, inner: &Inner, service: &ServiceName) {
        for (_, sender) in inner.watches.values().filter(|(name, _)| name == service) {
            self.tell_one(inner, service, sender);
        }
    }

    fn tell_one(&self, inner: &Inner, service: &ServiceName, sender: &WatchSender) {
        let fault = self.faults.borrow().get(&Operation::Watch).copied();
        sender.send(match fault {
            Some(Fault::Hang) => return,
            Some(fault) => Update::Unavailable(fault.error(Operation::Watch)),
            None => inner.snapshot(service).map_or(Update::NotFound, Update::Instances),
        });
    }
}

impl Inner {
    fn snapshot(&self, service: &ServiceName) -> Option<Snapshot> {
        self.services.get(service).map(|service| Snapshot::new(service.instances.values().cloned()))
    }

    fn holds(&self, lease: &Lease) -> bool {
        let held = self.services.get(lease.service()).and_then(|service| service.leases.get(lease.id()));
        held.is_some_and(|token| **token == *lease.token())
    }
}

#[allow(clippy::expect_used, reason = "a test's own mistake, documented to panic")]
fn service_name(name: &str) -> ServiceName {
    name.parse().expect("a service's name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str) -> Arc<ServiceInstance> {
        Arc::new(ServiceInstance::builder("s", id).and_then(|builder| builder.build()).expect("valid"))
    }

    #[tokio::test]
    async fn what_hung_goes_on_when_the_fault_is_gone() {
        let fake = FakeRegistry::new();
        fake.fault(Operation::Register, Fault::Hang);
        let instance = instance("a");
        let mut register = fake.register(&instance);
        assert!(futures_util::poll!(&mut register).is_pending());
        fake.recover();
        let lease = register.await.expect("recovered");
        assert_eq!(fake.renew(&lease).await.expect("up"), Renewal::Kept);
        fake.lose_lease("a");
        assert_eq!(fake.renew(&lease).await.expect("up"), Renewal::Lost);
        assert_eq!(fake.until(|counts| counts.renews == 2).await.registers, 1);
    }

    #[tokio::test]
    async fn watches_are_told_and_counted() {
        let fake = FakeRegistry::new();
        let mut watch = fake.watch(instance("a").service());
        assert!(watch.next().await.expect("open").is_not_found());
        fake.outage(Fault::Error);
        assert!(watch.next().await.expect("open").outage().is_some());
        fake.set("s", []);
        fake.recover();
        let view = watch.next().await.expect("open");
        assert!(view.outage().is_none() && !view.is_not_found());
        fake.end_watches();
        assert!(watch.next().await.is_none());
        assert_eq!(fake.counts().watches_alive, 1);
        drop(watch);
        assert_eq!((fake.counts().watches_alive, fake.counts().watches_opened), (0, 1));
    }
}
