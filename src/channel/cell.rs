//! A value that one task replaces and every call reads.

use std::{pin::pin, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

/// Readers never wait for the writer, nor for each other.
#[derive(Debug)]
pub(super) struct Cell<T> {
    current: ArcSwap<T>,
    changed: Notify,
}

impl<T: Send + Sync> Cell<T> {
    pub(super) fn new(published: T) -> Self {
        Self { current: ArcSwap::from_pointee(published), changed: Notify::new() }
    }

    pub(super) fn load(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    pub(super) fn publish(&self, published: T) {
        self.current.store(Arc::new(published));
        self.changed.notify_waiters();
    }

    /// Waits until `look` finds in a state what it looks for, beginning with the present one.
    pub(super) async fn wait_for<F>(&self, mut look: impl FnMut(&Arc<T>) -> Option<F> + Send) -> F {
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
