//! Asks a few servers before a call goes, where too little is known of them.

use std::{sync::atomic::AtomicU64, time::Duration};

use super::{fleet::Fleet, holds::Holds, reports::Outlook, speeds::Speeds, strain::Strain, waits::Waits};
use crate::balance::{Pick, PickInfo, Probed, Probes, number::Number};

/// So many are asked.
pub(super) const ASKED: usize = 4;
/// None of these is known to be so many times worse than others.
const WORSE: f32 = 3.0;
/// That takes no longer than this, or than so many round trips of a probe if that is longer; nor than such a share of
/// the typical latency.
const LONGEST: f32 = 0.003;
const ROUND_TRIPS: f32 = 2.0;
const SHARE: f32 = 0.5;
/// It is not worth it where the worst of them takes less than so many times longer than the best as a call waits for
/// them, as where no queues are;
const WORTH: f32 = 2.0;
/// or for less where all are alike, so that nothing else tells one from the other: down to none, as that wait is less than such
/// a share of the typical latency.
const DEAR: f32 = 0.3;
/// Where the mean square by which the logarithms of servers' typical latencies differ is this, they are half alike.
const ALIKE: f32 = 0.01;
/// For one of so many calls it is looked then what they said before, which tells whether it is worth it now,
const STILL: u64 = 64;
/// and for one of so many of these they are asked, which tells how long that takes now. One in a hundred would be seen
/// in the 99th percentile.
const SELDOM: u64 = 4;

/// What one finding counts for in a mean.
const GAIN: f32 = 0.1;

/// What a channel's pickers leave to the next.
#[derive(Debug)]
pub(super) struct Past {
    /// When the first call was picked, in microseconds; 0 before.
    pub(super) begun: AtomicU64,
    /// The mean of the seconds until a probe's first answer; 0 before.
    round_trip: Number,
    /// The mean of the seconds that a call waited until all had answered: longer than for the first, and longer than that of a
    /// probe that another call had sent before; 0 before.
    waited: Number,
    /// The mean of the seconds that the worst of those that answered takes longer than the best, by their word; infinite
    /// before.
    saves: Number,
    /// The mean square by which the logarithms of servers' typical latencies differ; infinite before.
    differ: Number,
    pub(super) holds: Holds,
    pub(super) waits: Waits,
    pub(super) speeds: Speeds,
    pub(super) strain: Strain,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            round_trip: Number::default(),
            waited: Number::default(),
            saves: Number::new(f32::INFINITY),
            differ: Number::new(f32::INFINITY),
            holds: Holds::default(),
            waits: Waits::default(),
            speeds: Speeds::default(),
            strain: Strain::default(),
        }
    }
}

impl Past {
    pub(super) fn differs(&self, found: f32) {
        self.differ.average(f32::INFINITY, found, GAIN);
    }

    /// How far servers' typical latencies are alike: from 0 to 1.
    pub(super) fn alike(&self) -> f32 {
        ALIKE / (ALIKE + self.differ.get())
    }

    /// Probes, as yet of nobody, where calls typically take so many seconds.
    fn probes(&self, typical: f32) -> Probes {
        // From when one is asked its answer has to come here, the others' too, and the call to go there: as long as a call waits.
        Probes::new([], self.patience(typical)).announcing(Duration::from_secs_f32(self.waited.get()))
    }

    /// How long to wait for probes, where calls typically take so many seconds.
    fn patience(&self, typical: f32) -> Duration {
        Duration::from_secs_f32(LONGEST.max(ROUND_TRIPS * self.round_trip.get()).min(SHARE * typical))
    }

    /// Whether to ask saves enough for that, where calls typically take so many seconds.
    fn is_worth_it(&self, typical: f32) -> bool {
        let waited = self.waited.get();
        let cheap = (1.0 - waited / (DEAR * typical)).max(0.0);
        self.saves.get() >= WORTH * waited * (1.0 - cheap * self.alike())
    }
}

/// Chooses whom to ask, of those for whom the first holds, by such probes.
type Whom<'a> = &'a dyn Fn(&dyn Fn(usize) -> bool, &Probes) -> Probes;
/// The best by what is known, where one alone was asked just now.
type Best<'a> = &'a dyn Fn(Option<&Probed<'_>>) -> Pick;

impl Fleet {
    /// Whether the best by what is known gets the call, and [`decide`](Self::decide) has nothing to add.
    #[inline(always)]
    pub(super) fn is_plain(&self, info: &PickInfo<'_>, outlook: &Outlook) -> bool {
        outlook.probes == 0.0 && self.past.strain.share() == 0.0 && info.probed.is_none()
    }

    /// Whom to ask before this call goes, of those that are worth it, or where it goes by what they said; or to one that is
    /// set aside; else to the best by what is known.
    #[inline(never)]
    pub(super) fn decide(&self, info: &PickInfo<'_>, outlook: &Outlook, whom: Whom<'_>, best: Best<'_>) -> Pick {
        if let Some(probed) = &info.probed {
            let alone = probed.asked.len() == 1;
            let told = if alone { None } else { self.best_of(probed, info, outlook) };
            return told.map_or_else(|| best(Some(probed).filter(|_| alone)), Pick::At);
        }
        if let Some(at) = self.spills(info, outlook) {
            return Pick::At(at);
        }
        match self.ask(info, outlook, whom).map_or_else(|| best(None), Pick::Probe) {
            Pick::At(at) if self.asks && self.may_be_slow(at, outlook) => {
                Pick::Probe(self.past.probes(self.typical()).with([at]))
            }
            pick => pick,
        }
    }

    /// Whether one that is picked may well be slow still: to ask costs less than to try.
    fn may_be_slow(&self, at: usize, outlook: &Outlook) -> bool {
        let load = &self.loads[at];
        load.answers_probes() == Some(true) && self.reports.was_slow(load, outlook.micros)
    }

    fn ask(&self, info: &PickInfo<'_>, outlook: &Outlook, whom: Whom<'_>) -> Option<Probes> {
        // Those that cannot be asked get their share of calls by what else is known.
        if !self.asks || (info.random as u32 as f32) >= outlook.probes * u32::MAX as f32 {
            return None;
        }
        let (is_worth_it, chance) = (self.past.is_worth_it(self.typical()), info.random >> 32);
        if !is_worth_it && !chance.is_multiple_of(STILL) {
            return None;
        }
        let is_wanted = |at: usize| !info.tried.contains(&at) && self.is_worth_asking(at, outlook);
        let probes = whom(&is_wanted, &self.past.probes(self.typical()));
        if is_worth_it || chance.is_multiple_of(STILL * SELDOM) {
            return (probes.at().len() > 1).then_some(probes);
        }
        self.compare(probes.at().iter().copied(), outlook);
        None
    }

    /// Finds how much longer the worst of these takes than the best, by what they said last.
    fn compare(&self, these: impl Iterator<Item = usize>, outlook: &Outlook) {
        let latency = |at: usize| self.loads[at].queued(outlook.micros).map(|queued| queued.latency);
        let known = these.filter_map(latency).filter(|latency| *latency > 0.0);
        let (least, most) = known.fold((f32::INFINITY, 0.0_f32), |(least, most), one| (least.min(one), most.max(one)));
        if most > 0.0 {
            self.past.saves.average(f32::INFINITY, most - least, GAIN);
        }
    }

    fn is_worth_asking(&self, at: usize, outlook: &Outlook) -> bool {
        let look = self.look(at, outlook);
        let good = look.good && look.times(self.factor(at, outlook.micros)) < WORSE;
        good && self.loads[at].answers_probes() != Some(false)
    }

    /// The best of those that answered, and of those whose word is no older than a call: none if none answered.
    fn best_of(&self, probed: &Probed<'_>, info: &PickInfo<'_>, outlook: &Outlook) -> Option<usize> {
        self.past.round_trip.average(0.0, probed.first.as_secs_f32(), GAIN);
        let is_here = |at: &usize| *at < self.loads.len();
        let spoke = |at: &usize| self.loads[*at].queued(outlook.micros).is_some_and(|said| said.age < self.typical());
        let answered = probed.answered.iter().copied().filter(is_here);
        let silent = probed.silent().filter(is_here);
        // One that stalls is why they are asked, and makes that no dearer; one that is far away does.
        if silent.clone().all(|at| spoke(&at)) {
            self.past.waited.average(0.0, probed.waited.as_secs_f32(), GAIN);
        }
        let untried = |at: &usize| !info.tried.contains(at);
        let answered = answered.filter(untried);
        self.compare(answered.clone(), outlook);
        answered.clone().next()?;
        let told = answered.map(|at| (self.score_asked(at, outlook, info.random), at));
        let silent = silent.filter(untried).filter(spoke);
        let known = silent.map(|at| (self.look_at_drawn(at, outlook, info.random).1, at));
        told.chain(known).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
    }
}
