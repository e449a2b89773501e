//! How often a server failed of late, and for how long that sets it aside.

use std::time::Duration;

use super::clock::{seconds, unit};
use crate::util::{
    mix::fraction,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The share of failures among the last [`WINDOW`] answers, none older than [`MEMORY_SECONDS`] before the
/// one after it; and how often in a row a failure set the server aside.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// When it last changed in [units](unit), the share in 2⁻¹⁶, the count of answers, those since the last failure, and
    /// the level, from above: all change as one. All zero while nothing fails, when it is not written either.
    state: AtomicU64,
}

/// So many answers count.
const WINDOW: u8 = 50;
/// After so long a silence what was before is forgotten.
const MEMORY_SECONDS: f32 = 30.0;
/// After such a silence e⁻¹ of the failures is left, for who is not set aside: so that it is tried again.
const FADE_SECONDS: f32 = 10.0;
/// A server that fails more is set aside for what may as well be its callers' fault; one that fails less,
/// over [`ENOUGH`] answers, is well again.
pub(crate) const TOO_MANY: f32 = 0.2;
const ENOUGH: u8 = 5;
/// So many successes in a row are counted.
const RUN: u8 = 31;
/// A server that fails now and then is set aside for no more than such a share of the time: the others have more to do
/// without it.
const ODD_SHARE: f32 = 0.1;
/// The first time; each further one is twice as long, up to the longest, give or take a fifth.
const FIRST: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    at: u32,
    share: f32,
    count: u8,
    /// Answers since the last failure, up to [`RUN`].
    run: u8,
    level: u8,
}

impl Health {
    /// The share of failures, from 0 to 1.
    pub(super) fn failures(&self) -> f32 {
        State::from(self.state.load(Relaxed)).share
    }

    /// The same, which fades while nothing is heard.
    pub(super) fn failures_of_late(&self, micros: u64) -> f32 {
        let state = State::from(self.state.load(Relaxed));
        if state.share == 0.0 { 0.0 } else { state.share * (-seconds(state.at, unit(micros)) / FADE_SECONDS).exp() }
    }

    /// Whether any failure is remembered: without one, a success changes nothing.
    pub(super) fn is_marred(&self) -> bool {
        self.state.load(Relaxed) != 0
    }

    /// A call was answered; tells whether that makes a server well again that had been set aside.
    pub(super) fn success(&self, micros: u64) -> bool {
        let mut well = false;
        self.update(false, 0, micros, |state| {
            state.run = (state.run + 1).min(RUN);
            well = state.level > 0 && state.count >= ENOUGH && state.share < TOO_MANY;
            if well {
                state.level = 0;
            }
        });
        well
    }

    /// The server failed, after so many calls that it answered, and so many seconds after it failed before. For how long
    /// that sets it aside: not at all if only many such failures do, and there are few.
    pub(super) fn failure(
        &self,
        alone_counts: bool,
        answered: u64,
        since: f32,
        random: u64,
        micros: u64,
    ) -> Option<Duration> {
        let mut aside = None;
        self.update(true, answered, micros, |state| {
            let counts = alone_counts || (state.count >= ENOUGH && state.share > TOO_MANY);
            aside = counts.then(|| {
                let spread = 0.8 + 0.4 * fraction(random);
                // The odd failure among many answers says little.
                let odd = 1.0 / f32::from(state.run + 1);
                let is_odd = state.run > 0 && state.share < TOO_MANY;
                let time =
                    (FIRST * 2_u32.pow(u32::from(state.level.saturating_sub(1)))).min(LONGEST).mul_f32(spread * odd);
                // It is endless where it never failed before.
                if is_odd {
                    Duration::try_from_secs_f32(since * ODD_SHARE).map_or(time, |most| time.min(most))
                } else {
                    time
                }
            });
            if counts {
                // The next time is as long as a first one if this was an odd one.
                state.level = state.level.max(1);
                if state.run == 0 {
                    state.level = (state.level + 1).min(7);
                }
            }
            state.run = 0;
        });
        aside
    }

    /// The server failed, after so many calls that it answered; that does not set it aside, or it is already.
    pub(super) fn missed(&self, answered: u64, micros: u64) {
        self.update(true, answered, micros, |state| state.run = 0);
    }

    fn update(&self, failed: bool, answered: u64, micros: u64, mut then: impl FnMut(&mut State)) {
        let _ = self.state.fetch_update(Relaxed, Relaxed, |word| {
            let mut state = State::from(word);
            let now = unit(micros);
            if word == 0 {
                state.count = answered.min(u64::from(WINDOW)) as u8;
                state.run = state.count.min(RUN);
            } else if seconds(state.at, now) > MEMORY_SECONDS {
                (state.count, state.share, state.run) = (0, 0.0, 0);
            }
            state.count = (state.count + 1).min(WINDOW);
            state.share += (if failed { 1.0 } else { 0.0 } - state.share) / f32::from(state.count);
            state.at = now;
            then(&mut state);
            Some(state.into())
        });
    }
}

impl From<u64> for State {
    fn from(word: u64) -> Self {
        let share = f32::from((word >> 16) as u16) / f32::from(u16::MAX);
        Self { at: (word >> 32) as u32, share, count: (word >> 8) as u8, run: word as u8 >> 3, level: word as u8 & 7 }
    }
}

impl From<State> for u64 {
    fn from(state: State) -> Self {
        // Below, so that it ends at nothing.
        let share = (state.share * f32::from(u16::MAX)) as u16;
        if share == 0 && state.level == 0 {
            return 0;
        }
        Self::from(state.at) << 32
            | Self::from(share) << 16
            | Self::from(state.count) << 8
            | Self::from(state.run << 3 | state.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn each_time_is_twice_as_long_until_it_is_well_again() {
        let health = Health::default();
        let mut at = SECOND;
        for seconds in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            let aside = health.failure(true, 0, 60.0, at, at).expect("it counts").as_secs_f32() / seconds;
            assert!((0.8..=1.2).contains(&aside), "{aside} of {seconds}");
            at += 60 * SECOND;
        }
        let well: Vec<_> = (0..5).map(|_| health.success(at)).collect();
        assert_eq!(well, [false, false, false, false, true], "not by one success");
        assert!(health.failures() < 0.001, "what is long ago is forgotten");
        let aside = health.failure(true, 0, 60.0, 1, at).expect("it counts");
        assert!(aside <= Duration::from_millis(1_200), "{aside:?}");
    }

    #[test]
    fn the_odd_failure_among_many_answers_is_for_a_moment_and_the_next_is_not() {
        let health = Health::default();
        let aside = |answered| health.failure(true, answered, 60.0, 0, SECOND).expect("it counts");
        let moment = aside(1_000);
        assert!((Duration::from_millis(20)..Duration::from_millis(40)).contains(&moment), "{moment:?}");
        let next = aside(1_000);
        assert!((800..=1_200).contains(&next.as_millis()), "{next:?}");
        assert_eq!((0..9).filter(|_| health.success(SECOND)).count(), 1, "it is well again");
        let tenth = aside(0);
        assert!((80..=120).contains(&tenth.as_millis()), "{tenth:?}");
    }

    #[test]
    fn one_that_fails_now_and_then_is_set_aside_for_a_tenth_of_the_time() {
        let health = Health::default();
        let (mut at, mut aside) = (SECOND, 0.0);
        // One in twenty, of a hundred a second.
        for call in 1..=2_000 {
            at += SECOND / 100;
            if call % 20 == 0 {
                aside += health.failure(true, call, 0.2, call, at).expect("it counts").as_secs_f64();
            } else {
                health.success(at);
            }
        }
        assert!((1.9..=2.01).contains(&aside), "{aside} s of 20");
        // The second in a row is no odd one.
        let next = health.failure(true, 0, 0.2, 0, at).expect("it counts");
        assert!(next >= Duration::from_millis(800), "{next:?}");
    }

    #[test]
    fn failures_are_forgotten_where_nothing_is_heard() {
        let health = Health::default();
        health.failure(true, 9, 60.0, 0, SECOND);
        let of_late = |seconds: u64| health.failures_of_late((1 + seconds) * SECOND);
        assert!((0.09..0.11).contains(&of_late(0)), "one of ten");
        assert!((0.03..0.04).contains(&of_late(10)) && of_late(100) < 0.001);
    }

    #[test]
    fn what_may_be_the_callers_fault_counts_when_it_is_much() {
        let health = Health::default();
        let aside: Vec<_> = (0..5).map(|_| health.failure(false, 0, 60.0, 0, SECOND).is_some()).collect();
        assert_eq!(aside, [false, false, false, false, true]);
        // One in ten is what they all have.
        let health = Health::default();
        for call in 0..1_000 {
            if call % 10 == 9 {
                assert_eq!(health.failure(false, call, 60.0, 0, SECOND), None, "{call}");
            } else {
                health.success(SECOND);
            }
        }
        assert!((0.05..0.15).contains(&health.failures()), "{}", health.failures());
    }

    #[test]
    fn a_server_that_never_fails_has_nothing_to_remember() {
        let health = Health::default();
        assert!(!health.is_marred());
        health.failure(false, 0, 60.0, 0, SECOND);
        assert!(health.is_marred());
        (0..100).for_each(|_| assert!(!health.success(100 * SECOND)));
        assert!(!health.is_marred());
    }
}
