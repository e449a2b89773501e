//! How many requests are in flight, and whether no more are to come.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::Notify;

/// Clones are the same count.
#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<Flight>);

#[derive(Default)]
struct Flight {
    count: AtomicUsize,
    /// Those who wait until there are none: mostly nobody, and then a request's end wakes nobody.
    waiting: AtomicUsize,
    draining: AtomicBool,
    changed: Notify,
}

impl InFlight {
    /// One more, until it [leaves](Self::leave).
    pub(super) fn enter(&self) {
        self.0.count.fetch_add(1, SeqCst);
    }

    pub(super) fn leave(&self) {
        if self.0.count.fetch_sub(1, SeqCst) == 1 && self.0.waiting.load(SeqCst) > 0 {
            self.0.changed.notify_waiters();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.count.load(SeqCst)
    }

    pub(super) fn drain(&self) {
        self.0.draining.store(true, SeqCst);
        self.0.changed.notify_waiters();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.draining.load(SeqCst)
    }

    /// Waits until none is in flight.
    pub(super) async fn idle(&self) {
        let waiting = Waiting::new(&self.0);
        self.wait_for(|| self.count() == 0).await;
        drop(waiting);
    }

    /// Waits until it drains.
    pub(super) async fn draining(&self) {
        self.wait_for(|| self.is_draining()).await;
    }

    async fn wait_for(&self, done: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Listen before looking: what changes in between wakes us.
            changed.as_mut().enable();
            if done() {
                return;
            }
            changed.await;
        }
    }
}

struct Waiting<'a>(&'a Flight);

impl<'a> Waiting<'a> {
    fn new(flight: &'a Flight) -> Self {
        flight.waiting.fetch_add(1, SeqCst);
        Self(flight)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("count", &self.count()).field("draining", &self.is_draining()).finish()
    }
}
