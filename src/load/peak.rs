//! A moving average that rises at once and sinks slowly.

use std::time::Duration;

use super::clock::{seconds, unit};
use crate::util::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is slower counts at once; what is faster, and silence, by and by.
#[derive(Debug, Default)]
pub(super) struct Peak {
    /// The average in nanoseconds as a 32-bit float, above; when that was in units of 64 µs, below: both
    /// change as one.
    state: AtomicU64,
}

/// After so long without an answer e⁻¹ of the average is left.
const DECAY_SECONDS: f32 = 10.0;

impl Peak {
    /// The average at a time in microseconds.
    pub(super) fn at(&self, micros: u64) -> Duration {
        let (average, left) = decayed(self.state.load(Relaxed), unit(micros));
        Duration::from_nanos((average * left) as u64)
    }

    /// A call was answered after so long.
    pub(super) fn observe(&self, took: Duration, micros: u64) {
        self.update(micros, |average, left| {
            let took = took.as_nanos() as f32;
            if took > average * left { took } else { average * left + took * (1.0 - left) }
        });
    }

    /// A call was not answered for so long.
    pub(super) fn at_least(&self, took: Duration, micros: u64) {
        self.update(micros, |average, left| (average * left).max(took.as_nanos() as f32));
    }

    fn update(&self, micros: u64, next: impl Fn(f32, f32) -> f32) {
        let now = unit(micros);
        let _ = self.state.fetch_update(Relaxed, Relaxed, |state| {
            let (average, left) = decayed(state, now);
            Some(u64::from(next(average, left).to_bits()) << 32 | u64::from(now))
        });
    }
}

/// The average as it was, and the share of it that is left.
fn decayed(state: u64, now: u32) -> (f32, f32) {
    let average = f32::from_bits((state >> 32) as u32);
    (average, (-seconds(state as u32, now) / DECAY_SECONDS).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;
    const SECOND: u64 = 1_000 * MS;

    fn millis(peak: &Peak, at: u64) -> f64 {
        peak.at(at).as_secs_f64() * 1e3
    }

    fn near(is: f64, should: f64) -> bool {
        (is / should - 1.0).abs() < 0.001
    }

    #[test]
    fn rises_at_once_and_sinks_slowly() {
        let peak = Peak::default();
        assert!(peak.at(5 * SECOND).is_zero(), "nothing was heard");
        let base = 100 * SECOND;
        peak.observe(Duration::from_millis(10), base);
        assert!(near(millis(&peak, base), 10.0));
        peak.observe(Duration::from_millis(50), base + MS);
        assert!(near(millis(&peak, base + MS), 50.0), "what is slower counts at once");
        // 10 s later e⁻¹ of it is left, and the rest is what is heard then.
        let later = base + MS + 10 * SECOND;
        peak.observe(Duration::from_millis(5), later);
        let left = (-1.0_f64).exp();
        assert!(near(millis(&peak, later), 50.0 * left + 5.0 * (1.0 - left)), "{}", millis(&peak, later));
    }

    #[test]
    fn silence_sinks_to_nothing_and_a_failure_never_lowers() {
        let peak = Peak::default();
        peak.observe(Duration::from_secs(1), SECOND);
        peak.at_least(Duration::from_millis(1), SECOND);
        assert!(near(millis(&peak, SECOND), 1_000.0), "failing fast is not being fast");
        peak.at_least(Duration::from_secs(3), SECOND);
        assert!(near(millis(&peak, SECOND), 3_000.0));
        assert!(millis(&peak, 101 * SECOND) < 0.2);
    }

    #[test]
    fn a_time_out_of_order_is_now() {
        let peak = Peak::default();
        peak.observe(Duration::from_millis(10), 10 * SECOND);
        peak.observe(Duration::from_millis(5), 9 * SECOND);
        assert!(near(millis(&peak, 9 * SECOND), 10.0));
    }
}
