//! Asks a few servers before a call goes, where too little is known of them.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{fleet::Fleet, reports::Outlook};
use crate::balance::{Pick, PickInfo, Probed, Probes};

/// So many are asked.
const ASKED: usize = 4;
/// So many are drawn at most to find those.
const DRAWS: u64 = 12;
/// None of these is known to be so many times worse than others.
const WORSE: f32 = 3.0;
/// That takes no longer than this, nor than such a share of the typical latency.
const LONGEST: Duration = Duration::from_millis(3);
const SHARE: f32 = 0.25;
/// It is not worth it where calls take less than so many round trips of a probe; but for one of so many, which tells
/// how long that is now.
const WORTH: f32 = 5.0;
const STILL: u64 = 64;

/// What a channel's pickers leave to the next.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// When the first call was picked, in microseconds; 0 before.
    pub(super) begun: AtomicU64,
    /// The mean of the seconds that probes took; 0 before.
    round_trip: AtomicU32,
}

impl Past {
    fn waited(&self, waited: Duration) {
        let (before, waited) = (f32::from_bits(self.round_trip.load(Relaxed)), waited.as_secs_f32());
        let mean = if before == 0.0 { waited } else { before + (waited - before) * 0.1 };
        self.round_trip.store(mean.to_bits(), Relaxed);
    }

    /// How long to wait for probes, where calls typically take so many seconds; none if they are not worth it.
    fn patience(&self, typical: f32, random: u64) -> Option<Duration> {
        let worth = typical >= WORTH * f32::from_bits(self.round_trip.load(Relaxed));
        (worth || random.is_multiple_of(STILL)).then(|| Duration::from_secs_f32(typical * SHARE).min(LONGEST))
    }
}

impl Fleet {
    /// Whom to ask before this call goes, or where it goes by what they said; none if that does not decide.
    #[inline]
    pub(super) fn by_probes(&self, info: &PickInfo<'_>, outlook: &Outlook<'_>) -> Option<Pick> {
        if outlook.probes > 0.0 || info.probed.is_some() { self.asked(info, outlook) } else { None }
    }

    #[inline(never)]
    fn asked(&self, info: &PickInfo<'_>, outlook: &Outlook<'_>) -> Option<Pick> {
        match &info.probed {
            None => self.ask(info, outlook).map(Pick::Probe),
            Some(probed) => self.best_of(probed, info, outlook).map(Pick::At),
        }
    }

    fn ask(&self, info: &PickInfo<'_>, outlook: &Outlook<'_>) -> Option<Probes> {
        // Those that cannot be asked get their share of calls by what else is known.
        if !self.asks || (info.random as u32 as f32) >= outlook.probes * u32::MAX as f32 {
            return None;
        }
        let wait = self.past.patience(outlook.typical(), info.random >> 32)?;
        let is_wanted = |at| !info.tried.contains(&at) && self.is_worth_asking(at, outlook);
        let drawn = self.weights.draw_some(info.random, 1..=DRAWS, ASKED, is_wanted);
        (drawn.at().len() > 1).then(|| Probes::new(drawn.at().iter().copied(), wait))
    }

    fn is_worth_asking(&self, at: usize, outlook: &Outlook<'_>) -> bool {
        let look = self.look(at, outlook);
        let good = look.good && look.penalty * self.factor(at, outlook.micros) < WORSE;
        good && self.loads[at].answers_probes() != Some(false)
    }

    /// The best of those that answered; none if none did.
    fn best_of(&self, probed: &Probed<'_>, info: &PickInfo<'_>, outlook: &Outlook<'_>) -> Option<usize> {
        if !probed.answered.is_empty() {
            self.past.waited(probed.waited);
        }
        let there = probed.answered.iter().filter(|at| **at < self.loads.len() && !info.tried.contains(at));
        let score = |at: &usize| {
            let look = self.look(*at, outlook);
            (look.calls + 1.0) * look.penalty * self.factor(*at, outlook.micros)
        };
        there.copied().map(|at| (score(&at), at)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
    }
}
