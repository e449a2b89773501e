//! How long a server typically takes: means that one odd call moves little.

use std::time::Duration;

use super::{
    clock::{seconds, unit},
    mean::{Mean, gain, pack, unpack},
};
use crate::util::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The mean of the logarithms of the last few latencies, in which the call that took a hundred times as
/// long counts as much as the one that took a hundredth.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The mean as a 32-bit float, its two last bits the count of answers up to 3, above; when it was last
    /// changed in [units](unit), below: all change as one.
    state: AtomicU64,
}

/// What an answer counts for, once there are some; before, all count the same. The second in the mean of many: of what
/// the server was for long, and will be again.
const GAIN: f32 = 0.3;
const LASTING_GAIN: f32 = 0.05;
/// With `n` others in flight an answer counts for such a part, `ALIKE / (ALIKE + n)`, if that is less than [`GAIN`], and no less
/// than in the mean of many; unless it leads back to what the server was for long. Where more are answered in the time that one
/// takes, more of them tell what is typical, and less of it is chance.
const ALIKE: f32 = 0.5;
/// After so long without an answer e⁻¹ is left of what sets the last few apart from the many,
const FADE_SECONDS: f32 = 5.0;
/// and of what sets the many apart from other servers'.
const LASTING_FADE_SECONDS: f32 = 40.0;
/// From so many answers on. Fewer say less: they may be those of a server that was just started, or chance, and nobody
/// would ask again who was slow at first.
const ENOUGH: f32 = 8.0;
/// It fades in steps of this.
const STEP_SECONDS: f32 = 0.05;

impl Recent {
    /// The mean logarithm of the nanoseconds; none before the first answer.
    pub(super) fn get(&self) -> Option<f32> {
        let (mean, count, _) = self.open();
        (count > 0).then_some(mean)
    }

    /// What nobody has asked of late is taken for what it was for long, and by and by for like the others.
    pub(super) fn fade(&self, lasting: &Mean, others: f32, micros: u64) -> Option<f32> {
        let (mean, count, at) = self.open();
        if count == 0 {
            return None;
        }
        let since = seconds(at, unit(micros));
        if since < STEP_SECONDS {
            return Some(mean);
        }
        let (long, answers) = lasting.get();
        let long = others + (long - others) * (-since / LASTING_FADE_SECONDS).exp();
        lasting.set(long, answers);
        let known = (answers as f32 / ENOUGH).min(1.0);
        let to = others + (long - others) * known * known;
        let faded = to + (mean - to) * (-since / (FADE_SECONDS * known)).exp();
        self.update(micros, |now, count| (if now == mean { faded } else { now }, count));
        Some(faded)
    }

    fn update(&self, micros: u64, next: impl Fn(f32, u32) -> (f32, u32)) {
        let _ = self.state.fetch_update(Relaxed, Relaxed, |state| {
            let (mean, count) = unpack((state >> 32) as u32, FEW);
            let (mean, count) = next(mean, count);
            Some(u64::from(pack(mean, count, FEW)) << 32 | u64::from(unit(micros)))
        });
    }

    fn open(&self) -> (f32, u32, u32) {
        let state = self.state.load(Relaxed);
        let (mean, count) = unpack((state >> 32) as u32, FEW);
        (mean, count, state as u32)
    }
}

/// A call was answered after so long, with so many others in flight.
pub(super) fn observe(recent: &Recent, lasting: &Mean, took: Duration, others: u32, micros: u64) {
    let (took, long) = (logarithm(took), lasting.get().0);
    let apart = (ALIKE / (ALIKE + others as f32)).clamp(LASTING_GAIN, GAIN);
    recent.update(micros, |mean, count| {
        let leads_back = (took - mean) * (long - mean) > 0.0;
        let part = if count < FEW || leads_back { gain(count, GAIN) } else { apart };
        (mean + (took - mean) * part, count + 1)
    });
    lasting.add(took, LASTING_GAIN);
}

/// A call was not answered for so long, which says something if it is longer than answers take.
pub(super) fn at_least(recent: &Recent, lasting: &Mean, took: Duration, micros: u64) {
    if recent.get().is_some_and(|mean| logarithm(took) > mean) {
        observe(recent, lasting, took, 0, micros);
    }
}

/// A call waited for so long in vain. It may well have had to wait for much longer, so that counts as two answers; and as
/// the first, too: who never answers in time is slow.
pub(super) fn late(recent: &Recent, lasting: &Mean, waited: Duration, micros: u64) {
    if recent.get().is_none_or(|mean| logarithm(waited) > mean) {
        observe(recent, lasting, waited, 0, micros);
        observe(recent, lasting, waited, 0, micros);
    }
}

const FEW: u32 = 3;

fn logarithm(took: Duration) -> f32 {
    (took.as_nanos() as f32).max(1.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[derive(Debug, Default)]
    struct Both(Recent, Mean);

    impl Both {
        fn observe(&self, millis: u64) {
            self.observe_among(0, millis);
        }

        fn observe_among(&self, others: u32, millis: u64) {
            observe(&self.0, &self.1, Duration::from_millis(millis), others, SECOND);
        }

        fn fade(&self, others: f32, micros: u64) {
            self.0.fade(&self.1, others, micros);
        }

        fn millis(&self) -> f32 {
            self.0.get().expect("an answer").exp() / 1e6
        }
    }

    fn near(is: f32, should: f32) -> bool {
        (is / should - 1.0).abs() < 0.001
    }

    #[test]
    fn the_first_answers_count_the_same_and_later_ones_three_tenths() {
        let both = Both::default();
        assert_eq!((both.0.get(), both.0.fade(&both.1, 1.0, SECOND)), (None, None), "nothing was heard");
        for (took, mean) in [(10, 10.0), (40, 20.0), (20, 20.0), (20, 20.0)] {
            both.observe(took);
            assert!(near(both.millis(), mean), "{}", both.millis());
        }
        both.observe(2_000);
        assert!(near(both.millis(), 20.0 * 100.0_f32.powf(0.3)), "a hundred times is less than four");
    }

    #[test]
    fn of_many_at_once_each_counts_less_unless_it_leads_back() {
        let after = |others, millis| {
            let both = Both::default();
            (0..100).for_each(|_| both.observe(10));
            both.observe_among(others, millis);
            both.millis()
        };
        for (others, part) in [(0, 0.3), (1, 0.3), (2, 0.2), (4, 1.0 / 9.0), (1_000, 0.05)] {
            let is = after(others, 1_000);
            assert!(near(is, 10.0 * 100.0_f32.powf(part)), "{is} with {others} others");
        }
        let both = Both::default();
        (0..100).for_each(|_| both.observe(10));
        (0..3).for_each(|_| both.observe(1_000));
        let slow = both.millis();
        both.observe_among(1_000, 10);
        assert!(near(both.millis(), slow * (10.0 / slow).powf(0.3)), "{} of {slow}", both.millis());
    }

    #[test]
    fn what_was_not_answered_never_makes_it_faster() {
        let both = Both::default();
        at_least(&both.0, &both.1, Duration::from_millis(1), SECOND);
        assert_eq!(both.0.get(), None, "failing fast is not being fast");
        (0..3).for_each(|_| both.observe(100));
        at_least(&both.0, &both.1, Duration::from_millis(1), SECOND);
        assert!(near(both.millis(), 100.0));
        at_least(&both.0, &both.1, Duration::from_millis(1_000), SECOND);
        assert!(near(both.millis(), 100.0 * 10.0_f32.powf(0.3)));
    }

    #[test]
    fn what_was_waited_for_in_vain_counts_as_two_answers_and_as_the_first() {
        let both = Both::default();
        let late = |millis| late(&both.0, &both.1, Duration::from_millis(millis), SECOND);
        late(100);
        assert!(near(both.millis(), 100.0) && both.1.get().1 == 2, "{both:?}");
        late(10);
        assert!(near(both.millis(), 100.0), "it never makes it faster");
        both.observe(100);
        late(1_000);
        assert!(near(both.millis(), 100.0 * 10.0_f32.powf(0.51)), "{}", both.millis());
    }

    #[test]
    fn silence_makes_it_what_it_was_for_long_and_then_like_the_others() {
        let both = Both::default();
        (0..100).for_each(|_| both.observe(10));
        (0..10).for_each(|_| both.observe(100));
        let (before, others) = (both.millis(), logarithm(Duration::from_millis(10)));
        both.fade(others, SECOND + 10_000);
        assert!(before > 90.0 && near(both.millis(), before), "not yet");
        // In steps or at once.
        (1..=100).for_each(|step| both.fade(others, SECOND + step * SECOND / 10));
        assert!((10.0..30.0).contains(&both.millis()), "as it was: {}", both.millis());
        both.fade(others, 500 * SECOND);
        assert!(near(both.millis(), 10.0), "{}", both.millis());
        // Who was slow once, or thrice, at first is asked again soon.
        for (answers, after) in [(1, 2), (3, 6)] {
            let first = Both::default();
            (0..answers).for_each(|_| first.observe(40));
            (1..=after * 10).for_each(|step| first.fade(others, SECOND + step * SECOND / 10));
            assert!(first.millis() < 13.0, "{}", first.millis());
        }
        // And who was slow for long is so for longer.
        let slow = Both::default();
        (0..100).for_each(|_| slow.observe(100));
        (1..=100).for_each(|step| slow.fade(others, SECOND + step * SECOND / 10));
        assert!((50.0..80.0).contains(&slow.millis()), "{}", slow.millis());
    }
}
