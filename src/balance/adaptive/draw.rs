//! A few of many endpoints are looked at for each call.

use super::fleet::{Fleet, SEEN};
use crate::{
    balance::{Pick, PickInfo, Picker, mix},
    load::{micros, millis},
};

/// The best of so many that nothing speaks against, drawn as they weigh.
const DRAWN: usize = 5;
/// So many are drawn at most to find those.
const DRAWS: usize = 16;

pub(super) struct Draw {
    fleet: Fleet,
    /// Where each one's part of the line ends, by weight; none if all weigh the same.
    ends: Option<Box<[u64]>>,
}

impl Draw {
    pub(super) fn new(fleet: Fleet, weights: impl Iterator<Item = u32>) -> Self {
        let mut upto = 0;
        let uneven = fleet.lightness.iter().any(|lightness| *lightness > 1.0);
        let ends = weights.map(|weight| {
            upto += u64::from(weight);
            upto
        });
        let ends = uneven.then(|| ends.collect());
        Self { fleet, ends }
    }

    fn draw(&self, random: u64) -> usize {
        let within = |length: u64| ((u128::from(random) * u128::from(length)) >> 64) as u64;
        match self.ends.as_deref() {
            None => within(self.fleet.loads.len() as u64) as usize,
            Some(ends) => {
                let place = within(ends.last().copied().unwrap_or(0));
                ends.partition_point(|end| *end <= place)
            }
        }
    }
}

impl Picker for Draw {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let micros = micros(info.now);
        if self.fleet.is_due(micros) {
            let some = std::iter::successors(Some(mix(info.random)), |random| Some(mix(*random)));
            self.fleet.refresh(micros, some.take(SEEN).map(|random| self.draw(random)));
        }
        let millis = millis(micros);
        let mut random = info.random;
        let (mut good, mut best, mut spare) = (0, None, None);
        for _ in 0..DRAWS {
            let at = self.draw(random);
            random = mix(random);
            if info.tried.contains(&at) {
                continue;
            }
            let look = self.fleet.look(at, millis);
            let factor = self.fleet.factor(at, micros) * look.penalty;
            let score = (look.calls * self.fleet.lightness[at] + 1.0) * factor;
            // The first of equals stays: it was drawn as it weighs.
            let place = if look.may { &mut best } else { &mut spare };
            if place.is_none_or(|(least, _)| score < least) {
                *place = Some((score, at));
            }
            good += usize::from(look.may && look.penalty == 1.0);
            if good == DRAWN {
                break;
            }
        }
        let found = best.or(spare).map(|(_, at)| at);
        found.or_else(|| info.draw(random, self.fleet.loads.len())).map_or(Pick::Queue, Pick::At)
    }
}
