//! Who is faster than others for good.

use super::sample::Sample;
use crate::{
    balance::{mix, number::Number},
    load::LoadCell,
    util::mix::fraction,
};

/// Servers that are faster than others, whatever waits there, by all that they said of their latency.
///
/// What one says is chance for the most part: each is believed as far as servers differ by more than what each says
/// differs from one time to another (shrinkage,
/// [James and Stein](https://projecteuclid.org/euclid.bsmsp/1200512173)).
/// All numbers are of logarithms.
#[derive(Debug, Default)]
pub(super) struct Speeds {
    /// The mean square by which what one says differs from the mean of what it said before; 0 before.
    chance: Number,
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
/// None counts for more than e to this times the median, or for less than its inverse.
const MOST: f32 = 2.0;
/// One is faster by so many of these, by its logarithm.
const STEP: f32 = 0.125;
/// What one counts for in the mean square.
const GAIN: f32 = 0.01;

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
            self.chance.average(0.0, (log - mean).powi(2), GAIN);
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

    /// How many times as long as the median it takes; 1 if it is no faster.
    pub(super) fn faster(&self, load: &LoadCell) -> f32 {
        let differ = self.differ.get();
        let (mean, count) = load.speed().get();
        if count < ENOUGH || differ == 0.0 {
            return 1.0;
        }
        let part = differ / (differ + self.chance.get() * ALIKE / count as f32);
        // In steps: those that are about as fast are alike.
        (((mean - self.median.get()).min(0.0) * part / STEP).round() * STEP).exp()
    }
}
