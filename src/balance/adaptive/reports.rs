//! What an endpoint has in flight and how fast it is, by what its server said and what was sent there since.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::{
    fleet::{BLUR, REFRESH_MICROS, slow_from},
    holds::{OLDEST, aged, left},
    probing::Past,
    sample::Sample,
    speeds::Speeds,
};
use crate::{
    balance::number::Number,
    load::{LoadCell, UNIT_SECONDS, unit},
};

/// One that is slow by its own word counts as so many times busier as it is slower, to this power; where all calls are this
/// channel's, to the power of 1.
const POWER: f32 = 2.0;
/// After so many typical latencies the same holds for how fast it is.
const SPEED_LASTS: f32 = 20.0;
/// What a server says of its requests in flight holds for no longer than so many times as all that it has take to be done.
/// It may well come true for longer, but where all go by it that is the herd's doing.
const LONGEST: f32 = 1.5;
/// What was said within so many typical latencies is recent.
const RECENT: f32 = 0.3;
/// Where this channel has more than such a share of the requests in flight, it knows them without being told.
const MOSTLY: f32 = 0.75;
/// Where a call takes more than so many times as long as at the server, what was said is old when the call comes there.
const FAR: f32 = 2.5;
/// What calls take there is so many times what is said, as where they differ by chance the lower of two medians is less.
const LOWER: f32 = 1.1;
/// Where no more is left than that of what a server says by the time that a call comes there, it is not looked at: else it
/// would send all who are as far away to the same.
const LITTLE: f32 = 0.25;
/// As far as servers are alike it is doubted what others have more at one, unless it is more than so many standard deviations of
/// what comes at random.
const DEVIATIONS: f32 = 2.0;
/// The more that is doubted, the larger the steps in which others have more, up to a whole request: who seems best by next to
/// nothing would else get all calls. The least of these steps.
const LEAST_STEP: f32 = 0.001;
/// All clients that have calls at one hear what others have more there, and each makes up for it, where all together are to do so
/// once. So it counts for less the smaller the share of this channel of what was in flight when servers said so, to this power:
/// not in proportion, as a call goes there or not.
const SHARE_POWER: f32 = 1.0 / 6.0;
/// To so much more where all of what was said is gone by the time that a call comes there: none sees what the others make up for
/// before its own calls are on the way.
const WAY_POWER: f32 = 1.0 / 3.0;
/// The least share that counts.
const LEAST_SHARE: f32 = 0.01;
/// What one look counts for in the mean of what this channel has in flight.
const OWN_GAIN: f32 = 0.1;
/// What was said within so many seconds was not looked at before.
const NEW: f32 = REFRESH_MICROS as f32 * 1e-6;

/// What servers say, one beside the other.
#[derive(Debug)]
pub(super) struct Reports {
    /// The median of other clients' requests in flight, as if all could do what the heaviest can; NaN if none says so.
    /// A median, as one server that lies must not move it.
    others: Number,
    /// One by the seconds for which what a server says of its requests in flight holds: until it gets another call, which
    /// is as many times a second as it has calls in flight while one takes
    /// ([Little](https://doi.org/10.1287/opre.9.3.383)); or as much longer as was [found](super::holds::Holds).
    rate: Number,
    /// The median of all requests in flight, likewise; 0 if none says so.
    in_flight: Number,
    /// The [power](super::waits::Waits::power) of that with which latencies grow.
    waits: Number,
    /// The median of the seconds that answers take, as servers say; infinite if none says so.
    latency: Number,
    /// The seconds that a call typically takes, by this channel's own clock.
    typical: Number,
    /// The seconds on the way, to the server and back; infinite where so [little](LITTLE) is left of what is said that all
    /// of it is too old.
    way: Number,
    /// How many units of time ago nothing was said that still holds.
    oldest: AtomicU32,
    /// The share of calls for which some are asked.
    probes: Number,
    /// What others have more by chance, squared, and the part of that which is believed. Where calls take as long as each
    /// other everywhere, work that is sent evenly stays even, and such a difference is one of the moment.
    chance: Number,
    believed: Number,
    /// This channel's requests in flight at each, a mean over some looks; negative before.
    own: Number,
    /// What part that is of all that are in flight, [a hundredth](LEAST_SHARE) at least, as where nobody says what others have.
    own_share: Number,
    /// In steps of so many requests others have more at one than at another; and how many steps a request is.
    step: Number,
    steps: Number,
    /// How many less than the median others have at one that was not tried yet: all where all is known of the others, and none
    /// where nothing is, as it would get all calls.
    idle: Number,
}

impl Default for Reports {
    fn default() -> Self {
        let zero = Number::default;
        Self {
            others: Number::new(f32::NAN),
            rate: Number::new(100.0),
            in_flight: zero(),
            waits: zero(),
            latency: Number::new(f32::INFINITY),
            typical: Number::new(0.01),
            way: zero(),
            oldest: AtomicU32::new(0),
            probes: zero(),
            chance: zero(),
            believed: zero(),
            own: Number::new(-1.0),
            own_share: zero(),
            step: zero(),
            steps: zero(),
            idle: zero(),
        }
    }
}

/// What one look at all finds.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) count: f32,
    /// Seconds since the look before.
    since: f32,
    in_flight: Sample,
    others: Sample,
    latency: Sample,
    speeds: Sample,
    own: f32,
    recent: f32,
    known: f32,
    answering: f32,
    refusing: f32,
}

impl Seen {
    /// The look before was so many microseconds ago.
    pub(super) fn since(micros: u64) -> Self {
        Self { since: (micros as f32 * 1e-6).max(NEW), ..Self::default() }
    }
}

impl Reports {
    /// Looks at one, so many times lighter than the heaviest by its weight, and by how fast it is as well.
    pub(super) fn see(
        &self,
        load: &LoadCell,
        (weight, lightness): (f32, f32),
        micros: u64,
        past: &Past,
        seen: &mut Seen,
    ) {
        let one = |is: bool| if is { 1.0 } else { 0.0 };
        seen.count += 1.0;
        seen.own += load.in_flight() as f32 * lightness;
        seen.answering += one(load.answers_probes() == Some(true));
        seen.refusing += one(load.answers_probes() == Some(false));
        let Some(queued) = load.queued(micros) else { return };
        seen.in_flight.push(queued.in_flight * lightness);
        seen.others.push(queued.others * lightness);
        let is_new = queued.age < NEW;
        if let Some((before, seconds)) = load.queued_before().filter(|_| is_new) {
            let [before, now] = [before, queued.others].map(|others| others * lightness - self.others.get());
            past.holds.learn(before, now, seconds * self.rate.get());
        }
        seen.known += left((queued.age + self.way.get()) * self.rate.get());
        seen.recent += one(queued.age < RECENT * self.typical.get());
        seen.speeds.extend(Speeds::of(load));
        if queued.latency > 0.0 {
            seen.latency.push(queued.latency);
            // Else one that needs a few microseconds less would be so much faster, and get all calls where all are idle.
            let times = (queued.latency + BLUR) / (self.latency.get() + BLUR);
            let busier = self.busier(queued.in_flight * weight);
            if is_new {
                past.waits.learn(busier, times);
            }
            if let Some((_, seconds)) = load.queued_before().filter(|_| queued.age < seen.since) {
                // By Little's law.
                let answers = queued.in_flight.max(0.5) / queued.latency * seconds;
                let random = micros ^ (seen.count as u64) << 48;
                past.speeds.learn(load, times / busier.powf(self.waits.get()), answers, random);
            }
        }
    }

    /// How many times as much as the median one has to do that has so many requests in flight, with one more.
    fn busier(&self, in_flight: f32) -> f32 {
        (in_flight + 1.0) / (self.in_flight.get() + 1.0)
    }

    /// All were looked at, and calls take so long, by the logarithm of their nanoseconds.
    pub(super) fn saw(&self, mut seen: Seen, pace: Option<f32>, past: &Past) {
        let others = seen.others.median();
        self.others.set(others.unwrap_or(f32::NAN));
        let latency = seen.latency.median();
        self.latency.set(latency.unwrap_or(f32::INFINITY));
        if let Some(pace) = pace {
            self.typical.set((pace.exp() * 1e-9).max(1e-6));
        }
        past.speeds.saw(seen.speeds);
        let in_flight = seen.in_flight.median().unwrap_or(0.0);
        self.in_flight.set(in_flight);
        self.waits.set(past.waits.power());
        let there = latency.unwrap_or_else(|| self.typical.get());
        let rate = (in_flight.max(1.0) / past.holds.times()).max(1.0 / LONGEST) / there;
        self.rate.set(rate);
        let way = (self.typical.get() - LOWER * there).max(0.0);
        let remains = left(way * rate);
        let way = if remains < LITTLE { f32::INFINITY } else { way };
        self.way.set(way);
        self.oldest.store(((OLDEST / rate - way) / UNIT_SECONDS) as u32, Relaxed);
        let (chance, doubt) = (DEVIATIONS.powi(2) * (self.others.get() + 1.0), past.alike());
        self.chance.set(chance);
        self.believed.set(chance * (1.0 - doubt));
        let step = doubt.powi(2).max(LEAST_STEP);
        self.own.average(-1.0, seen.own / seen.count.max(1.0), OWN_GAIN);
        // Not a number where none says what is in flight, and then it is the least.
        let share_of = |all: f32| (1.0 - self.others.get() / all).max(LEAST_SHARE);
        // By what is there now, as what brings a report is an answer to a call of this channel.
        self.own_share.set(share_of(self.own.get() + self.others.get()));
        self.step.set(step);
        // By what was reported: who heard of it has had a call there.
        let power = SHARE_POWER + WAY_POWER * (1.0 - remains);
        let reported_share = share_of(in_flight);
        self.steps.set(reported_share.powf(power) / step);
        self.idle.set(self.others.get() * seen.known / seen.count.max(1.0));
        // Who does not answer gets its share of calls by what else is known.
        let wanted = seen.recent * 2.0 < seen.count
            && seen.answering * 2.0 > seen.count
            && reported_share <= MOSTLY
            && self.typical.get() <= there * FAR;
        let probes = if wanted { 1.0 - seen.refusing / seen.count } else { 0.0 };
        self.probes.set(probes);
    }

    /// To what power slowness counts, instead of this one: more than 1 makes up for the calls of others, for which it does
    /// not count; where there are none, who is slow shows in what waits there as well, and more would believe too much of
    /// chance.
    pub(super) fn power(&self, among_others: f32) -> f32 {
        1.0 + (among_others - 1.0) * (1.0 - self.own_share.get())
    }

    /// Whether any server says how long its answers take.
    pub(super) fn tell_latency(&self) -> bool {
        self.latency.get() < f32::INFINITY
    }

    /// How many times busier one counts as it is slower than the median by its own word.
    pub(super) fn slower(&self, load: &LoadCell, lightness: f32, micros: u64) -> f32 {
        let slow = slow_from(self.latency.get());
        let Some(queued) = load.queued(micros).filter(|queued| queued.latency > slow) else { return 1.0 };
        // What waits there counts already.
        let busier = self.busier(queued.in_flight * lightness);
        let times = queued.latency / slow / busier.max(1.0).powf(self.waits.get());
        1.0 + (times.powf(self.power(POWER)) - 1.0).max(0.0)
            * left(queued.age / self.typical.get() * (1.0 / SPEED_LASTS))
    }

    /// Whether one was slow by its own word when it said something last, and that was so long ago that little of it counts.
    pub(super) fn was_slow(&self, load: &LoadCell, micros: u64) -> bool {
        let slow = slow_from(self.latency.get());
        load.queued(micros).is_some_and(|queued| queued.latency > slow && queued.age > SPEED_LASTS * self.typical.get())
    }

    /// The seconds that a call typically takes.
    pub(super) fn typical(&self) -> f32 {
        self.typical.get()
    }

    pub(super) fn outlook(&self, micros: u64) -> Outlook {
        Outlook { micros, unit: unit(micros), others: self.others.get(), probes: self.probes.get() }
    }

    /// The requests that others have in flight at one, as if it could do what the heaviest can.
    ///
    /// What its server said becomes, as it gets older, what all say: one may look at all of them then, and yet not
    /// send where everyone sends whose reports are as old.
    #[inline(always)]
    pub(super) fn others(&self, outlook: &Outlook, load: &LoadCell, lightness: f32) -> f32 {
        if outlook.others.is_nan() { 0.0 } else { outlook.others + self.more(outlook, load, lightness) }
    }

    /// The same of one that was asked just now: nothing of what it said is doubted.
    pub(super) fn others_asked(&self, outlook: &Outlook, load: &LoadCell, lightness: f32) -> f32 {
        match load.others(outlook.unit) {
            Some((said, units)) if !outlook.others.is_nan() => {
                let more = said * lightness - outlook.others;
                outlook.others + self.in_steps(more / aged(self.age(units)))
            }
            _ => self.others(outlook, load, lightness),
        }
    }

    /// How many more than the median.
    #[inline]
    fn more(&self, outlook: &Outlook, load: &LoadCell, lightness: f32) -> f32 {
        let Some((said, units)) = load.others(outlook.unit) else {
            // Who has had no call yet may well have nothing to do; and would not get to say so.
            return if load.is_untried() { -self.idle.get() } else { 0.0 };
        };
        if units > self.oldest.load(Relaxed) {
            return 0.0;
        }
        let more = said * lightness - outlook.others;
        let square = more * more;
        let aged = aged(self.age(units));
        self.in_steps(more * (square + self.believed.get()) / ((square + self.chance.get()) * aged))
    }

    /// How old what was said so many units of time ago is when a call comes there.
    #[inline(always)]
    fn age(&self, units: u32) -> f32 {
        (units as f32 * UNIT_SECONDS + self.way.get()) * self.rate.get()
    }

    /// So much more, as it counts for this channel: who seems best by next to nothing would get all calls.
    #[inline(always)]
    fn in_steps(&self, more: f32) -> f32 {
        self.step.get() * round(more * self.steps.get())
    }
}

/// What holds for all looks of one pick.
pub(super) struct Outlook {
    pub(super) micros: u64,
    unit: u32,
    others: f32,
    /// The share of calls for which some are asked.
    pub(super) probes: f32,
}

/// The nearest whole number; so much quicker than `f32::round` where that is a call. Numbers of many millions stay about what
/// they are.
#[inline(always)]
fn round(number: f32) -> f32 {
    /// No float beside it has a fraction.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    number + WHOLE - WHOLE
}
