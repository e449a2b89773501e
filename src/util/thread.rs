//! Which thread this is.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A number of the thread's own, counted from 0 in the order that threads first ask.
pub(crate) fn index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static INDEX: usize = NEXT.fetch_add(1, Relaxed));
    INDEX.with(|index| *index)
}
