//! What a server last said of its load, where all threads read it.

use std::time::Duration;

use crate::util::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

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
    /// Requests in flight at the server, of all its clients: the named metric `callsign.in_flight`.
    pub in_flight: Option<f64>,
    /// How long it takes to answer with about as many in flight: `callsign.latency_ms`.
    pub latency: Option<Duration>,
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
    /// Calls that were sent there since, from here.
    pub sent: u32,
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

/// Times are in microseconds. What belongs together is stored as one, two numbers in each.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Requests in flight, and the latency in seconds; negative if not known.
    queue: AtomicU64,
    at: AtomicU64,
    sent: AtomicU32,
    /// Utilization, and requests in a second.
    effort: AtomicU64,
    errors: AtomicU32,
    /// When that was last said, and first; 0 is never.
    said_at: AtomicU64,
    said_since: AtomicU64,
}

impl Reports {
    pub(super) fn take(&self, report: &BriefReport, now: u64) {
        let in_flight = report.in_flight.map_or(-1.0, |count| count as f32);
        let latency = report.latency.map_or(-1.0, |latency| latency.as_secs_f32());
        self.queue.store(pack(in_flight, latency), Relaxed);
        self.at.store(now, Relaxed);
        self.sent.store(0, Relaxed);
        let (utilization, requests) = (report.utilization as f32, report.requests_per_second as f32);
        if utilization > 0.0 && requests > 0.0 {
            let said = self.said_at.load(Relaxed);
            if said == 0 || now.saturating_sub(said) >= FORGOTTEN {
                self.said_since.store(now, Relaxed);
            }
            self.effort.store(pack(utilization, requests), Relaxed);
            self.errors.store((report.errors_per_second as f32).to_bits(), Relaxed);
            // 0 is never.
            self.said_at.store(now.max(1), Relaxed);
        }
    }

    /// A call begins.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    pub(super) fn get(&self, now: u64) -> Reported {
        let (in_flight, latency) = unpack(self.queue.load(Relaxed));
        let since = |then: u64| Duration::from_micros(now.saturating_sub(then));
        let said = self.said_at.load(Relaxed);
        let effort = (said > 0).then(|| {
            let (utilization, requests_per_second) = unpack(self.effort.load(Relaxed));
            Effort {
                utilization,
                requests_per_second,
                errors_per_second: f32::from_bits(self.errors.load(Relaxed)),
                age: since(said),
                known_for: since(self.said_since.load(Relaxed)),
            }
        });
        Reported {
            in_flight: Some(in_flight).filter(|count| *count >= 0.0),
            latency: Duration::try_from_secs_f32(latency).ok(),
            age: since(self.at.load(Relaxed)),
            sent: self.sent.load(Relaxed),
            effort,
        }
    }
}

fn pack(high: f32, low: f32) -> u64 {
    u64::from(high.to_bits()) << 32 | u64::from(low.to_bits())
}

fn unpack(both: u64) -> (f32, f32) {
    (f32::from_bits((both >> 32) as u32), f32::from_bits(both as u32))
}
