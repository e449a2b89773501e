//! What a server last said of its load, where all threads read it.

use std::time::Duration;

use super::clock::{seconds, unit, units};
use crate::util::{
    pair::{pack, unpack},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// What balancing needs of a [load report](https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto). Zero, or none, is what was not said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "whoever plays a server makes one")]
pub struct BriefReport {
    /// How busy the server is, by its application's measure, else its processors'.
    pub utilization: f64,
    /// Requests in a second.
    pub requests_per_second: f64,
    /// Failures in a second.
    pub errors_per_second: f64,
    /// Requests in flight at the server, of all its clients: the named metric `callsign.in_flight`. In the answer to a probe, with
    /// what was [announced](super::Announced).
    pub in_flight: Option<f64>,
    /// How long it takes to answer with about as many in flight: `callsign.latency_ms`.
    pub latency: Option<Duration>,
    /// Whether it answers [probes](crate::balance::Pick::Probe), which it does in any case if it says what it has in
    /// flight: `callsign.probes`.
    pub answers_probes: bool,
}

/// What a server last said of its load, and when. See [`LoadCell::reported`](super::LoadCell::reported).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Reported {
    /// Requests in flight at the server, of all its clients, if it says so.
    pub in_flight: Option<f32>,
    /// How long it takes to answer with about as many in flight, if it says so.
    pub latency: Option<Duration>,
    /// How long ago it said something.
    pub age: Duration,
    /// This channel's own calls there when that was heard.
    pub own: u32,
    /// What its weight can be computed of, if it ever said how busy it is and how many requests it takes.
    pub effort: Option<Effort>,
}

/// What a server achieves, and how hard it works for it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Effort {
    /// How busy it is; more than 0.
    pub utilization: f32,
    /// Requests in a second; more than 0.
    pub requests_per_second: f32,
    /// Failures in a second.
    pub errors_per_second: f32,
    /// How long ago it said so.
    pub age: Duration,
    /// For how long it has been saying so, with no pause of 3 minutes.
    pub known_for: Duration,
}

/// After such a silence it is as if nothing was ever said
/// ([A58](https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md)).
const FORGOTTEN: u64 = 180_000_000;

/// Of more calls of its own a channel says that they are so many.
const MOST: u32 = u16::MAX as u32;
/// What a server says to have more than these is no number of requests, and its square too large for a float.
const MOST_OTHERS: f32 = 1e9;

/// What the server last said of its requests in flight. What belongs together is stored as one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// One more than the requests in flight that are others'; this channel's own, at most 65,535; and the latency in
    /// seconds, of which half a float is kept. The first is 0 where it said nothing of them.
    state: AtomicU64,
    /// When it said so, in [units](unit).
    at: AtomicU32,
    /// When it was last picked.
    picked: AtomicU32,
}

/// What it had said before, which tells what its word is worth.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The requests of others, and for how many seconds nothing more was said.
    state: AtomicU64,
}

/// One look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    pub(crate) in_flight: f32,
    /// Those that were not this channel's own.
    pub(crate) others: f32,
    /// Seconds that an answer takes with about as many; 0 if it did not say.
    pub(crate) latency: f32,
    /// Seconds.
    pub(crate) age: f32,
}

impl Queue {
    fn take(&self, report: &BriefReport, own: u32, now: u64) {
        let own = own.min(MOST);
        // Some of its own are still on their way.
        let others = |count: f64| (count as f32 - own as f32).clamp(0.0, MOST_OTHERS);
        let high = report.in_flight.map_or(0.0, |count| others(count) + 1.0);
        let latency = report.latency.map_or(0.0, |latency| latency.as_secs_f32());
        let low = own << 16 | latency.to_bits().saturating_add(0x8000) >> 16;
        self.state.store(u64::from(high.to_bits()) << 32 | u64::from(low), Relaxed);
        self.at.store(unit(now), Relaxed);
    }

    pub(super) fn picked(&self, now: u64) {
        self.picked.store(unit(now), Relaxed);
    }

    /// Seconds since it was picked.
    pub(super) fn since_picked(&self, now: u64) -> f32 {
        seconds(self.picked.load(Relaxed), unit(now))
    }

    /// One more than others' requests in flight, the channel's own, and the latency.
    fn open(&self) -> (f32, f32, f32) {
        let state = self.state.load(Relaxed);
        let (own, latency) = ((state >> 16) as u16, (state as u32) << 16);
        (f32::from_bits((state >> 32) as u32), f32::from(own), f32::from_bits(latency))
    }

    /// None if it did not say how many are in flight.
    pub(super) fn get(&self, now: u64) -> Option<Queued> {
        let (more, own, latency) = self.open();
        let others = more - 1.0;
        (more > 0.0).then(|| Queued { in_flight: others + own, others, latency, age: self.age(now) })
    }

    /// Others' requests in flight, and how many [units](unit) ago that was; in as few instructions as can be.
    #[inline(always)]
    pub(super) fn others(&self, now: u32) -> Option<(f32, u32)> {
        let more = (self.state.load(Relaxed) >> 32) as u32;
        if more == 0 { None } else { Some((f32::from_bits(more) - 1.0, units(self.at.load(Relaxed), now))) }
    }

    fn age(&self, now: u64) -> f32 {
        seconds(self.at.load(Relaxed), unit(now))
    }
}

impl Before {
    /// The requests of others, and how many seconds before what it said last; none if it had said nothing.
    pub(super) fn get(&self) -> Option<(f32, f32)> {
        Some(unpack(self.state.load(Relaxed))).filter(|(_, seconds)| *seconds > 0.0)
    }
}

/// What the server last said of what it achieves. Times are in microseconds.
#[derive(Debug, Default)]
pub(super) struct Efforts {
    /// Utilization, and requests in a second.
    state: AtomicU64,
    /// When that was last said, and first; 0 is never.
    said_at: AtomicU64,
    said_since: AtomicU64,
    errors: AtomicU32,
}

impl Efforts {
    fn take(&self, report: &BriefReport, now: u64) {
        let (utilization, requests) = (report.utilization as f32, report.requests_per_second as f32);
        if utilization > 0.0 && requests > 0.0 {
            let said = self.said_at.load(Relaxed);
            if said == 0 || now.saturating_sub(said) >= FORGOTTEN {
                self.said_since.store(now, Relaxed);
            }
            self.state.store(pack(utilization, requests), Relaxed);
            self.errors.store((report.errors_per_second as f32).to_bits(), Relaxed);
            // 0 is never.
            self.said_at.store(now.max(1), Relaxed);
        }
    }

    fn get(&self, now: u64) -> Option<Effort> {
        let said = Some(self.said_at.load(Relaxed)).filter(|said| *said > 0)?;
        let (utilization, requests_per_second) = unpack(self.state.load(Relaxed));
        let since = |then: u64| Duration::from_micros(now.saturating_sub(then));
        Some(Effort {
            utilization,
            requests_per_second,
            errors_per_second: f32::from_bits(self.errors.load(Relaxed)),
            age: since(said),
            known_for: since(self.said_since.load(Relaxed)),
        })
    }
}

/// Whether the server answers probes: not known, yes, or no until it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Probing(AtomicU32);

impl Probing {
    const YES: u32 = 1;
    const NO: u32 = 2;

    pub(super) fn offer(&self) {
        if self.0.load(Relaxed) == 0 {
            self.0.store(Self::YES, Relaxed);
        }
    }

    pub(super) fn refuse(&self) {
        self.0.store(Self::NO, Relaxed);
    }

    pub(super) fn forget(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn get(&self) -> Option<bool> {
        Some(self.0.load(Relaxed)).filter(|state| *state > 0).map(|state| state == Self::YES)
    }
}

/// The server says something, and so many of this channel's own calls are there.
pub(super) fn take(queue: &Queue, before: &Before, efforts: &Efforts, report: &BriefReport, own: u32, now: u64) {
    before.state.store(queue.get(now).map_or(0, |queued| pack(queued.others, queued.age)), Relaxed);
    queue.take(report, own, now);
    efforts.take(report, now);
}

/// As if it never said anything.
pub(super) fn forget(queue: &Queue, efforts: &Efforts) {
    queue.state.store(0, Relaxed);
    efforts.said_at.store(0, Relaxed);
}

/// What it said; none if it never did.
pub(super) fn get(queue: &Queue, efforts: &Efforts, now: u64) -> Option<Reported> {
    // Read once: what was said together stays together.
    let (more, own, latency) = queue.open();
    let effort = efforts.get(now);
    (more > 0.0 || latency > 0.0 || effort.is_some()).then(|| Reported {
        in_flight: (more > 0.0).then_some(more - 1.0 + own),
        latency: Duration::try_from_secs_f32(latency).ok().filter(|latency| !latency.is_zero()),
        age: Duration::from_secs_f32(queue.age(now)),
        own: own as u32,
        effort,
    })
}
