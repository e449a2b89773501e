//! How often something happens in a second.

use std::time::Duration;

use crate::util::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count, and how fast it grows: the average over some three seconds, brought up to date each second by one of
/// those who ask.
#[derive(Debug, Default)]
pub(super) struct Rate {
    count: AtomicU64,
    /// When it was brought up to date, in microseconds, and how many there were.
    since: AtomicU64,
    counted: AtomicU64,
    /// An `f64`.
    per_second: AtomicU64,
}

const PERIOD: Duration = Duration::from_secs(1);
const AVERAGED: Duration = Duration::from_secs(3);

impl Rate {
    pub(super) fn count(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// How many there are in a second, at a time since the beginning; 0 in the first.
    pub(super) fn per_second(&self, now: Duration) -> f64 {
        let before = self.since.load(Relaxed);
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let elapsed = Duration::from_micros(now.saturating_sub(before));
        if elapsed >= PERIOD && self.since.compare_exchange(before, now, Relaxed, Relaxed).is_ok() {
            let count = self.total();
            let grown = count.saturating_sub(self.counted.swap(count, Relaxed));
            let rate = grown as f64 / elapsed.as_secs_f64();
            let old = f64::from_bits(self.per_second.load(Relaxed));
            // The first is as good as it gets.
            let kept = if before == 0 { 0.0 } else { (-elapsed.as_secs_f64() / AVERAGED.as_secs_f64()).exp() };
            self.per_second.store((old * kept + rate * (1.0 - kept)).to_bits(), Relaxed);
        }
        f64::from_bits(self.per_second.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_count() {
        let rate = Rate::default();
        let mut at = Duration::ZERO;
        let mut run = |seconds: u32, each: u32| {
            let mut last = 0.0;
            for _ in 0..seconds * each {
                rate.count();
                at += Duration::from_secs(1) / each;
                last = rate.per_second(at);
            }
            last
        };
        assert_eq!(run(1, 100).round(), 100.0);
        assert_eq!(run(1, 1).round(), 72.0, "e^(-1/3) of the old, and the rest of the new");
        assert_eq!(run(30, 200).round(), 200.0);
        assert!(rate.per_second(at + Duration::from_secs(60)) < 1.0, "silence counts when somebody asks");
        assert_eq!(rate.total(), 100 + 1 + 6_000);
    }
}
