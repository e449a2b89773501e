//! One upstream watch for all who follow the same service.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::{Handle, Id},
    time::sleep,
};

use super::{BoxFuture, Discovery, Snapshot, Watch};
use crate::{
    error::Result,
    instance::ServiceName,
    util::task::{self, Task},
};

/// A discovery that asks another one only once for a service, however many follow it.
///
/// Who comes second is told at once what is known. When the last one leaves, the watch upstream
/// goes on for a while, so that whoever comes back then need not begin anew.
///
/// Clones share all of that. A watch keeps what it is shared by alive, as does its linger.
#[derive(Debug, Clone)]
pub struct Shared {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    upstream: Arc<dyn Discovery>,
    linger: Duration,
    entries: Mutex<HashMap<Key, Entry>>,
}

/// Of each runtime its own: a watch is worked on where it was opened, and ends with that runtime.
type Key = (ServiceName, Id);

#[derive(Debug)]
struct Entry {
    watch: Watch,
    /// How many [`Follower`]s there are.
    followers: usize,
    /// Which upstream watch this is, counted over the life of the entry's key.
    generation: u64,
    /// Takes the entry out when nobody comes back.
    lingering: Option<Task>,
}

impl Shared {
    /// How long the watch upstream outlives the last one who follows it, unless set.
    pub const DEFAULT_LINGER: Duration = Duration::from_secs(30);

    /// Shares the watches of a discovery.
    #[must_use]
    pub fn new(upstream: Arc<dyn Discovery>) -> Self {
        Self::with_linger(upstream, Self::DEFAULT_LINGER)
    }

    /// Shares the watches of a discovery, with another linger than [the default](Self::DEFAULT_LINGER).
    #[must_use]
    pub fn with_linger(upstream: Arc<dyn Discovery>, linger: Duration) -> Self {
        Self { state: Arc::new(State { upstream, linger, entries: Mutex::default() }) }
    }

    pub(crate) fn downgrade(&self) -> WeakShared {
        WeakShared(Arc::downgrade(&self.state))
    }
}

/// A [`Shared`] for as long as somebody else holds it, or a watch of it.
#[derive(Debug, Clone)]
pub(crate) struct WeakShared(Weak<State>);

impl WeakShared {
    pub(crate) fn upgrade(&self) -> Option<Shared> {
        self.0.upgrade().map(|state| Shared { state })
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Discovery for Shared {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        self.state.upstream.list(service)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let runtime = Handle::current();
        let key = (service.clone(), runtime.id());
        let (watch, generation, replaced) = self.state.follow(&key);
        // Its end may run another's code, which must not find the table locked.
        drop(replaced);
        let follower = Follower { _upstream: watch.clone(), state: self.state.clone(), runtime, key, generation };
        watch.holding(Arc::new(follower))
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more in: on the watch there is, unless it is over.
    ///
    /// The upstream is asked under the lock, so that two who come at once do not ask twice.
    fn follow(&self, key: &Key) -> (Watch, u64, Option<Entry>) {
        let mut entries = self.lock();
        let over = entries.get(key).filter(|entry| entry.watch.is_over()).map(|entry| entry.generation);
        let replaced = over.and_then(|_| entries.remove(key));
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            watch: self.upstream.watch(&key.0),
            followers: 0,
            generation: over.map_or(0, |generation| generation + 1),
            lingering: None,
        });
        entry.followers += 1;
        entry.lingering = None;
        (entry.watch.clone(), entry.generation, replaced)
    }

    /// Takes out an entry that nobody follows; what is returned is to be dropped without the lock.
    fn forget(&self, key: &Key, generation: u64) -> Option<Entry> {
        let mut entries = self.lock();
        let unused = |entry: &Entry| entry.followers == 0 && entry.generation == generation;
        entries.get(key).is_some_and(unused).then(|| entries.remove(key)).flatten()
    }
}

/// One watch and its clones.
#[derive(Debug)]
struct Follower {
    _upstream: Watch,
    state: Arc<State>,
    runtime: Handle,
    key: Key,
    generation: u64,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut entries = self.state.lock();
        let Some(entry) = entries.get_mut(&self.key).filter(|entry| entry.generation == self.generation) else {
            return;
        };
        entry.followers -= 1;
        if entry.followers == 0 {
            let (state, linger) = (self.state.clone(), self.state.linger);
            let (key, generation) = (self.key.clone(), self.generation);
            // A watch may be dropped where no runtime is.
            let _entered = self.runtime.enter();
            entry.lingering = Some(task::spawn(async move {
                sleep(linger).await;
                drop(state.forget(&key, generation));
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ServiceInstance, testing::FakeRegistry};

    const LINGER: Duration = Duration::from_secs(30);

    fn shared() -> (FakeRegistry, Shared, ServiceName) {
        let fake = FakeRegistry::new();
        (fake.clone(), Shared::with_linger(Arc::new(fake), LINGER), "s".parse().expect("a name"))
    }

    fn instance(id: &str) -> ServiceInstance {
        ServiceInstance::builder("s", id).and_then(|builder| builder.build()).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn many_followers_are_one_upstream_which_lingers() {
        let (fake, shared, service) = shared();
        let followers: Vec<_> = (0..100).map(|_| shared.watch(&service)).collect();
        assert_eq!(fake.counts().watches_opened, 1);
        drop(followers);
        sleep(LINGER / 2).await;
        let mut back = shared.watch(&service);
        fake.set("s", [instance("a")]);
        assert!(back.next().await.expect("open").snapshot().is_some());
        sleep(LINGER * 2).await;
        assert_eq!((fake.counts().watches_opened, fake.counts().watches_alive), (1, 1), "a follower came back");

        drop(back);
        sleep(LINGER + Duration::from_millis(1)).await;
        assert_eq!(fake.counts().watches_alive, 0);
        assert!(shared.state.lock().is_empty());
    }

    /// Kratos #3185, #3162, #3402: the last watcher's end raced the next one's begin.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_storm_of_comings_and_goings_leaves_nobody_without_updates() {
        let fake = FakeRegistry::new();
        let shared = Arc::new(Shared::with_linger(Arc::new(fake.clone()), Duration::ZERO));
        let service: ServiceName = "s".parse().expect("a name");
        let mut storm = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (shared, service) = (shared.clone(), service.clone());
            storm.spawn(async move {
                for n in 0..500 {
                    let mut watch = shared.watch(&service);
                    if n % 3 == 0 {
                        watch.next().await.expect("open");
                    }
                    tokio::task::yield_now().await;
                }
                shared.watch(&service)
            });
        }
        let mut last = storm.join_all().await;
        fake.set("s", [instance("a")]);
        for watch in &mut last {
            while watch.next().await.expect("open").is_not_found() {}
        }
        assert_eq!(fake.counts().watches_alive, 1);
    }

    #[tokio::test]
    async fn a_watch_that_is_over_is_opened_anew() {
        let (fake, shared, service) = shared();
        let mut one = shared.watch(&service);
        fake.end_watches();
        while one.next().await.is_some() {}
        let mut two = shared.watch(&service);
        drop(one);
        assert!(two.next().await.is_some());
        assert_eq!(fake.counts().watches_alive, 1, "the old one's end does not count against the new");
        assert_eq!(shared.state.lock().values().map(|entry| entry.followers).sum::<usize>(), 1);
    }
}
