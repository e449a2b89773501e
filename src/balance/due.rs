//! What one of the threads that pick does for all, now and then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// When it is to be done again, in microseconds; at once, to begin with.
#[derive(Debug, Default)]
pub(super) struct Due(AtomicU64);

impl Due {
    /// Whether it is this caller's turn now, nobody else's until a period has passed: how many microseconds after the turn
    /// before, 0 if there was none.
    pub(super) fn take(&self, micros: u64, period: u64) -> Option<u64> {
        let due = self.0.load(Relaxed);
        let next = micros.saturating_add(period);
        let is_mine = micros >= due && self.0.compare_exchange(due, next, Relaxed, Relaxed).is_ok();
        is_mine.then(|| if due == 0 { 0 } else { micros - due.saturating_sub(period) })
    }
}
