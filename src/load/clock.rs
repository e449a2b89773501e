//! Time in numbers that fit into atomics.

use std::time::{Duration, Instant};

use crate::util::sync::OnceLock;

/// The microseconds since some moment before the first that this process asked for.
pub(crate) fn micros(now: Instant) -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    // An hour earlier, as who asks first need not have the earliest time in hand.
    let base = BASE.get_or_init(|| now.checked_sub(Duration::from_secs(3_600)).unwrap_or(now));
    u64::try_from(now.saturating_duration_since(*base).as_micros()).unwrap_or(u64::MAX)
}

/// Units of 64 microseconds: a counter that goes round in three days, which is as good as a long silence.
pub(super) fn unit(micros: u64) -> u32 {
    (micros / 64) as u32
}

/// Seconds from one unit to another. Threads tell of times out of order: what is a little in the
/// future is now.
pub(super) fn seconds(from: u32, to: u32) -> f32 {
    let since = to.wrapping_sub(from);
    if since > u32::MAX / 2 { 0.0 } else { since as f32 * 64e-6 }
}
