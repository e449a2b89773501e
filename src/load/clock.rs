//! Time in numbers that fit into atomics.

use std::time::{Duration, Instant};

use crate::util::sync::OnceLock;

/// The microseconds since some moment before the first that this process asked for.
pub(crate) fn micros(now: Instant) -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    // An hour earlier, as who asks first need not have the earliest time in hand.
    let base = BASE.get_or_init(|| now.checked_sub(Duration::from_secs(3_600)).unwrap_or(now));
    let since = now.saturating_duration_since(*base);
    // Not by `as_micros`, which counts in 128 bits: each call asks for this several times.
    since.as_secs().saturating_mul(1_000_000).saturating_add(since.subsec_micros().into())
}

/// Units of [`UNIT_SECONDS`]: a counter that goes round in three days, which is as good as a long silence.
pub(crate) fn unit(micros: u64) -> u32 {
    (micros / 64) as u32
}

pub(crate) const UNIT_SECONDS: f32 = 64e-6;

/// How many from one to another, of a counter that goes round. Threads tell of times out of order: what is so little in the
/// future is now. All else is past, that a long silence be one.
#[inline]
pub(super) fn since(from: u32, to: u32, little: u32) -> u32 {
    let since = to.wrapping_sub(from);
    if since > u32::MAX - little { 0 } else { since }
}

/// The same in [units](unit), where an hour is little.
#[inline]
pub(super) fn units(from: u32, to: u32) -> u32 {
    const HOUR: u32 = (3_600_000_000_u64 / 64) as u32;
    since(from, to, HOUR)
}

/// The same in seconds.
pub(super) fn seconds(from: u32, to: u32) -> f32 {
    units(from, to) as f32 * UNIT_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_silence_are_days_and_a_little_in_the_future_is_now() {
        let (day, now) = (unit(86_400_000_000), 1_000);
        for days in 0..=3 {
            let since = seconds(now, now.wrapping_add(day * days));
            assert!((since - 86_400.0 * days as f32).abs() < 1.0, "{days}: {since}");
        }
        assert_eq!(seconds(now, now - 500), 0.0);
        assert_eq!(seconds(500, 500_u32.wrapping_sub(unit(60_000_000))), 0.0, "across the end of the counter");
    }
}
