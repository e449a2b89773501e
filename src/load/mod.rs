//! What is known of an endpoint's load: counters that outlive every picker.

mod announced;
mod answers;
mod clock;
mod flight;
mod health;
mod mean;
mod outcome;
mod peak;
mod reported;
mod typical;

use std::time::{Duration, Instant};

pub use self::{
    announced::Announced,
    answers::Answers,
    outcome::Outcome,
    reported::{BriefReport, Effort, Reported},
};
use self::{
    clock::seconds,
    flight::Flight,
    health::Health,
    peak::Peak,
    reported::{Before, Efforts, Probing, Queue},
    typical::Recent,
};
pub(crate) use self::{
    clock::{UNIT_SECONDS, micros, unit},
    flight::Standing,
    health::TOO_MANY,
    mean::Mean,
    reported::Queued,
};
use crate::util::{
    mix::{fraction, mix},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// The load of one endpoint, as one channel sees it.
// Cache lines of its own, as calls on two endpoints must not fight for one: first all that a call changes
// that goes well.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct LoadCell {
    flight: Flight,
    succeeded: AtomicU64,
    peak: Peak,
    recent: Recent,
    lasting: Mean,
    /// Failures in a row, each less than [`REMEMBERED_SECONDS`] after the one before.
    failing: AtomicU32,
    health: Health,
    queue: Queue,
    efforts: Efforts,
    failed: AtomicU64,
    /// When the last failure was, in [units](unit).
    failed_at: AtomicU32,
    /// Since when policies know it, in milliseconds; 0 before.
    joined: AtomicU32,
    probing: Probing,
    speed: Mean,
    before: Before,
}

/// For so long a failure counts as a call in flight.
const REMEMBERED_SECONDS: f32 = 1.0;

/// So long one is spared that had no room: a few of its calls, if that is known, and at most this.
const NO_ROOM: Duration = Duration::from_millis(250);
/// For such a share of the time that a call waited in vain its server is spared, give or take half of that: where all are
/// late alike some get less to do, and answer in time again.
const LATE_SPARED: f32 = 0.5;

impl LoadCell {
    /// Calls in flight, and each failure as one more until a call succeeds or a second has passed:
    /// else one that fails fast would look like the fastest of all, and draw the calls to itself.
    pub fn busy(&self, now: Instant) -> u32 {
        self.in_flight().saturating_add(self.failing_now(|| micros(now)))
    }

    /// Failures in a row, the last a short while ago. Mostly none, and what time it is does not matter.
    fn failing_now(&self, micros: impl FnOnce() -> u64) -> u32 {
        let failing = self.failing.load(Relaxed);
        if failing > 0 && self.since_failure(micros()) < REMEMBERED_SECONDS { failing } else { 0 }
    }

    /// Seconds since the last call there that failed.
    pub(crate) fn since_failure(&self, micros: u64) -> f32 {
        seconds(self.failed_at.load(Relaxed), unit(micros))
    }

    fn failure(&self, micros: u64) {
        self.failed.fetch_add(1, Relaxed);
        // Two threads at once may lose one of the two, which is as good.
        let before = if self.since_failure(micros) < REMEMBERED_SECONDS { self.failing.load(Relaxed) } else { 0 };
        self.failing.store(before.saturating_add(1), Relaxed);
        self.failed_at.store(unit(micros), Relaxed);
    }

    /// It failed: for a while nothing is sent there, if that is more than the odd call.
    fn set_aside(&self, alone_counts: bool, micros: u64) {
        let millis = millis(micros);
        if self.flight.look(millis).1 == Standing::Aside {
            return self.missed(micros);
        }
        let answered = self.succeeded();
        let failed = self.failed();
        let since = if failed > 0 { self.since_failure(micros) } else { f32::INFINITY };
        let random = mix(micros ^ answered << 32 ^ failed);
        if let Some(aside) = self.health.failure(alone_counts, answered, since, random, micros) {
            self.flight.set_aside(millis, aside, true);
        }
    }

    /// One more failure that sets nobody aside.
    fn missed(&self, micros: u64) {
        self.health.missed(self.succeeded(), micros);
    }

    fn success(&self, at: Instant) {
        self.succeeded.fetch_add(1, Relaxed);
        // Mostly it is 0, and a line that is only read stays in every cache.
        if self.failing.load(Relaxed) > 0 {
            self.failing.store(0, Relaxed);
        }
        if self.health.is_marred() {
            let micros = micros(at);
            if self.health.success(micros) {
                self.flight.trust(millis(micros));
            }
        }
    }

    /// How long the server takes to answer: the moving average of what calls waited for the head of
    /// their response, over some 10 s, which rises at once to what is slower
    /// ([peak EWMA](https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/)). It
    /// sinks while nothing is heard, so that who was slow is tried again. A failure never makes it less.
    /// Zero before the first answer.
    pub fn peak_latency(&self, now: Instant) -> Duration {
        self.peak.at(micros(now))
    }

    /// How long the server takes to answer in general: e to the moving average of the logarithms of what
    /// calls waited for the head of their response, three tenths of it the last one, less where more than one
    /// other call was in flight there. None before the first answer.
    pub fn typical_latency(&self) -> Option<Duration> {
        self.recent.get().map(|mean| Duration::from_nanos(mean.exp() as u64))
    }

    /// Calls that have begun and not ended; a stream counts for as long as it lives.
    pub fn in_flight(&self) -> u32 {
        self.flight.count()
    }

    /// Calls that the server answered.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Relaxed)
    }

    /// Calls that the server, or the way to it, failed, or that it had no room for.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// What the server last said of its load; none if it never did.
    pub fn reported(&self, now: Instant) -> Option<Reported> {
        reported::get(&self.queue, &self.efforts, micros(now))
    }

    /// The server says how busy it is, out of band or asked for it. What it says in a response is the
    /// [call's](CallGuard::report).
    pub fn report(&self, report: &BriefReport, now: Instant) {
        self.said(report, self.in_flight(), now);
    }

    fn said(&self, report: &BriefReport, own: u32, now: Instant) {
        reported::take(&self.queue, &self.before, &self.efforts, report, own, micros(now));
        if report.answers_probes || report.in_flight.is_some() {
            self.probing.offer();
        }
    }

    /// Whether the server answers [probes](crate::balance::Pick::Probe): it does if it said what it has in flight, or
    /// that it answers them, unless it was asked and knew nothing of them. None if it said neither.
    pub fn answers_probes(&self) -> Option<bool> {
        self.probing.get()
    }

    /// The server knows nothing of probes.
    pub fn refuse_probes(&self) {
        self.probing.refuse();
    }

    /// Forgets what the server said of its load and of probes: a connection after all were lost may lead to another
    /// process, as with the blackout of
    /// [A58](https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md).
    pub fn forget_reports(&self) {
        reported::forget(&self.queue, &self.efforts);
        self.probing.forget();
        self.speed.clear();
    }

    /// Counts a call in, until the guard is dropped.
    pub fn start(self: &Arc<Self>, now: Instant) -> CallGuard {
        self.flight.begin();
        CallGuard { cell: self.clone(), at: now, waits: true }
    }
}

/// What the policies of this crate look at besides.
impl LoadCell {
    /// Calls in flight and how it stands, at a [time](millis).
    pub(crate) fn look(&self, millis: u32) -> (u32, Standing) {
        self.flight.look(millis)
    }

    /// The logarithm of its typical latency in nanoseconds, which fades to that of the others.
    pub(crate) fn pace(&self, others: Option<f32>, micros: u64) -> Option<f32> {
        others.map_or_else(|| self.recent.get(), |others| self.recent.fade(&self.lasting, others, micros))
    }

    /// What the server last said of the requests that it has in flight; none if it never did.
    pub(crate) fn queued(&self, micros: u64) -> Option<Queued> {
        self.queue.get(micros)
    }

    /// The requests that others had in flight when the server said so, and how many [units](unit) ago that was.
    #[inline(always)]
    pub(crate) fn others(&self, unit: u32) -> Option<(f32, u32)> {
        self.queue.others(unit)
    }

    /// It is picked.
    pub(crate) fn picked(&self, micros: u64) {
        self.queue.picked(micros);
    }

    /// Seconds since it was last [picked](Self::picked).
    pub(crate) fn since_picked(&self, micros: u64) -> f32 {
        self.queue.since_picked(micros)
    }

    /// What it had said before of the requests that others have there, and how many seconds earlier.
    pub(crate) fn queued_before(&self) -> Option<(f32, f32)> {
        self.before.get()
    }

    /// What a policy found of how fast it is, by what it reports.
    pub(crate) fn speed(&self) -> &Mean {
        &self.speed
    }

    /// Whether no call there has ended yet, well or badly.
    pub(crate) fn is_untried(&self) -> bool {
        self.succeeded() == 0 && self.failed() == 0
    }

    /// Whether the last call there that ended failed, a short while ago.
    pub(crate) fn fails_now(&self, micros: u64) -> bool {
        self.failing_now(|| micros) > 0
    }

    /// The share of its last answers that were failures, from 0 to 1.
    pub(crate) fn failures(&self) -> f32 {
        self.health.failures()
    }

    /// The same, which fades while nothing is heard.
    pub(crate) fn failures_of_late(&self, micros: u64) -> f32 {
        self.health.failures_of_late(micros)
    }

    /// For how long it has been known, in milliseconds. If that begins now, it may be said to have begun
    /// some time ago.
    pub(crate) fn known_for(&self, already: u32, millis: u32) -> u32 {
        let joined = match self.joined.load(Relaxed) {
            0 => {
                let joined = millis.wrapping_sub(already).max(1);
                self.joined.store(joined, Relaxed);
                joined
            }
            joined => joined,
        };
        millis.wrapping_sub(joined)
    }
}

/// The milliseconds of a time; they go round in 49 days.
pub(crate) fn millis(micros: u64) -> u32 {
    (micros / 1_000) as u32
}

/// A call in flight; dropping it without a word counts it as cancelled.
#[derive(Debug)]
#[must_use = "the call is counted out when this is dropped"]
pub struct CallGuard {
    cell: Arc<LoadCell>,
    /// When it began, or was answered.
    at: Instant,
    /// Whether it was not answered yet.
    waits: bool,
}

impl CallGuard {
    /// What the call is counted in.
    pub fn cell(&self) -> &Arc<LoadCell> {
        &self.cell
    }

    /// How long it has waited to be answered; none if it was.
    fn waited(&self, now: Instant) -> Option<Duration> {
        self.waits.then(|| now.saturating_duration_since(self.at))
    }

    /// The head of the response is here: how long that took is the server's latency.
    pub fn answered(&mut self, now: Instant) {
        if let Some(took) = self.waited(now) {
            let micros = micros(now);
            self.cell.peak.observe(took, micros);
            let others = self.cell.in_flight().saturating_sub(1);
            typical::observe(&self.cell.recent, &self.cell.lasting, took, others, micros);
            (self.at, self.waits) = (now, false);
        }
    }

    /// The server says in the response how busy it is: of the calls that it has in flight this is none any more.
    pub fn report(&self, report: &BriefReport, now: Instant) {
        self.cell.said(report, self.cell.in_flight().saturating_sub(1), now);
    }

    /// Ends a call well that was answered before, which needs no clock.
    pub fn succeed(self) {
        self.cell.success(self.at);
    }

    /// Ends the call.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        let at = micros(now);
        match outcome {
            Outcome::Success => {
                self.answered(now);
                self.succeed();
            }
            Outcome::Failure => {
                // It took at least so long; and failing fast is not being fast.
                if let Some(waited) = self.waited(now) {
                    self.cell.peak.at_least(waited, at);
                    typical::at_least(&self.cell.recent, &self.cell.lasting, waited, at);
                }
                self.cell.set_aside(true, at);
                self.cell.failure(at);
            }
            Outcome::Late => {
                // No answer says more of how slow it is.
                if let Some(waited) = self.waited(now) {
                    self.cell.peak.at_least(waited, at);
                    typical::late(&self.cell.recent, &self.cell.lasting, waited, at);
                    let spread = 0.5 + fraction(mix(at ^ self.cell.failed() << 32));
                    self.cell.flight.set_aside(millis(at), waited.mul_f32(LATE_SPARED * spread), false);
                }
                self.cell.missed(at);
                self.cell.failure(at);
            }
            Outcome::Fault => {
                self.cell.set_aside(false, at);
                self.cell.failure(at);
            }
            Outcome::Overload => {
                let room = self.cell.typical_latency().map_or(NO_ROOM, |latency| latency.min(NO_ROOM));
                self.cell.flight.set_aside(millis(at), room, false);
                self.cell.failure(at);
            }
            Outcome::Cancelled => {}
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.cell.flight.end();
    }
}

#[cfg(test)]
mod tests;
