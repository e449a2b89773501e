//! What a server measures of itself, as the crate's layer and its application do.

use std::time::{Duration, Instant};

use callsign::load::{Announced, Answers, BriefReport};

use super::{
    client::{base, clock},
    queue::{Nanos, seconds},
};

/// Counts the last whole second, and this one.
#[derive(Debug, Default)]
pub(super) struct Meter {
    answers: Answers,
    announced: Announced,
    second: u64,
    last: Counts,
    this: Counts,
    until: Nanos,
}

/// Of one second.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    /// The share of the time that workers were busy.
    busy: f64,
    requests: f64,
    failures: f64,
}

impl Meter {
    /// Such a share of the workers was busy until now.
    pub(super) fn advance(&mut self, now: Nanos, busy: f64) {
        let length = seconds(1.0);
        while self.until < now {
            let end = now.min((self.second + 1) * length);
            self.this.busy += busy * (end - self.until) as f64 / length as f64;
            self.until = end;
            if end == (self.second + 1) * length {
                self.last = std::mem::take(&mut self.this);
                self.second += 1;
            }
        }
    }

    /// A call was answered, which found so many, itself among them.
    pub(super) fn answered(&mut self, in_flight: usize, took: Nanos, failed: bool) {
        self.this.requests += 1.0;
        if failed {
            self.this.failures += 1.0;
        } else {
            self.answers.observe(in_flight, Duration::from_nanos(took), self.now());
        }
    }

    /// A probe announces a call in so long: how many others may be on their way.
    pub(super) fn announced(&self, within: Duration) -> f64 {
        self.announced.announce(within, self.now()).into()
    }

    fn now(&self) -> Instant {
        clock(base(), self.until)
    }

    /// With so many in flight.
    pub(super) fn report(&self, in_flight: usize) -> BriefReport {
        BriefReport {
            utilization: self.last.busy,
            requests_per_second: self.last.requests,
            errors_per_second: self.last.failures,
            in_flight: Some(in_flight as f64),
            latency: self.answers.median(in_flight + 1, self.now()),
            answers_probes: false,
        }
    }
}
