//! Whether those in use have more to do than they can.

use std::f32::consts::LN_2;

use super::{fleet::Fleet, reports::Outlook};
use crate::{
    balance::{PickInfo, mix, number::Number},
    load::millis,
    util::mix::fraction,
};

/// The share of its calls that one which is set aside gets nevertheless, as the others cannot take all: where calls take
/// several times as long as they did, and some come too late. The others would be late with most, as work on a call that
/// nobody waits for any more is in vain.
#[derive(Debug)]
pub(super) struct Strain {
    /// The least that calls typically took, by the logarithm, which is forgotten slowly; infinite before.
    least: Number,
    /// The share of those in use whose last call was late, of late; and the most of it, forgotten slowly, as fewer are late
    /// for what is done about it.
    late: Number,
    most_late: Number,
    share: Number,
}

/// Nothing where calls take no more than so many times as long as they did, and all from so many on.
const FROM: f32 = 4.0;
const TO: f32 = 16.0;
/// So much where the share of those that were late is this; less where it is less.
const LATE: f32 = 0.05;
/// After so long e⁻¹ is left of what that was before,
const NOW_SECONDS: f32 = 1.0;
/// and of the most of it;
const MOST_SECONDS: f32 = 30.0;
/// and after so long the least that calls took is taken for twice as long: they may be others than before.
const LEAST_DOUBLES_SECONDS: f32 = 300.0;

impl Default for Strain {
    fn default() -> Self {
        let zero = Number::default;
        Self { least: Number::new(f32::INFINITY), late: zero(), most_late: zero(), share: zero() }
    }
}

impl Strain {
    /// So many seconds after it was looked before calls take so long, by the logarithm, and the last call was late at such a
    /// share of those in use.
    pub(super) fn saw(&self, pace: f32, late: f32, seconds: f32) {
        let least = pace.min(self.least.get() + LN_2 * seconds / LEAST_DOUBLES_SECONDS);
        self.least.set(least);
        self.late.average(f32::NAN, late, 1.0 - left(seconds, NOW_SECONDS));
        let most_late = self.late.get().max(self.most_late.get() * left(seconds, MOST_SECONDS));
        self.most_late.set(most_late);
        let longer = (pace - least - FROM.ln()) / (TO / FROM).ln();
        self.share.set(longer.clamp(0.0, 1.0) * (most_late / LATE).min(1.0));
    }

    #[inline(always)]
    pub(super) fn share(&self) -> f32 {
        self.share.get()
    }
}

/// What is left after some time, where e⁻¹ is left after the other.
fn left(seconds: f32, after: f32) -> f32 {
    (-seconds / after).exp()
}

impl Fleet {
    /// One that is set aside and gets this call nevertheless.
    pub(super) fn spills(&self, info: &PickInfo<'_>, outlook: &Outlook) -> Option<usize> {
        let random = mix(!info.random);
        if fraction(random) >= self.past.strain.share() {
            return None;
        }
        let at = self.weights.draw(mix(random));
        let standing = self.loads[at].look(millis(outlook.micros)).1;
        (standing.is_set_aside() && !info.tried.contains(&at)).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: f32 = 0.005;

    /// The share after so many looks.
    fn share(strain: &Strain, times: f32, late: f32, looks: usize) -> f32 {
        (0..looks).for_each(|_| strain.saw(times.ln(), late, LOOK));
        strain.share()
    }

    fn near(is: f32, should: f32) -> bool {
        (is - should).abs() < 0.02
    }

    #[test]
    fn it_grows_with_what_calls_take_where_some_are_late() {
        for (times, should) in [(1.0, 0.0), (4.0, 0.0), (8.0, 0.5), (16.0, 1.0), (50.0, 1.0)] {
            let strain = Strain::default();
            assert_eq!(share(&strain, 1.0, 0.0, 1), 0.0);
            assert_eq!(share(&strain, times, 0.0, 100), 0.0, "calls may be others than before");
            let is = share(&strain, times, 0.1, 300);
            assert!(near(is, should), "{times}: {is}");
        }
        let strain = Strain::default();
        share(&strain, 1.0, 0.0, 1);
        let few = share(&strain, 16.0, LATE / 4.0, 1_000);
        assert!(near(few, 0.25), "{few}");
    }

    #[test]
    fn that_some_were_late_is_forgotten_and_what_calls_took_too() {
        let strain = Strain::default();
        share(&strain, 1.0, 0.0, 1);
        let at_once = share(&strain, 16.0, LATE * 2.0, 150);
        assert!(near(at_once, 1.0), "within a second: {at_once}");
        share(&strain, 16.0, LATE, 850);
        let later = share(&strain, 16.0, 0.0, (MOST_SECONDS / LOOK) as usize);
        assert!(near(later, (-1.0_f32).exp() * 0.95), "{later}");
        let rest = LEAST_DOUBLES_SECONDS - MOST_SECONDS - 5.0;
        let much_later = share(&strain, 16.0, LATE, (rest / LOOK) as usize);
        assert!(near(much_later, 0.5), "{much_later}");
        assert_eq!(share(&strain, 16.0, LATE, (LEAST_DOUBLES_SECONDS / LOOK) as usize), 0.0);
        assert_eq!(share(&strain, 0.5, LATE, 100), 0.0);
        assert!(near(share(&strain, 4.0, LATE, 100), 0.5), "they never took less before");
    }
}
