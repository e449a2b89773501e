//! For how long what servers say holds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::util::pair::{pack, unpack};

/// How many times longer than expected what a server says of others' requests holds: so long that what it had more than
/// other servers, less what should be gone since, is what it has more when it says something again (least mean
/// squares).
///
/// It holds for less where the clients' calls balance already, as what is more than elsewhere is chance then; where many
/// clients go by the same word; or where what is said is noise. It holds for longer where servers differ.
#[derive(Debug)]
pub(super) struct Holds {
    /// The logarithm of how many times, and the mean square of what servers have more than others: 32-bit floats.
    state: AtomicU64,
}

/// How much one pair of reports changes the logarithm, at most.
const GAIN: f32 = 0.05;
/// How much of it is given up for each, so that nothing follows from what says nothing.
const LEAK: f32 = 0.0002;
/// Not longer or shorter than e to this, times as long as expected.
const MOST: f32 = 4.0;
/// What one pair counts for in the mean square; and what a pair counts for at most, by that.
const SQUARE_GAIN: f32 = 1.0 / 256.0;
const OUTLIER: f32 = 4.0;

impl Default for Holds {
    fn default() -> Self {
        Self { state: AtomicU64::new(pack(0.0, 4.0)) }
    }
}

impl Holds {
    /// One had so many more than others, and has so many more now, after so many times as long as that should hold.
    pub(super) fn learn(&self, before: f32, now: f32, age: f32) {
        let (log, square) = unpack(self.state.load(Relaxed));
        let wrong = (now - before * left(age)) * before / square;
        // How much more would be left if it held for longer.
        let more = age * (1.0 + age) * left(age).powi(2);
        let step = GAIN * wrong.clamp(-OUTLIER, OUTLIER) * more;
        if !step.is_finite() {
            return;
        }
        let log = (log + step - log * LEAK).clamp(-MOST, MOST);
        let square = square + (before.powi(2).min(OUTLIER.powi(2) * square) - square) * SQUARE_GAIN;
        // Two threads at once may lose one of two, which is as good.
        self.state.store(pack(log, square.max(0.01)), Relaxed);
    }

    /// So many times longer.
    pub(super) fn times(&self) -> f32 {
        unpack(self.state.load(Relaxed)).0.exp()
    }
}

/// After so many times as long as it holds nothing is left: the least of what was said long ago would else set one apart
/// from others that nobody is busy at.
pub(super) const OLDEST: f32 = 20.0;

/// What is left after so many times as long as it holds: about e⁻ᵃᵍᵉ at first, and quicker to compute.
pub(super) fn left(age: f32) -> f32 {
    if age > OLDEST { 0.0 } else { 1.0 / aged(age) }
}

/// By what it is to be divided before.
#[inline(always)]
pub(super) fn aged(age: f32) -> f32 {
    1.0 + age * (1.0 + age / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::mix;

    /// How many times longer, where of what one had more such a share is left after that time, give or take chance.
    fn learned(pairs: u32, age: f32, share: f32, chance: f32) -> f32 {
        let (holds, mut random) = (Holds::default(), 1);
        let mut any = || {
            random = mix(random);
            (random >> 40) as f32 / (1_u64 << 24) as f32 * 8.0 - 4.0
        };
        for _ in 0..pairs {
            let before = any();
            let now = before * share + any() * chance;
            holds.learn(before, now, age / holds.times());
        }
        holds.times()
    }

    #[test]
    fn it_holds_for_as_long_as_it_comes_true() {
        assert_eq!(Holds::default().times(), 1.0, "at first as expected");
        for (age, share) in [(1.0, left(1.0)), (1.0, left(0.5)), (1.0, left(3.0)), (10.0, 0.5)] {
            for chance in [0.0, 0.5] {
                let found = left(age / learned(20_000, age, share, chance));
                assert!((found - share).abs() < 0.1, "{share} is left, and {found} expected");
            }
        }
    }

    #[test]
    fn what_is_noise_holds_not_at_all_and_what_is_too_old_says_nothing() {
        assert!(learned(20_000, 1.0, 0.0, 1.0) < 0.3);
        assert!(learned(20_000, 1.0, -0.5, 0.0) < 0.1);
        let old = learned(20_000, 1_000.0, 0.0, 1.0);
        assert!((0.9..1.1).contains(&old), "{old}");
    }

    #[test]
    fn no_number_changes_it_and_a_lie_only_a_little() {
        let holds = Holds::default();
        for before in [f32::NAN, f32::INFINITY, 1e30] {
            holds.learn(before, 1.0, 1.0);
            holds.learn(1.0, before, 1.0);
            holds.learn(1.0, 1.0, before);
        }
        assert!((0.7..1.5).contains(&holds.times()), "{}", holds.times());
        (0..1_000).for_each(|_| holds.learn(1e6, -1e6, 1.0 / holds.times()));
        let least = (-MOST).exp();
        assert!(holds.times() >= least, "{}", holds.times());
        (0..20_000).for_each(|_| holds.learn(2.0, 2.0 * left(1.0), 1.0 / holds.times()));
        assert!((0.8..1.2).contains(&holds.times()), "it recovers: {}", holds.times());
    }
}
