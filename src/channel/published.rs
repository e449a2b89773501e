//! What the pool publishes and each call reads: a picker and its connections, as one value.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use super::connections::Connections;
use crate::{
    balance::{Node, Picker},
    error::Error,
    util::thread,
};

/// One state of a channel.
#[allow(clippy::large_enum_variant, reason = "the large one is the common one, and lives behind an Arc")]
#[derive(Debug)]
pub(super) enum Published {
    /// Calls are picked.
    Ready(Ready),
    /// Nothing is ready, but something may become so: calls wait. The error says for what.
    Waiting(Error),
    /// Nobody used the channel for long: it has no connections until it is woken.
    Idle,
    /// Everything was tried and failed, or there is nothing: calls fail unless they wait.
    Failing(Error),
}

/// What calls pick from: the picker knows the nodes by position, and each has its connections.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) picker: Box<dyn Picker>,
    pub(super) nodes: Box<[Node]>,
    pub(super) connections: Box<[Arc<Connections>]>,
    pub(super) recent: Recent,
}

/// Where the last call of each thread went.
#[derive(Debug, Default)]
pub(super) struct Recent([Place; 16]);

/// Alone on its cache line: each is written by one thread, or by few.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place(AtomicUsize);

impl Recent {
    /// The position, if there was a call.
    pub(super) fn get(&self) -> Option<usize> {
        self.place().load(Relaxed).checked_sub(1)
    }

    pub(super) fn set(&self, at: usize) {
        let place = self.place();
        // Mostly it is the same.
        if place.load(Relaxed) != at + 1 {
            place.store(at + 1, Relaxed);
        }
    }

    fn place(&self) -> &AtomicUsize {
        &self.0[thread::index() % self.0.len()].0
    }
}

/// Where the pool publishes: readers never wait for the writer, nor for each other.
#[derive(Debug)]
pub(super) struct PickerCell {
    current: ArcSwap<Published>,
    changed: Notify,
}

impl PickerCell {
    pub(super) fn new(published: Published) -> Self {
        Self { current: ArcSwap::from_pointee(published), changed: Notify::new() }
    }

    pub(super) fn load(&self) -> Guard<Arc<Published>> {
        self.current.load()
    }

    pub(super) fn publish(&self, published: Published) {
        self.current.store(Arc::new(published));
        self.changed.notify_waiters();
    }

    /// Waits until `look` finds in a state what it looks for, beginning with the present one.
    pub(super) async fn wait_for<T>(&self, mut look: impl FnMut(&Arc<Published>) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Listen before looking: what is published in between wakes us.
            changed.as_mut().enable();
            if let Some(found) = look(&self.load()) {
                return found;
            }
            changed.await;
        }
    }
}
