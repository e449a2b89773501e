//! What is known of the endpoints, each beside the others.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    probing::Past,
    reports::{Outlook, Reports, Seen},
    sample::{Sample, median},
};
use crate::{
    balance::{Node, due::Due, number::Number, weights::Weights},
    load::{LoadCell, Standing, TOO_MANY, millis},
    util::mix::{fraction, mix},
};

/// Of no more are all looked at when it is to be seen what is typical; of more, so many.
pub(super) const SEEN: usize = 128;

/// An endpoint that is so many times slower than the median is slow,
const BAND: f32 = 1.3;
/// if it is by so many seconds too: a call that takes less than that is as often made longer by who wakes up late, or
/// by a cold cache, and who is picked seldom has more of both.
pub(super) const BLUR: f32 = 0.000_25;

/// The seconds above which it is.
pub(super) fn slow_from(median: f32) -> f32 {
    median * BAND + BLUR
}

/// One that is slow counts as so many times busier as it is slower, to this power: two would believe too much of chance,
/// where some calls take far longer than others. Where all calls are this channel's, to the power of 1.
const POWER: f32 = 1.2;

/// How long one that is new has less than its share, and what it has at first.
const SLOW_START_MILLIS: u32 = 10_000;
const FIRST_SHARE: f32 = 0.1;

/// What one look counts for in the share of those that fail now.
const FAILING_GAIN: f32 = 0.1;
/// Where the others fail too, one that is set aside is tried so many seconds after it failed: at once would be most calls
/// where it fails at once.
const AGAIN_SECONDS: f32 = 0.1;
/// One that is spared counts as so many times busier.
const SPARED: f32 = 2.0;

/// So often is looked at what changes slowly.
pub(super) const REFRESH_MICROS: u64 = 5_000;

/// The endpoints, by position, and what they are together.
pub(super) struct Fleet {
    pub(super) loads: Box<[Arc<LoadCell>]>,
    pub(super) weights: Weights,
    /// How many times more the heaviest can do than each, by its weight and by how fast it was found to be.
    lightness: Box<[Number]>,
    /// The median by weight alone.
    median: f32,
    pub(super) past: Arc<Past>,
    /// Whether servers may be asked.
    pub(super) asks: bool,
    /// When to look again.
    due: Due,
    /// The median of the logarithms of the typical latencies in nanoseconds; NaN if there are none.
    pace: Number,
    /// The logarithm above which one is slow.
    slow: Number,
    /// The median share of failures.
    failures: Number,
    /// The share of those in use whose last call failed, a mean over some looks.
    failing: Number,
    pub(super) reports: Reports,
    /// The share of those that are new.
    new: Number,
}

/// One look at an endpoint.
pub(super) struct Look {
    /// The requests that others have in flight, as if all could do what the heaviest can.
    others: f32,
    /// This channel's calls.
    own: f32,
    /// What one counts for.
    lightness: f32,
    /// How many times busier it counts for what it failed, though that be no reason not to pick it.
    penalty: f32,
    /// Whether it may be picked.
    pub(super) may: bool,
    /// Whether nothing speaks against it.
    pub(super) good: bool,
}

impl Look {
    /// Who has least of it gets the call, which counts as so many of this channel's. Who is so many times slower of late
    /// counts as so many times busier with this channel's calls, and not with others': all channels see how slow it is,
    /// and would all leave it at once, and come back at once.
    #[inline(always)]
    pub(super) fn score(&self, call: f32, factor: f32) -> f32 {
        (self.others + (self.own * factor + call) * self.lightness) * self.penalty
    }

    /// How many times worse than others it is, whoever is busy.
    pub(super) fn times(&self, factor: f32) -> f32 {
        factor * self.penalty
    }
}

impl Fleet {
    pub(super) fn new(ready: &[Node], past: Arc<Past>, asks: bool) -> Self {
        let weights = Weights::of(ready);
        let middle = if weights.are_even() { None } else { median(&mut weights.all().to_vec()) };
        let fleet = Self {
            loads: ready.iter().map(|node| node.load().clone()).collect(),
            lightness: weights.all().iter().copied().map(Number::new).collect(),
            median: middle.unwrap_or(1.0),
            weights,
            past,
            asks,
            due: Due::default(),
            pace: Number::new(f32::NAN),
            slow: Number::new(f32::INFINITY),
            failures: Number::default(),
            failing: Number::default(),
            reports: Reports::default(),
            new: Number::default(),
        };
        if fleet.past.speeds.are_known() {
            (0..ready.len()).for_each(|at| fleet.weigh(at));
        }
        fleet
    }

    /// Finds what one can do. How fast it is for good tells so as its weight does. Who weighs more is expected to be
    /// faster, as far as what comes waits for what is there.
    fn weigh(&self, at: usize) {
        let lightness = self.weights.lightness(at);
        let expected = || (lightness / self.median).ln() * self.past.waits.power();
        self.lightness[at].set(lightness * self.past.speeds.times(&self.loads[at], expected));
    }

    /// Whether it is this caller's turn to look what is typical: how many microseconds after that was last done.
    pub(super) fn due(&self, micros: u64) -> Option<u64> {
        self.due.take(micros, REFRESH_MICROS)
    }

    /// Looks what is typical, of at most [`SEEN`] of them, so many microseconds after it did so before.
    pub(super) fn refresh(&self, micros: u64, since: u64, these: impl Iterator<Item = usize>) {
        let (mut paces, mut failures, mut new) = (Sample::default(), Sample::default(), 0.0);
        let (mut in_use, mut failing, mut late) = (0.0_f32, 0.0, 0.0);
        let mut seen = Seen::since(since);
        let (before, speeds) = (self.pace(), self.past.speeds.are_known());
        for at in these.take(SEEN) {
            let load = &self.loads[at];
            paces.extend(load.pace(before, micros));
            failures.push(load.failures());
            let standing = load.look(millis(micros)).1;
            if !standing.is_set_aside() {
                in_use += 1.0;
                let fails = if load.fails_now(micros) { 1.0 } else { 0.0 };
                failing += fails;
                late += if standing == Standing::Spared { fails } else { 0.0 };
            }
            if speeds {
                self.weigh(at);
            }
            let lightness = (self.weights.lightness(at), self.lightness[at].get());
            self.reports.see(load, lightness, micros, &self.past, &mut seen);
            new += if self.known_for(load, micros) < SLOW_START_MILLIS { 1.0 } else { 0.0 };
        }
        let pace = paces.median();
        if let Some(pace) = pace {
            self.past.differs(paces.square(pace, |_| true));
            self.past.strain.saw(pace, late / in_use.max(1.0), since as f32 * 1e-6);
        }
        self.pace.set(pace.unwrap_or(f32::NAN));
        let slow = pace.map_or(f32::INFINITY, |pace| (slow_from(pace.exp() * 1e-9) * 1e9).ln());
        self.slow.set(slow);
        self.failures.set(failures.median().unwrap_or(0.0));
        // From 0 on: the first look tells no more than any other.
        self.failing.average(f32::NAN, if in_use > 0.0 { failing / in_use } else { 1.0 }, FAILING_GAIN);
        self.new.set(new / seen.count.max(1.0));
        self.reports.saw(seen, pace, &self.past);
    }

    /// The seconds that a call typically takes.
    pub(super) fn typical(&self) -> f32 {
        self.reports.typical()
    }

    /// What holds for all looks of one pick.
    pub(super) fn outlook(&self, micros: u64) -> Outlook {
        self.reports.outlook(micros)
    }

    fn pace(&self) -> Option<f32> {
        Some(self.pace.get()).filter(|pace| !pace.is_nan())
    }

    /// How many times busier than it is one counts with this channel's calls.
    #[inline(always)]
    pub(super) fn factor(&self, at: usize, micros: u64) -> f32 {
        self.slowness(at, micros) / self.share(at, micros)
    }

    /// The part of that for how slow it is by what calls took, and by its own word, and for failing more than others.
    #[inline(always)]
    fn slowness(&self, at: usize, micros: u64) -> f32 {
        let load = &self.loads[at];
        let above = load.pace(self.pace(), micros).map_or(0.0, |pace| pace - self.slow.get());
        let slow = if above > 0.0 { (self.reports.power(POWER) * above).exp() } else { 1.0 };
        let slow = if self.reports.tell_latency() {
            slow * self.reports.slower(load, self.lightness[at].get(), micros)
        } else {
            slow
        };
        slow * penalty(self.fails_more(load, micros))
    }

    /// The part for being new: the share that it gets of what it would have otherwise. All, once it has said how it fares.
    #[inline(always)]
    fn share(&self, at: usize, micros: u64) -> f32 {
        let load = &self.loads[at];
        let known = self.known_for(load, micros);
        let says = || load.queued(micros).is_some_and(|queued| queued.latency > 0.0);
        if known >= SLOW_START_MILLIS || self.new.get() > 0.5 || says() {
            return 1.0;
        }
        FIRST_SHARE + (1.0 - FIRST_SHARE) * known as f32 / SLOW_START_MILLIS as f32
    }

    /// Whether some of those that were looked at last are new.
    #[inline(always)]
    pub(super) fn has_new(&self) -> bool {
        self.new.get() > 0.0
    }

    /// How many times busier one counts with its first call, by a call's random number. Where all are idle the lowest score
    /// takes every call, and who is new would get none; so it counts as any other for its share of them.
    #[inline(always)]
    pub(super) fn first(&self, at: usize, factor: f32, micros: u64, random: u64) -> f32 {
        if factor > 1.0 { self.first_of_slow(at, factor, micros, random) } else { factor }
    }

    /// The same of one that is slow, or new.
    #[inline(never)]
    fn first_of_slow(&self, at: usize, factor: f32, micros: u64, random: u64) -> f32 {
        let share = if self.loads[at].in_flight() == 0 { self.share(at, micros) } else { 1.0 };
        let chance = fraction(mix(random ^ (at as u64 + 1) << 32));
        if share < 1.0 && chance < share { self.slowness(at, micros) } else { factor }
    }

    /// What share of its calls one fails that others do not, up to that which sets it aside. Who is on trial gets its call.
    fn fails_more(&self, load: &LoadCell, micros: u64) -> f32 {
        let failures = load.failures_of_late(micros);
        if failures == 0.0 || load.look(millis(micros)).1 == Standing::Trial {
            return 0.0;
        }
        (failures - self.tolerated()).clamp(0.0, TOO_MANY)
    }

    /// For how many milliseconds one has been known. Those that were there at the beginning are not new.
    fn known_for(&self, load: &LoadCell, micros: u64) -> u32 {
        let begun = match self.past.begun.load(Relaxed) {
            0 => self.past.begun.compare_exchange(0, micros, Relaxed, Relaxed).err().unwrap_or(micros),
            begun => begun,
        };
        let early = micros.saturating_sub(begun) < u64::from(SLOW_START_MILLIS) * 1_000;
        load.known_for(if early { SLOW_START_MILLIS } else { 0 }, millis(micros))
    }

    // A hundred times in a pick.
    #[inline(always)]
    pub(super) fn look(&self, at: usize, outlook: &Outlook) -> Look {
        let (load, lightness) = (&self.loads[at], self.lightness[at].get());
        let (own, standing) = load.look(millis(outlook.micros));
        let others = self.reports.others(outlook, load, lightness);
        let is_good = standing == Standing::Good || standing == Standing::Trial && own == 0;
        let (penalty, may) = if is_good { (1.0, true) } else { self.against(load, standing, own, outlook.micros) };
        let good = may && penalty == 1.0;
        Look { others, own: own as f32, lightness, penalty, may, good }
    }

    /// One that was drawn as it weighs, and its score, for which a call does not count by its weight again.
    #[inline(always)]
    pub(super) fn look_at_drawn(&self, at: usize, outlook: &Outlook, random: u64) -> (Look, f32) {
        let look = self.look(at, outlook);
        let score = self.score_drawn(at, &look, outlook, random);
        (look, score)
    }

    /// The score of one that was asked just now, likewise.
    pub(super) fn score_asked(&self, at: usize, outlook: &Outlook, random: u64) -> f32 {
        let others = self.reports.others_asked(outlook, &self.loads[at], self.lightness[at].get());
        self.score_drawn(at, &Look { others, ..self.look(at, outlook) }, outlook, random)
    }

    #[inline(always)]
    fn score_drawn(&self, at: usize, look: &Look, outlook: &Outlook, random: u64) -> f32 {
        let factor = self.factor(at, outlook.micros);
        let call = self.first(at, factor, outlook.micros, random);
        let call = if self.weights.are_even() { call } else { call / self.weights.lightness(at) };
        look.score(call, factor)
    }

    /// How many times busier one counts that something speaks against, and whether it may be picked: a call at a time where
    /// those that nothing speaks against fail as well.
    #[cold]
    #[inline(never)]
    fn against(&self, load: &LoadCell, standing: Standing, own: u32, micros: u64) -> (f32, bool) {
        if standing == Standing::Spared {
            return (SPARED, true);
        }
        if own == 0 && self.failing.get() > TOO_MANY && load.since_failure(micros) > AGAIN_SECONDS {
            return (1.0, true);
        }
        let failures = load.failures();
        // In sixteenths: those that fail about as often are alike. Where all fail alike none is set aside for it.
        (penalty((failures * 16.0).round() / 16.0), failures <= self.tolerated())
    }

    /// The share of failures that sets nobody apart: about what half of them have, or all that are in use now.
    fn tolerated(&self) -> f32 {
        self.failures.get().max(self.failing.get()) * 2.0 + 0.01
    }
}

/// How many times busier one counts that fails such a share of its calls.
fn penalty(failures: f32) -> f32 {
    (1.02 / (1.02 - failures)).powi(2)
}
