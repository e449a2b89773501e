//! How fast servers are for good.

use super::sample::Sample;
use crate::{
    balance::{mix, number::Number},
    load::{LoadCell, Mean},
    util::mix::fraction,
};

/// How fast servers are beside each other, whatever waits there, by all that they said of their latency.
///
/// What one says is chance for the most part. Who is faster than the median is believed as far as such servers differ by
/// more than what each says differs from one time to another (shrinkage,
/// [James and Stein](https://projecteuclid.org/euclid.bsmsp/1200512173)). Who is slower is judged alone, as one may be so
/// by any number of times, and says nothing of others.
/// All numbers are of logarithms.
#[derive(Debug, Default)]
pub(super) struct Speeds {
    /// The mean square by which what one says differs from the mean of what it said before.
    chance: Mean,
    /// The median of the servers' means.
    median: Number,
    /// The mean square by which those below it differ from it.
    differ: Number,
}

/// The latency that a server says is the median of so many answers: said again before as many more, it is partly the same.
const ANSWERS: f32 = 8.0;
/// So many are the same as one, as what a server does lasts.
const ALIKE: f32 = 3.0;
/// From so many on a mean says something.
const ENOUGH: u32 = 4;
/// So many count in a mean of the last ones.
const MANY: f32 = 32.0;
/// Of so many chance is known.
const KNOWN: u32 = 20;
/// Who is slower than the median is believed that it is, as far as the square of it is more than so many times what is
/// chance.
const DOUBT: f32 = 2.0;
/// None counts for more than e to this times the median, or for less than its inverse.
const MOST: f32 = 2.0;
/// One is faster or slower by so many of these, by its logarithm; and by one at least, as by the least of it who is idle is
/// preferred to others that are idle.
const STEP: f32 = 0.125;

impl Speeds {
    /// One says that it takes so many times as long as the median would with as much to do, so many answers after it said so
    /// before.
    pub(super) fn learn(&self, load: &LoadCell, times: f32, answers: f32, random: u64) {
        let log = times.ln().clamp(-MOST, MOST);
        // What is new in part is learned as often as that part is.
        if log.is_nan() || fraction(mix(random)) * ANSWERS >= answers {
            return;
        }
        let (mean, count) = load.speed().get();
        load.speed().add(log, 1.0 / MANY);
        if count >= ENOUGH {
            self.chance.add((log - mean).powi(2), 1.0 / MANY);
        }
    }

    /// The logarithm by which it differs, once that says something.
    pub(super) fn of(load: &LoadCell) -> Option<f32> {
        Some(load.speed().get()).filter(|(_, count)| *count >= ENOUGH).map(|(mean, _)| mean)
    }

    /// These were found.
    pub(super) fn saw(&self, mut found: Sample) {
        let Some(median) = found.median() else { return };
        self.median.set(median);
        // Of those that are slower one may be so by any number of times.
        self.differ.set(found.square(median, |log| log < median));
    }

    /// Whether so much was said that something follows from it.
    pub(super) fn are_known(&self) -> bool {
        self.chance.get().1 >= KNOWN
    }

    /// How many times as long as the median it takes, for good; 1 if that is no more than chance, or what is expected: so
    /// many times, by their logarithm, or less of them.
    pub(super) fn times(&self, load: &LoadCell, expected: impl FnOnce() -> f32) -> f32 {
        let (mean, count) = load.speed().get();
        if count < ENOUGH {
            return 1.0;
        }
        let (more, expected) = (mean - self.median.get(), expected());
        let more = more - more.clamp(expected.min(0.0), expected.max(0.0));
        let (differ, chance) = (self.differ.get(), self.chance.get().0 * ALIKE / count as f32);
        let part = if more < 0.0 { differ / (differ + chance) } else { (1.0 - DOUBT * chance / more.powi(2)).max(0.0) };
        // In steps: those that are about as fast are alike.
        let log = more * part;
        if log.abs() >= STEP { ((log / STEP).round() * STEP).exp() } else { 1.0 }
    }
}
