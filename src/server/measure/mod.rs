//! What a server knows of its own load without being told.

mod rate;

use std::{sync::atomic::AtomicUsize, time::Duration};

use tokio::time::Instant;

use self::rate::Rate;
use crate::{
    load::{Announced, Answers},
    report::Measured,
    util::sync::atomic::Ordering::Relaxed,
};

/// Counts and times the requests that are load: not those of health checks and the like.
#[derive(Debug)]
pub(super) struct Measure {
    begun: Instant,
    in_flight: AtomicUsize,
    answers: Answers,
    announced: Announced,
    requests: Rate,
    failures: Rate,
    shed: Rate,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            in_flight: AtomicUsize::new(0),
            answers: Answers::default(),
            announced: Announced::default(),
            requests: Rate::default(),
            failures: Rate::default(),
            shed: Rate::default(),
        }
    }
}

impl Measure {
    /// A request comes: it makes so many in flight.
    pub(super) fn begin(&self) -> usize {
        self.in_flight.fetch_add(1, Relaxed) + 1
    }

    /// It is taken.
    pub(super) fn taken(&self) {
        self.requests.count();
    }

    /// It went.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// It was answered now, which took so long from when it made so many.
    pub(super) fn answered(&self, in_flight: usize, took: Duration, now: Instant) {
        self.answers.observe(in_flight, took, now.into_std());
    }

    /// A probe announces a call in so long; tells how many others may be on their way.
    pub(super) fn announce(&self, within: Duration) -> f64 {
        self.announced.announce(within, Instant::now().into_std()).into()
    }

    pub(super) fn failed(&self) {
        self.failures.count();
    }

    pub(super) fn shed(&self) {
        self.shed.count();
    }

    /// Requests that were shed.
    pub(super) fn total_shed(&self) -> u64 {
        self.shed.total()
    }

    /// What a report says; of the requests in flight some are not counted, such as the one that carries it.
    pub(super) fn report(&self, now: Instant, without: usize) -> Measured {
        let in_flight = self.in_flight.load(Relaxed).saturating_sub(without);
        let since = now.saturating_duration_since(self.begun);
        Measured {
            requests_per_second: self.requests.per_second(since),
            errors_per_second: self.failures.per_second(since),
            in_flight: in_flight as f64,
            // What the next one would find.
            latency: self.answers.median(in_flight + 1, now.into_std()),
        }
    }
}
