//! All endpoints are looked at for each call.

use super::{
    fleet::{Fleet, SEEN},
    probing::ASKED,
    reports::Outlook,
};
use crate::{
    balance::{Pick, PickInfo, Picker, Probed, Probes, mix, number::Number},
    load::micros,
};

/// A call that takes so many times as long as they typically do is late.
const LATE: f32 = 2.0;
/// One of so many is not asked, by chance: else all clients that know the same would ask the same.
const LEFT_OUT: u64 = 2;

/// The best of at most [`SEEN`].
pub(super) struct Scan {
    fleet: Fleet,
    /// What slows each.
    factors: Box<[Number]>,
}

impl Scan {
    pub(super) fn new(fleet: Fleet) -> Self {
        let factors = fleet.loads.iter().map(|_| Number::new(1.0)).collect();
        Self { fleet, factors }
    }

    #[cold]
    #[inline(never)]
    fn refresh(&self, micros: u64, since: u64) {
        self.fleet.refresh(micros, since, 0..self.factors.len());
        for (at, factor) in self.factors.iter().enumerate() {
            factor.set(self.fleet.factor(at, micros));
        }
    }

    /// The scores of all that may be picked, or else of all, and infinite ones of the others; and how many those are. By
    /// how many calls a call there counts for, that is slower by so many times.
    #[inline(always)]
    fn score(&self, scores: &mut [f32], outlook: &Outlook, all: bool, call: impl Fn(usize, f32) -> f32) -> usize {
        let mut aside = 0;
        for (at, (place, factor)) in scores.iter_mut().zip(&self.factors).enumerate() {
            let look = self.fleet.look(at, outlook);
            let factor = factor.get();
            let score = look.score(call(at, factor), factor);
            *place = if look.may || all { score } else { f32::INFINITY };
            aside += usize::from(!look.may);
        }
        aside
    }

    #[inline(always)]
    fn scores(&self, scores: &mut [f32], random: u64, outlook: &Outlook, all: bool) -> usize {
        let are_even = self.fleet.weights.are_even();
        if are_even && !self.fleet.has_new() {
            return self.score(scores, outlook, all, |_, factor| factor);
        }
        self.score(scores, outlook, all, |at, factor| {
            let call = self.fleet.first(at, factor, outlook.micros, random);
            if are_even {
                return call;
            }
            // Of random waits, each of a mean by its weight, the shortest is one's as often as it weighs, and as it is fast;
            // what makes it slow is no matter of chance.
            exponential(mix(random ^ (at as u64) << 32)) + call - 1.0
        })
    }

    /// The best of all that were not tried, and are not silent if they were asked just now.
    #[inline(always)]
    fn best(&self, info: &PickInfo<'_>, outlook: &Outlook, asked: Option<&Probed<'_>>) -> Pick {
        for at in asked.iter().flat_map(|asked| asked.asked.iter().copied()).filter(|at| *at < self.factors.len()) {
            self.factors[at].set(self.fleet.factor(at, outlook.micros));
        }
        let mut scores = [f32::INFINITY; SEEN];
        let scores = &mut scores[..self.factors.len()];
        if self.scores(scores, info.random, outlook, false) * 2 > scores.len() {
            self.scores(scores, info.random, outlook, true);
        }
        let silent = asked.iter().flat_map(|asked| asked.silent());
        for at in info.tried.iter().copied().chain(silent) {
            scores.get_mut(at).into_iter().for_each(|score| *score = f32::INFINITY);
        }
        let least = least(scores);
        if least == f32::INFINITY {
            // What is set aside is better than nothing.
            return info.draw(info.random, self.factors.len()).map_or(Pick::Queue, Pick::At);
        }
        let equals = scores.iter().filter(|score| **score == least).count();
        let which = ((u128::from(info.random) * equals as u128) >> 64) as usize;
        let mut best = scores.iter().enumerate().filter(|(_, score)| **score == least);
        let Some((at, _)) = best.nth(which) else { return Pick::Queue };
        let first = if equals > 1 && self.is_busy(at) { self.done_first(scores, least, outlook) } else { None };
        Pick::At(first.unwrap_or(at))
    }

    /// Those that seem best, and chance among equals.
    #[inline(never)]
    fn to_ask(
        &self,
        info: &PickInfo<'_>,
        outlook: &Outlook,
        is_wanted: &dyn Fn(usize) -> bool,
        probes: &Probes,
    ) -> Probes {
        let mut scores = [0.0; SEEN];
        let scores = &mut scores[..self.factors.len()];
        self.scores(scores, info.random, outlook, false);
        let (mut ranks, mut count) = ([(false, 0.0, 0, 0); SEEN], 0);
        for (at, score) in scores.iter().enumerate().filter(|(at, _)| is_wanted(*at)) {
            let chance = mix(info.random ^ (at as u64 + 1) << 48);
            ranks[count] = (chance.is_multiple_of(LEFT_OUT), *score, chance, at);
            count += 1;
        }
        let ranks = &mut ranks[..count];
        if count > ASKED {
            ranks.select_nth_unstable_by(ASKED, |a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        }
        let best = &mut ranks[..count.min(ASKED)];
        // Of those that answer alike the first takes the call.
        best.sort_unstable_by_key(|(.., chance, _)| *chance);
        probes.with(best.iter().map(|(.., at)| *at))
    }

    fn is_busy(&self, at: usize) -> bool {
        self.fleet.loads[at].in_flight() > 0
    }

    /// Of equals that are busy, the one that was picked longest ago; who was so long ago that its call is late may be so
    /// for long, and comes last.
    #[inline(never)]
    fn done_first(&self, scores: &[f32], least: f32, outlook: &Outlook) -> Option<usize> {
        let late = LATE * self.fleet.typical();
        let since = |at: usize| {
            let since = self.fleet.loads[at].since_picked(outlook.micros);
            if since > late { -since } else { since }
        };
        let equals = (0..scores.len()).filter(|at| scores[*at] == least && self.is_busy(*at));
        equals.max_by(|a, b| since(*a).total_cmp(&since(*b)))
    }
}

impl Picker for Scan {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let micros = micros(info.now);
        if let Some(since) = self.fleet.due(micros) {
            self.refresh(micros, since);
        }
        let outlook = self.fleet.outlook(micros);
        let pick = if self.fleet.is_plain(info, &outlook) {
            self.best(info, &outlook, None)
        } else {
            let whom =
                |is_wanted: &dyn Fn(usize) -> bool, probes: &Probes| self.to_ask(info, &outlook, is_wanted, probes);
            self.fleet.decide(info, &outlook, &whom, &|asked| self.best(info, &outlook, asked))
        };
        if let Pick::At(at) = pick {
            self.fleet.loads[at].picked(micros);
        }
        pick
    }
}

/// From random bits a wait of mean 1 for what comes at random.
fn exponential(random: u64) -> f32 {
    -(((random >> 40) as f32 + 1.0) / (1_u32 << 24) as f32).ln()
}

/// Four at a time, as each waits for the one before.
#[inline(always)]
fn least(scores: &[f32]) -> f32 {
    // Half as many instructions as `f32::min`.
    let less = |a: f32, b: f32| if b < a { b } else { a };
    let (fours, rest) = scores.as_chunks::<4>();
    let mut least = [f32::INFINITY; 4];
    for four in fours {
        least = std::array::from_fn(|nth| less(least[nth], four[nth]));
    }
    least.iter().chain(rest).copied().fold(f32::INFINITY, less)
}
