//! What the pool publishes and each call reads: a picker and its connections, as one value.

use std::{pin::pin, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use super::connections::Connections;
use crate::{
    balance::{Node, Picker},
    error::Error,
};

/// One state of a channel.
#[derive(Debug)]
pub(super) enum Published {
    /// Calls are picked: the picker knows the nodes by position, and each has its connections.
    Ready { picker: Box<dyn Picker>, nodes: Box<[Node]>, connections: Box<[Arc<Connections>]> },
    /// Nothing is ready, but something may become so: calls wait. The error says for what.
    Waiting(Error),
    /// Nobody used the channel for long: it has no connections until it is woken.
    Idle,
    /// Everything was tried and failed, or there is nothing: calls fail unless they wait.
    Failing(Error),
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
