//! What is known of an endpoint's load: counters that outlive every picker.

mod peak;

use std::time::{Duration, Instant};

use self::peak::Peak;
use crate::util::sync::{
    Arc, OnceLock,
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
    /// Failures in a row, each less than [`REMEMBERED`] after the one before.
    failing: AtomicU32,
    /// When the last one was, in microseconds since `base`.
    failed_at: AtomicU64,
    latency: Peak,
    base: OnceLock<Instant>,
}

/// For so long a failure counts as a call in flight.
const REMEMBERED: Duration = Duration::from_secs(1);

impl LoadCell {
    /// Calls in flight, and each failure as one more until a call succeeds or a second has passed:
    /// else one that fails fast would look like the fastest of all, and draw the calls to itself.
    pub fn busy(&self, now: Instant) -> u32 {
        let failing = self.failing.load(Relaxed);
        let recent = failing > 0 && self.since_failure(now) < REMEMBERED;
        self.in_flight().saturating_add(if recent { failing } else { 0 })
    }

    fn since_failure(&self, now: Instant) -> Duration {
        Duration::from_micros(self.micros(now).saturating_sub(self.failed_at.load(Relaxed)))
    }

    /// The time since `base`, which is the first that this is asked.
    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.base.get_or_init(|| now));
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn failure(&self, now: Instant) {
        self.failed.fetch_add(1, Relaxed);
        // Two threads at once may lose one of the two, which is as good.
        let before = if self.since_failure(now) < REMEMBERED { self.failing.load(Relaxed) } else { 0 };
        self.failing.store(before.saturating_add(1), Relaxed);
        self.failed_at.store(self.micros(now), Relaxed);
    }

    fn success(&self) {
        self.succeeded.fetch_add(1, Relaxed);
        // Mostly it is 0, and a line that is only read stays in every cache.
        if self.failing.load(Relaxed) > 0 {
            self.failing.store(0, Relaxed);
        }
    }

    /// How long the server takes to answer: the moving average of what calls waited for the head of
    /// their response, over some 10 s, which rises at once to what is slower
    /// ([peak EWMA](https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/)). It
    /// sinks while nothing is heard, so that who was slow is tried again. A failure never makes it less.
    /// Zero before the first answer.
    pub fn peak_latency(&self, now: Instant) -> Duration {
        self.latency.at(self.micros(now))
    }

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
    pub fn start(self: &Arc<Self>, now: Instant) -> CallGuard {
        self.in_flight.fetch_add(1, Relaxed);
        CallGuard { cell: self.clone(), waiting: Some(now) }
    }
}

/// A call in flight; dropping it without a word counts it as cancelled.
#[derive(Debug)]
#[must_use = "the call is counted out when this is dropped"]
pub struct CallGuard {
    cell: Arc<LoadCell>,
    /// Since when, until the server answers.
    waiting: Option<Instant>,
}

impl CallGuard {
    /// What the call is counted in.
    pub fn cell(&self) -> &Arc<LoadCell> {
        &self.cell
    }

    /// The head of the response is here: how long that took is the server's latency.
    pub fn answered(&mut self, now: Instant) {
        if let Some(since) = self.waiting.take() {
            self.cell.latency.observe(now.saturating_duration_since(since), self.cell.micros(now));
        }
    }

    /// Ends a call well that was answered before, which needs no clock.
    pub fn succeed(self) {
        self.cell.success();
    }

    /// Ends the call.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Success => {
                self.answered(now);
                self.succeed();
            }
            Outcome::Failure => {
                // It took at least so long; and failing fast is not being fast.
                if let Some(since) = self.waiting {
                    self.cell.latency.at_least(now.saturating_duration_since(since), self.cell.micros(now));
                }
                self.cell.failure(now);
            }
            Outcome::Cancelled => {}
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.cell.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_as_a_call_for_a_second_or_until_a_success() {
        let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
        let held = cell.start(now);
        for n in 1..=3 {
            cell.start(now).finish(Outcome::Failure, now);
            assert_eq!((cell.in_flight(), cell.busy(now)), (1, 1 + n));
        }
        assert_eq!(cell.busy(now + REMEMBERED), 1);
        cell.start(now).finish(Outcome::Failure, now + REMEMBERED * 2);
        assert_eq!(cell.busy(now + REMEMBERED * 2), 2, "what is long ago is forgotten");
        cell.start(now).finish(Outcome::Success, now + REMEMBERED * 2);
        assert_eq!(cell.busy(now + REMEMBERED * 2), 1);
        drop(held);
        assert_eq!((cell.busy(now), cell.succeeded(), cell.failed()), (0, 1, 4));
    }
}
