//! A few of many endpoints are looked at for each call.

use super::{
    fleet::{Fleet, SEEN},
    probing::ASKED,
    reports::Outlook,
};
use crate::{
    balance::{Pick, PickInfo, Picker, Probed, Probes, mix},
    load::micros,
};

/// The best of so many that nothing speaks against, drawn as they weigh.
const DRAWN: usize = 5;
/// So many are drawn at most to find those.
const DRAWS: usize = 16;
/// So many are drawn at most to find those that are asked.
const ASKED_DRAWS: u64 = 12;

pub(super) struct Draw(pub(super) Fleet);

impl Picker for Draw {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let micros = micros(info.now);
        if let Some(since) = self.0.due(micros) {
            let some = std::iter::successors(Some(mix(info.random)), |random| Some(mix(*random)));
            self.0.refresh(micros, since, some.take(SEEN).map(|random| self.0.weights.draw(random)));
        }
        let outlook = self.0.outlook(micros);
        if self.0.is_plain(info, &outlook) {
            return self.best(info, &outlook, None);
        }
        let whom = |is_wanted: &dyn Fn(usize) -> bool, probes: &Probes| {
            let drawn = self.0.weights.draw_some(info.random, 1..=ASKED_DRAWS, ASKED, is_wanted);
            probes.with(drawn.at().iter().copied())
        };
        self.0.decide(info, &outlook, &whom, &|asked| self.best(info, &outlook, asked))
    }
}

impl Draw {
    /// The best of those that are drawn, were not tried, and are not silent if they were asked.
    #[inline(always)]
    fn best(&self, info: &PickInfo<'_>, outlook: &Outlook, asked: Option<&Probed<'_>>) -> Pick {
        let mut random = info.random;
        let (mut good, mut best, mut spare) = (0, None, None);
        for _ in 0..DRAWS {
            let at = self.0.weights.draw(random);
            random = mix(random);
            if info.tried.contains(&at) || asked.is_some_and(|asked| asked.silent().any(|silent| silent == at)) {
                continue;
            }
            let (look, score) = self.0.look_at_drawn(at, outlook, info.random);
            // The first of equals stays: it was drawn as it weighs.
            let place = if look.may { &mut best } else { &mut spare };
            if place.is_none_or(|(least, _)| score < least) {
                *place = Some((score, at));
            }
            good += usize::from(look.good);
            if good == DRAWN {
                break;
            }
        }
        let found = best.or(spare).map(|(_, at)| at);
        found.or_else(|| info.draw(random, self.0.loads.len())).map_or(Pick::Queue, Pick::At)
    }
}
