//! What is known of an endpoint's load: counters that outlive every picker.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// How a call ended, as far as its endpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The server answered, whatever it said to the application.
    Success,
    /// The server, or the way to it, failed.
    Failure,
    /// The caller went away before the end.
    Cancelled,
}

/// The load of one endpoint, as one channel sees it.
// A cache line of its own: calls on two endpoints must not fight for one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct LoadCell {
    in_flight: AtomicU32,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl LoadCell {
    /// Calls that have begun and not ended; a stream counts for as long as it lives.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Calls that the server answered.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Relaxed)
    }

    /// Calls that the server, or the way to it, failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Counts a call in, until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> CallGuard {
        self.in_flight.fetch_add(1, Relaxed);
        CallGuard { cell: self.clone(), outcome: Outcome::Cancelled }
    }
}

/// A call in flight; dropping it without a word counts it as cancelled.
#[derive(Debug)]
#[must_use = "the call is counted out when this is dropped"]
pub struct CallGuard {
    cell: Arc<LoadCell>,
    outcome: Outcome,
}

impl CallGuard {
    /// Ends the call.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.cell.in_flight.fetch_sub(1, Relaxed);
        match self.outcome {
            Outcome::Success => drop(self.cell.succeeded.fetch_add(1, Relaxed)),
            Outcome::Failure => drop(self.cell.failed.fetch_add(1, Relaxed)),
            Outcome::Cancelled => {}
        }
    }
}
