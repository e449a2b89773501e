//! Calls that a server has been told of.

use std::time::{Duration, Instant};

use super::clock::{micros, since};
use crate::util::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Calls that may be on their way to a server. Each probe that it answers announces one, which comes soon, or goes to another.
///
/// All who ask at once hear the same, and who seems to have the least gets a call of each. So a server says how many others
/// it answered just now.
///
/// [`RegistrationLayer`](crate::server::RegistrationLayer) has one; this is for who answers probes otherwise.
#[derive(Debug, Default)]
pub struct Announced {
    /// How many, a float, and at which microsecond: a counter that goes round in 71 minutes, all but a second of
    /// which is past: threads tell of times out of order.
    state: AtomicU64,
}

impl Announced {
    /// The longest that a call is waited for.
    const LONGEST: Duration = Duration::from_secs(1);

    /// A probe is answered, whose call takes about so long to come; of that a second counts at most, and 0 announces none. Tells how
    /// many others were announced, each of which counts for less the longer ago that was: for e⁻¹ after that time.
    pub fn announce(&self, within: Duration, now: Instant) -> f32 {
        if within.is_zero() {
            return 0.0;
        }
        let (within, now) = (within.min(Self::LONGEST).as_secs_f32(), micros(now) as u32);
        let mut others = 0.0;
        let add = |state| {
            let (count, at) = (f32::from_bits((state >> 32) as u32), state as u32);
            let since = since(at, now, Self::LONGEST.as_micros() as u32);
            others = count * (since as f32 * -1e-6 / within).exp();
            Some(u64::from((others + 1.0_f32).to_bits()) << 32 | u64::from(now))
        };
        let _ = self.state.fetch_update(Relaxed, Relaxed, add);
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_asks_hears_of_those_who_asked_just_before() {
        let (announced, now) = (Announced::default(), Instant::now());
        assert_eq!(announced.announce(MS, now), 0.0);
        assert_eq!(announced.announce(MS, now), 1.0);
        assert_eq!(announced.announce(MS, now), 2.0);
        let later = announced.announce(MS, now + MS);
        assert!((later - 3.0 / std::f32::consts::E).abs() < 1e-3, "{later}");
        let far = announced.announce(MS * 10, now + MS * 2);
        assert!((far - (later + 1.0) * (-0.1_f32).exp()).abs() < 1e-3, "{far}: who is far away waits longer");
        assert!(announced.announce(MS, now + MS * 30) < 1e-3, "they have come, or went to others");
    }

    #[test]
    fn who_announces_nothing_hears_nothing_and_is_not_heard_of() {
        let (announced, now) = (Announced::default(), Instant::now());
        announced.announce(MS, now);
        assert_eq!(announced.announce(Duration::ZERO, now), 0.0);
        assert_eq!(announced.announce(MS, now), 1.0);
    }

    #[test]
    fn nobody_is_waited_for_for_long_and_what_comes_late_is_now() {
        let (announced, now) = (Announced::default(), Instant::now() + MS * 100);
        announced.announce(Duration::MAX, now);
        assert_eq!(announced.announce(MS, now - MS), 1.0, "another thread's clock");
        assert!(announced.announce(Duration::MAX, now + MS * 10_000) < 1e-3);
    }

    #[test]
    fn a_long_silence_is_one_whatever_the_counter_says() {
        let minutes = |count: u64| MS * 60_000 * count as u32;
        for silence in (1..=150).map(minutes) {
            let (announced, now) = (Announced::default(), Instant::now());
            announced.announce(MS, now);
            assert_eq!(announced.announce(MS, now + silence), 0.0, "{silence:?}");
        }
    }

    #[test]
    fn threads_lose_no_announcement() {
        let (announced, now) = (Announced::default(), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).map(|_| announced.announce(MS, now)).sum::<f32>());
            }
        });
        assert_eq!(announced.announce(MS, now), 4_000.0);
    }
}
