//! The calls in flight at an endpoint, and whether it is set aside: one word, as one look at it is all
//! that a pick has time for.

use std::time::Duration;

use super::health::LONGEST;
use crate::util::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Whether an endpoint may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// For a moment, as one that is busier: it has no room, or was late.
    Spared,
    /// Not for now: it failed.
    Aside,
    /// It was set aside and is not yet well again: one call at a time may try it.
    Trial,
}

impl Standing {
    /// Whether it failed and is not yet well again.
    pub(crate) fn is_set_aside(self) -> bool {
        matches!(self, Self::Aside | Self::Trial)
    }
}

/// Above, the millisecond until which it is set aside, odd if it is on trial from then on, 0 if neither;
/// below, the calls in flight.
#[derive(Debug, Default)]
pub(super) struct Flight(AtomicU64);

impl Flight {
    pub(super) fn count(&self) -> u32 {
        self.0.load(Relaxed) as u32
    }

    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// The calls in flight and how it stands at a time.
    pub(super) fn look(&self, millis: u32) -> (u32, Standing) {
        let word = self.0.load(Relaxed);
        (word as u32, standing((word >> 32) as u32, millis))
    }

    /// Sets it aside as it failed, or spares it; that makes no shorter what is longer, and who was set aside
    /// is so, and on trial then, until it is trusted again.
    pub(super) fn set_aside(&self, millis: u32, time: Duration, failed: bool) {
        let time = u32::try_from(time.min(MOST).as_millis()).unwrap_or(0);
        self.update(|until| {
            let was = standing(until, millis);
            let trial = failed || was == Standing::Trial || was == Standing::Aside;
            let left = if was == Standing::Aside || was == Standing::Spared { until.wrapping_sub(millis) } else { 0 };
            // Never 0, which means that it is not.
            ((millis.wrapping_add(time.max(left)) & !1) | u32::from(trial)).max(2)
        });
    }

    /// It is as good as any, but for the time that it is set aside.
    pub(super) fn trust(&self, millis: u32) {
        self.update(|until| if standing(until, millis) == Standing::Aside { until & !1 } else { 0 });
    }

    fn update(&self, next: impl Fn(u32) -> u32) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            Some(u64::from(next((word >> 32) as u32)) << 32 | (word & u64::from(u32::MAX)))
        });
    }
}

/// A time further ahead lies in the past: the counter of milliseconds goes round in 49 days.
const MOST: Duration = Duration::from_secs(LONGEST.as_secs() * 2);

fn standing(until: u32, millis: u32) -> Standing {
    if until == 0 {
        return Standing::Good;
    }
    let left = until.wrapping_sub(millis);
    match (left > 0 && u128::from(left) <= MOST.as_millis(), until % 2 == 1) {
        (true, true) => Standing::Aside,
        (true, false) => Standing::Spared,
        (false, true) => Standing::Trial,
        (false, false) => Standing::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn is_aside_then_on_trial_then_trusted() {
        let flight = Flight::default();
        flight.begin();
        for now in [1_000, u32::MAX - 500] {
            assert_eq!(flight.look(now), (1, Standing::Good));
            flight.set_aside(now, SECOND, true);
            assert_eq!(flight.look(now), (1, Standing::Aside));
            assert_eq!(flight.look(now.wrapping_add(990)), (1, Standing::Aside));
            assert_eq!(flight.look(now.wrapping_add(1_001)), (1, Standing::Trial));
            assert_eq!(flight.look(now.wrapping_add(3_000_000)), (1, Standing::Trial), "much later too");
            flight.trust(now.wrapping_add(2_000));
        }
        flight.end();
        assert_eq!(flight.look(0), (0, Standing::Good));
    }

    #[test]
    fn a_shorter_time_ends_none_that_is_longer_nor_a_trial() {
        let flight = Flight::default();
        flight.set_aside(1_000, SECOND, false);
        assert_eq!(flight.look(1_500).1, Standing::Spared);
        assert_eq!(flight.look(2_001).1, Standing::Good, "there was nothing to make good");
        flight.set_aside(3_000, SECOND, true);
        flight.set_aside(3_000, SECOND / 10, false);
        assert_eq!(
            [3_200, 3_999, 4_001].map(|at| flight.look(at).1),
            [Standing::Aside, Standing::Aside, Standing::Trial]
        );
        flight.set_aside(5_000, SECOND / 10, false);
        assert_eq!(flight.look(5_200).1, Standing::Trial);
    }
}
