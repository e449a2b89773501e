//! How many requests a server takes at once.

mod gradient;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use self::gradient::{Gradient, Window};

/// A bound on requests in flight that follows their latency: it grows while latency stays near its long-term average,
/// and shrinks when it rises, before clients give up.
///
/// It is `Gradient2Limit` of Netflix' [concurrency-limits](https://github.com/Netflix/concurrency-limits), but that the
/// queue allowed is the limit's square root, and that the long-term average hardly rises while requests are shed. It is
/// brought up to date each half second in which 10 requests or more were answered well.
#[derive(Debug, Clone)]
pub struct AdaptiveLimit {
    initial: usize,
    least: usize,
    most: usize,
}

impl AdaptiveLimit {
    /// Begins at 20, and stays from 4 to 1000.
    pub fn new() -> Self {
        Self { initial: 20, least: 4, most: 1000 }
    }

    /// Sets where it begins. Default 20.
    #[must_use]
    pub fn initial(mut self, limit: usize) -> Self {
        self.initial = limit;
        self
    }

    /// Sets its bounds, at least 1. Default 4 to 1000.
    #[must_use]
    pub fn between(mut self, least: usize, most: usize) -> Self {
        self.least = least.max(1);
        self.most = most.max(self.least);
        self
    }
}

impl Default for AdaptiveLimit {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether one more request is taken.
#[derive(Debug, Clone, Default)]
pub(super) enum Limit {
    #[default]
    None,
    Fixed(usize),
    Adaptive(Arc<Adaptive>),
}

impl Limit {
    pub(super) fn adaptive(config: &AdaptiveLimit) -> Self {
        Self::Adaptive(Arc::new(Adaptive::new(config)))
    }

    /// The bound; none if there is none.
    pub(super) fn now(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Fixed(limit) => Some(*limit),
            Self::Adaptive(adaptive) => Some(adaptive.limit.load(Relaxed)),
        }
    }

    /// Whether a request is taken that makes so many in flight.
    pub(super) fn admits(&self, in_flight: usize) -> bool {
        let admitted = self.now().is_none_or(|limit| in_flight <= limit);
        if let (false, Self::Adaptive(adaptive)) = (admitted, self) {
            adaptive.shed.store(true, Relaxed);
        }
        admitted
    }

    /// One was answered well, which took so long from when it made so many.
    pub(super) fn answered(&self, in_flight: usize, took: Duration, now: Instant) {
        if let Self::Adaptive(adaptive) = self {
            adaptive.answered(in_flight, took, now);
        }
    }
}

/// An adaptive limit at work: it collects windows, and whoever ends one computes the next limit.
#[derive(Debug)]
pub(super) struct Adaptive {
    limit: AtomicUsize,
    begun: Instant,
    /// The present window: since when, in microseconds; the sum of latencies, their number, the most in flight.
    since: AtomicU64,
    sum: AtomicU64,
    count: AtomicU64,
    most: AtomicUsize,
    shed: AtomicBool,
    gradient: Mutex<Gradient>,
}

const WINDOW: u64 = 500_000;
const FEWEST: u64 = 10;

impl Adaptive {
    fn new(config: &AdaptiveLimit) -> Self {
        let gradient = Gradient::new(config);
        Self {
            limit: AtomicUsize::new(gradient.limit()),
            begun: Instant::now(),
            since: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
            most: AtomicUsize::new(0),
            shed: AtomicBool::new(false),
            gradient: Mutex::new(gradient),
        }
    }

    fn answered(&self, in_flight: usize, took: Duration, now: Instant) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum.fetch_add(micros(took), Relaxed);
        self.most.fetch_max(in_flight, Relaxed);
        let count = self.count.fetch_add(1, Relaxed) + 1;
        let (now, since) = (micros(now.saturating_duration_since(self.begun)), self.since.load(Relaxed));
        let over = count >= FEWEST && now.saturating_sub(since) >= WINDOW;
        if over && self.since.compare_exchange(since, now, Relaxed, Relaxed).is_ok() {
            self.end();
        }
    }

    /// By one thread at a time; what others add in between belongs to the one window or to the other.
    fn end(&self) {
        let (sum, count) = (self.sum.swap(0, Relaxed), self.count.swap(0, Relaxed));
        let window = Window {
            latency: Duration::from_micros(sum / count.max(1)),
            in_flight: self.most.swap(0, Relaxed),
            shed: self.shed.swap(false, Relaxed),
        };
        // None waits for another: a window that meets one is left out.
        if let Ok(mut gradient) = self.gradient.try_lock() {
            gradient.update(window);
            self.limit.store(gradient.limit(), Relaxed);
        }
    }
}
