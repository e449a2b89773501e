//! The sessions of what is registered, each for as long as somebody renews it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::time::{Instant, sleep_until};

use super::client::Session;
use crate::util::task::{self, Task};

#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<String, Held>>);

#[derive(Debug)]
struct Held {
    session: Session,
    path: String,
    /// When it ends unless it is renewed.
    until: Instant,
    /// Whether it is being taken out: nothing renews it any more.
    ending: bool,
    _timer: Task,
}

impl Leases {
    /// Holds a session until it is not renewed for its TTL. Another one's of the same node has lost it.
    pub(super) fn insert(self: &Arc<Self>, token: String, path: String, session: Session) {
        let until = Instant::now() + session.ttl();
        let mut held = self.lock();
        held.retain(|_, other| other.path != path);
        // It waits for the lock.
        let timer = task::spawn(expire(Arc::downgrade(self), token.clone()));
        held.insert(token, Held { session, path, until, ending: false, _timer: timer });
    }

    /// The session and node of a lease, which is renewed by that: the asking counts, as ZooKeeper itself ends what it
    /// does not hear of.
    pub(super) fn touch(&self, token: &str) -> Option<(Session, String)> {
        let mut leases = self.lock();
        let held = leases.get_mut(token).filter(|held| !held.ending)?;
        held.until = Instant::now() + held.session.ttl();
        Some((held.session.clone(), held.path.clone()))
    }

    /// The same of a lease that nothing renews from now on.
    pub(super) fn end(&self, token: &str) -> Option<(Session, String)> {
        let mut leases = self.lock();
        let held = leases.get_mut(token)?;
        held.ending = true;
        Some((held.session.clone(), held.path.clone()))
    }

    pub(super) fn remove(&self, token: &str) {
        // Dropped without the lock.
        let held = self.lock().remove(token);
        drop(held);
    }

    fn until(&self, token: &str) -> Option<Instant> {
        self.lock().get(token).map(|held| held.until)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn expire(leases: Weak<Leases>, token: String) {
    while let Some(until) = leases.upgrade().and_then(|leases| leases.until(&token)) {
        if until <= Instant::now() {
            if let Some(leases) = leases.upgrade() {
                leases.remove(&token);
            }
            return;
        }
        sleep_until(until).await;
    }
}
