//! What an endpoint has in flight and how fast it is, by what its server said and what was sent there since.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::{fleet::BAND, sample::Sample};
use crate::load::LoadCell;

/// After such a share of the typical latency what a server said of its requests in flight says less of it than of
/// all. A quarter of this to six times make no difference of 3 %.
const QUEUE_LASTS: f32 = 1.0 / 3.0;
/// After so many typical latencies the same holds for how fast it is.
const SPEED_LASTS: f32 = 20.0;
/// What was said within so many typical latencies is recent.
const RECENT: f32 = 1.0;

/// What servers say, one beside the other; all numbers are 32-bit floats.
#[derive(Debug)]
pub(super) struct Reports {
    /// The median of the requests in flight, as if all weighed what the heaviest does; NaN if none says so. A median,
    /// as one server that lies must not move it.
    in_flight: AtomicU32,
    /// The seconds above which an answer is slow: [`BAND`] times the median; infinite if none says how long they take.
    slow: AtomicU32,
    /// The seconds that a call typically takes, by this channel's own clock.
    typical: AtomicU32,
    /// The mean of this channel's own calls, as they weigh.
    own: AtomicU32,
    /// The share of calls for which some are asked.
    probes: AtomicU32,
}

impl Default for Reports {
    fn default() -> Self {
        let [in_flight, slow, typical, own, probes] =
            [f32::NAN, f32::INFINITY, 0.01, 0.0, 0.0].map(|value: f32| AtomicU32::new(value.to_bits()));
        Self { in_flight, slow, typical, own, probes }
    }
}

fn number(of: &AtomicU32) -> f32 {
    f32::from_bits(of.load(Relaxed))
}

/// What one look at all finds.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) count: f32,
    in_flight: Sample,
    latency: Sample,
    own: f32,
    recent: f32,
    answering: f32,
    refusing: f32,
}

impl Reports {
    /// Looks at one.
    pub(super) fn see(&self, load: &LoadCell, lightness: f32, micros: u64, seen: &mut Seen) {
        let one = |is: bool| if is { 1.0 } else { 0.0 };
        seen.count += 1.0;
        seen.own += load.in_flight() as f32 * lightness;
        seen.answering += one(load.answers_probes() == Some(true));
        seen.refusing += one(load.answers_probes() == Some(false));
        let Some(queued) = load.queued(micros) else { return };
        seen.in_flight.push(queued.in_flight * lightness);
        seen.recent += one(queued.age < RECENT * number(&self.typical));
        if queued.latency > 0.0 {
            seen.latency.push(queued.latency);
        }
    }

    /// All were looked at, and calls take so long, by the logarithm of their nanoseconds.
    pub(super) fn saw(&self, mut seen: Seen, pace: Option<f32>) {
        self.in_flight.store(seen.in_flight.median().unwrap_or(f32::NAN).to_bits(), Relaxed);
        self.slow.store((seen.latency.median().unwrap_or(f32::INFINITY) * BAND).to_bits(), Relaxed);
        self.own.store((seen.own / seen.count).to_bits(), Relaxed);
        if let Some(pace) = pace {
            self.typical.store((pace.exp() * 1e-9).max(1e-6).to_bits(), Relaxed);
        }
        // Who does not answer gets its share of calls by what else is known.
        let wanted = seen.recent * 2.0 < seen.count && seen.answering * 2.0 > seen.count;
        let probes = if wanted { 1.0 - seen.refusing / seen.count } else { 0.0 };
        self.probes.store(probes.to_bits(), Relaxed);
    }

    pub(super) fn outlook(&self, micros: u64) -> Outlook<'_> {
        Outlook { micros, in_flight: number(&self.in_flight), probes: number(&self.probes), reports: self }
    }
}

/// What holds for all looks of one pick. What only matters where servers report is looked up there.
pub(super) struct Outlook<'a> {
    pub(super) micros: u64,
    in_flight: f32,
    /// The share of calls for which some are asked.
    pub(super) probes: f32,
    reports: &'a Reports,
}

impl Outlook<'_> {
    /// The seconds that a call typically takes.
    pub(super) fn typical(&self) -> f32 {
        number(&self.reports.typical)
    }

    /// The requests in flight at one, of which so many are this channel's own, as if it weighed what the heaviest
    /// does; and how many times slower than the median it is.
    #[inline(always)]
    pub(super) fn of(&self, load: &LoadCell, own: u32, lightness: f32) -> (f32, f32) {
        let calls = own as f32 * lightness;
        if self.in_flight.is_nan() { (calls, 1.0) } else { self.told(load, own, lightness) }
    }

    /// What its server said becomes, as it gets older, what all say: one may look at all of them then, and yet not
    /// send where everyone sends whose reports are as old.
    fn told(&self, load: &LoadCell, own: u32, lightness: f32) -> (f32, f32) {
        let calls = own as f32 * lightness;
        let Some(queued) = load.queued(self.micros) else {
            return (calls.max(self.in_flight + calls - number(&self.reports.own)), 1.0);
        };
        let (age, slow) = (queued.age / self.typical(), number(&self.reports.slow));
        // Of those that were sent since none is there any more that has ended.
        let since = queued.sent.min(own) as f32 * lightness;
        let more = (queued.in_flight * lightness - self.in_flight) * left(age * (1.0 / QUEUE_LASTS));
        let mut slower = 1.0;
        if queued.latency > slow {
            slower += ((queued.latency / slow).powi(2) - 1.0) * left(age * (1.0 / SPEED_LASTS));
        }
        (calls.max(self.in_flight + more + since), slower)
    }
}

/// What is left after so many times as long as it lasts: about e⁻ᵃᵍᵉ at first, and quicker to compute; in the end
/// nothing, or the least of what was said long ago would set one apart from others that nobody is busy at.
fn left(age: f32) -> f32 {
    if age > 20.0 { 0.0 } else { 1.0 / (1.0 + age + age * age / 2.0) }
}
