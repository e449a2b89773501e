//! `memory://`: a registry within one process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{BoxFuture, Discovery, Lease, Registrar, Registry, Renewal, Snapshot, Update, Watch, WatchSender};
use crate::{
    error::Result,
    instance::{InstanceId, ServiceInstance, ServiceName},
    target::{RegistryUri, ttl_param},
};

/// A registry within one process: for tests, and for services that share a process.
///
/// Clones are the same registry. Leases end by Tokio's clock.
#[derive(Debug, Clone)]
pub struct Memory {
    state: Arc<State>,
    ttl: Duration,
}

#[derive(Debug, Default)]
struct State {
    services: Mutex<Services>,
}

#[derive(Debug, Default)]
struct Services {
    by_name: HashMap<ServiceName, Service>,
    tokens: u64,
}

#[derive(Debug, Default)]
struct Service {
    records: BTreeMap<InstanceId, Record>,
    /// Counts the changes; each watch has a receiver.
    revision: watch::Sender<u64>,
    /// Whether an instance was ever here, as far as anybody remembers.
    known: bool,
}

#[derive(Debug)]
struct Record {
    instance: Arc<ServiceInstance>,
    token: Arc<str>,
    expires: Instant,
}

impl Memory {
    /// How long a lease lives without a renewal, unless [set](Self::with_ttl).
    pub const DEFAULT_TTL: Duration = Duration::from_secs(15);

    /// An empty registry that nobody else has.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::default(), ttl: Self::DEFAULT_TTL }
    }

    /// The registry of this name, one for the whole process while somebody holds it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        static NAMED: LazyLock<Mutex<HashMap<String, Weak<State>>>> = LazyLock::new(Mutex::default);
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        let state = named.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            named.retain(|_, state| state.strong_count() > 0);
            let state = Arc::default();
            named.insert(name.to_owned(), Arc::downgrade(&state));
            state
        });
        Self { state, ttl: Self::DEFAULT_TTL }
    }

    /// Sets how long leases made through this handle live without a renewal. Default 15 s.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Opens `memory://NAME?ttl=15s`; a path behind the name is part of it.
    pub(crate) fn open(uri: &RegistryUri) -> Result<Registry> {
        uri.expect_params(&["ttl"])?;
        let name = format!("{}{}", uri.authority(), uri.path());
        let ttl = ttl_param(uri)?.unwrap_or(Self::DEFAULT_TTL);
        Ok(Registry::new(format!("memory://{name}"), Arc::new(Self::named(&name).with_ttl(ttl))))
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Memory> for Registry {
    fn from(memory: Memory) -> Self {
        Self::new("memory://", Arc::new(memory))
    }
}

impl Registrar for Memory {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move { Ok(self.state.register(instance.clone(), self.ttl)) })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(async move { Ok(self.state.renew(lease)) })
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.state.deregister(lease);
            Ok(())
        })
    }
}

impl Discovery for Memory {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move { Ok(self.state.read(service).snapshot) })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let subscription = Subscription::new(self.state.clone(), service.clone());
        Watch::driven(|sender| subscription.drive(sender))
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, instance: Arc<ServiceInstance>, ttl: Duration) -> Lease {
        let mut services = self.lock();
        services.tokens += 1;
        let token: Arc<str> = services.tokens.to_string().into();
        let now = Instant::now();
        let service = services.by_name.entry(instance.service().clone()).or_default();
        service.expire(now);
        service.known = true;
        let record = Record { instance: instance.clone(), token: token.clone(), expires: now + ttl };
        service.records.insert(instance.id().clone(), record);
        service.changed();
        Lease::new(instance, ttl, token)
    }

    fn renew(&self, lease: &Lease) -> Renewal {
        let now = Instant::now();
        let mut services = self.lock();
        let record = services
            .by_name
            .get_mut(lease.service())
            .and_then(|service| service.records.get_mut(lease.id()))
            .filter(|record| *record.token == *lease.token() && record.expires > now);
        match record {
            Some(record) => {
                record.expires = now + lease.ttl();
                Renewal::Kept
            }
            None => Renewal::Lost,
        }
    }

    fn deregister(&self, lease: &Lease) {
        let mut services = self.lock();
        let Some(service) = services.by_name.get_mut(lease.service()) else { return };
        if service.records.get(lease.id()).is_some_and(|record| *record.token == *lease.token()) {
            service.records.remove(lease.id());
            service.changed();
        }
        services.forget_if_unused(lease.service());
    }

    /// What is registered now, and when that changes by itself.
    fn read(&self, service: &ServiceName) -> Reading {
        let now = Instant::now();
        let mut services = self.lock();
        let Some(service) = services.by_name.get_mut(service) else { return Reading::default() };
        service.expire(now);
        let instances = service.records.values().map(|record| record.instance.clone());
        Reading {
            snapshot: Snapshot::new(instances).with_revision(*service.revision.borrow()),
            known: service.known,
            until: service.records.values().map(|record| record.expires).min(),
        }
    }
}

#[derive(Default)]
struct Reading {
    snapshot: Snapshot,
    known: bool,
    until: Option<Instant>,
}

impl Services {
    /// Keeps the table no larger than what is registered or watched.
    fn forget_if_unused(&mut self, name: &ServiceName) {
        let unused = |service: &Service| service.records.is_empty() && service.revision.receiver_count() == 0;
        if self.by_name.get(name).is_some_and(unused) {
            self.by_name.remove(name);
        }
    }
}

impl Service {
    fn expire(&mut self, now: Instant) {
        let before = self.records.len();
        self.records.retain(|_, record| record.expires > now);
        if self.records.len() != before {
            self.changed();
        }
    }

    fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

/// One watch's share of a service's entry.
struct Subscription {
    state: Arc<State>,
    service: ServiceName,
    changes: Option<watch::Receiver<u64>>,
}

impl Subscription {
    fn new(state: Arc<State>, service: ServiceName) -> Self {
        let changes = state.lock().by_name.entry(service.clone()).or_default().revision.subscribe();
        Self { state, service, changes: Some(changes) }
    }

    /// Tells each change, and each end of a lease at the moment it ends.
    async fn drive(mut self, sender: WatchSender) {
        loop {
            if let Some(changes) = &mut self.changes {
                changes.mark_unchanged();
            }
            let Reading { snapshot, known, until } = self.state.read(&self.service);
            sender.send(if known { Update::Instances(snapshot) } else { Update::NotFound });
            let Some(changes) = &mut self.changes else { return };
            let ended = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = ended => {}
                () = sender.closed() => return,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut services = self.state.lock();
        self.changes = None;
        services.forget_if_unused(&self.service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str) -> Arc<ServiceInstance> {
        Arc::new(ServiceInstance::builder("s", id).and_then(|builder| builder.build()).expect("valid"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_expiry_is_told_without_anybody_asking() {
        let memory = Memory::new().with_ttl(Duration::from_secs(5));
        let mut watch = memory.watch(instance("a").service());
        assert!(watch.next().await.expect("open").is_not_found());
        let lease = memory.register(&instance("a")).await.expect("memory");
        assert_eq!(watch.next().await.expect("open").snapshot().expect("known").instances().len(), 1);

        let begun = Instant::now();
        let view = watch.next().await.expect("open");
        assert!(view.snapshot().expect("known").instances().is_empty() && !view.is_not_found());
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(memory.renew(&lease).await.expect("memory"), Renewal::Lost);
    }

    #[tokio::test]
    async fn nothing_is_left_of_what_nobody_holds() {
        let memory = Memory::new();
        let lease = memory.register(&instance("a")).await.expect("memory");
        let watch = memory.watch(lease.service());
        memory.deregister(&lease).await.expect("memory");
        assert_eq!(memory.state.lock().by_name.len(), 1);
        drop(watch);
        while !memory.state.lock().by_name.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_name_is_one_registry_while_somebody_holds_it() {
        let name = "a_name_is_one_registry";
        let one = Memory::named(name);
        one.register(&instance("a")).await.expect("memory");
        let list = |memory: Memory| async move { memory.list(instance("a").service()).await.expect("memory") };
        assert_eq!(list(Memory::named(name)).await.instances().len(), 1);
        assert!(list(Memory::new()).await.instances().is_empty());
        drop(one);
        assert!(list(Memory::named(name)).await.instances().is_empty());
    }
}
