//! What is counted of a run.

use super::{histogram::Histogram, queue::Nanos, scenario::Code};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was answered.
    Answered,
    /// Its caller gave up at the deadline.
    Late,
    /// It failed before that.
    Failed(Code),
}

/// Counts of the calls that are measured.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How long calls took. One that is late took as long as the deadline; what failed sooner is left out.
    pub latency: Histogram,
    /// All that ended.
    pub calls: u64,
    /// Those that failed or were late.
    pub failed: u64,
    /// Those that a server turned away: RESOURCE_EXHAUSTED.
    pub shed: u64,
    /// Attempts of all these.
    pub attempts: u64,
    /// And at which server.
    pub sent: Vec<u64>,
    /// Calls of the whole run, measured or not.
    pub simulated: u64,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self { sent: vec![0; servers], ..Self::default() }
    }

    /// A call ended.
    pub fn end(&mut self, ending: Ending, took: Nanos, attempts: u32) {
        self.calls += 1;
        self.attempts += u64::from(attempts);
        match ending {
            Ending::Answered => self.latency.record(took),
            Ending::Late => {
                self.latency.record(took);
                self.failed += 1;
            }
            Ending::Failed(Code::ResourceExhausted) => self.shed += 1,
            Ending::Failed(_) => self.failed += 1,
        }
    }

    /// Adds another run.
    pub fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.calls += other.calls;
        self.failed += other.failed;
        self.shed += other.shed;
        self.attempts += other.attempts;
        self.simulated += other.simulated;
        self.sent.iter_mut().zip(&other.sent).for_each(|(sent, more)| *sent += more);
    }

    /// The share of calls that failed or were late.
    #[must_use]
    pub fn failed_share(&self) -> f64 {
        self.failed as f64 / self.calls as f64
    }

    /// The share of calls that were turned away.
    #[must_use]
    pub fn shed_share(&self) -> f64 {
        self.shed as f64 / self.calls as f64
    }

    /// The share of calls that were lost, either way.
    #[must_use]
    pub fn lost(&self) -> f64 {
        self.failed_share() + self.shed_share()
    }

    /// Attempts a call.
    #[must_use]
    pub fn attempts_per_call(&self) -> f64 {
        self.attempts as f64 / self.calls as f64
    }

    /// Each server's share of the attempts; of none, none.
    #[must_use]
    pub fn share_by_server(&self) -> Vec<f64> {
        let all = self.sent.iter().sum::<u64>().max(1) as f64;
        self.sent.iter().map(|sent| *sent as f64 / all).collect()
    }
}
