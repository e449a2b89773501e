//! What is known of the endpoints, each beside the others.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use crate::{
    balance::{Node, due::Due},
    load::{LoadCell, Standing, millis},
};

/// Of no more are all looked at when it is to be seen what is typical; of more, so many.
pub(super) const SEEN: usize = 128;

/// An endpoint that is so much slower than the median is slow.
const BAND: f32 = 1.3;

/// How long one that is new has less than its share, and what it has at first.
const SLOW_START_MILLIS: u32 = 10_000;
const FIRST_SHARE: f32 = 0.1;

/// So often is looked at what changes slowly.
const REFRESH_MICROS: u64 = 5_000;

/// The endpoints, by position, and what they are together.
pub(super) struct Fleet {
    pub(super) loads: Box<[Arc<LoadCell>]>,
    /// How many times heavier the heaviest is.
    pub(super) lightness: Box<[f32]>,
    /// When the channel's first call was picked, in microseconds; 0 before.
    begun: Arc<AtomicU64>,
    /// When to look again.
    due: Due,
    /// The median of the logarithms of the typical latencies in nanoseconds; NaN if there are none.
    pace: AtomicU32,
    /// The median share of failures.
    failures: AtomicU32,
    /// Whether most are new.
    is_new: AtomicBool,
}

/// One look at an endpoint.
pub(super) struct Look {
    /// Calls in flight.
    pub(super) calls: f32,
    /// How many times busier it counts for what it failed, though that be no reason not to pick it.
    pub(super) penalty: f32,
    /// Whether it may be picked.
    pub(super) may: bool,
}

impl Fleet {
    pub(super) fn new(ready: &[Node], begun: Arc<AtomicU64>) -> Self {
        let heaviest = ready.iter().map(Node::weight).max().unwrap_or(1);
        Self {
            loads: ready.iter().map(|node| node.load().clone()).collect(),
            lightness: ready.iter().map(|node| heaviest as f32 / node.weight() as f32).collect(),
            begun,
            due: Due::default(),
            pace: AtomicU32::new(f32::NAN.to_bits()),
            failures: AtomicU32::new(0),
            is_new: AtomicBool::new(false),
        }
    }

    /// Whether it is this caller's turn to look what is typical.
    pub(super) fn is_due(&self, micros: u64) -> bool {
        self.due.take(micros, REFRESH_MICROS)
    }

    /// Looks what is typical, of at most [`SEEN`] of them.
    pub(super) fn refresh(&self, micros: u64, these: impl Iterator<Item = usize>) {
        let (mut paces, mut failures) = ([0.0; SEEN], [0.0; SEEN]);
        let (mut seen, mut heard, mut new) = (0, 0, 0);
        let before = self.pace();
        for load in these.take(SEEN).map(|at| &self.loads[at]) {
            if let Some(pace) = load.pace(before, micros) {
                paces[heard] = pace;
                heard += 1;
            }
            failures[seen] = load.failures();
            seen += 1;
            new += usize::from(self.known_for(load, micros) < SLOW_START_MILLIS);
        }
        let pace = if heard == 0 { f32::NAN } else { median(&mut paces[..heard]) };
        self.pace.store(pace.to_bits(), Relaxed);
        self.failures.store(median(&mut failures[..seen]).to_bits(), Relaxed);
        self.is_new.store(new * 2 > seen, Relaxed);
    }

    fn pace(&self) -> Option<f32> {
        Some(f32::from_bits(self.pace.load(Relaxed))).filter(|pace| !pace.is_nan())
    }

    /// How many times busier than it is an endpoint counts, as it is slow or new.
    pub(super) fn factor(&self, at: usize, micros: u64) -> f32 {
        let load = &self.loads[at];
        let others = self.pace();
        let slow = match (load.pace(others, micros), others) {
            (Some(pace), Some(others)) if pace - others > BAND.ln() => (2.0 * (pace - others - BAND.ln())).exp(),
            _ => 1.0,
        };
        let known = self.known_for(load, micros);
        if known >= SLOW_START_MILLIS || self.is_new.load(Relaxed) {
            return slow;
        }
        let share = known as f32 / SLOW_START_MILLIS as f32;
        slow / (FIRST_SHARE + (1.0 - FIRST_SHARE) * share)
    }

    /// For how many milliseconds one has been known. Those that were there at the beginning are not new.
    fn known_for(&self, load: &LoadCell, micros: u64) -> u32 {
        let begun = match self.begun.load(Relaxed) {
            0 => self.begun.compare_exchange(0, micros, Relaxed, Relaxed).err().unwrap_or(micros),
            begun => begun,
        };
        let early = micros.saturating_sub(begun) < u64::from(SLOW_START_MILLIS) * 1_000;
        load.known_for(if early { SLOW_START_MILLIS } else { 0 }, millis(micros))
    }

    pub(super) fn look(&self, at: usize, millis: u32) -> Look {
        let (calls, standing) = self.loads[at].look(millis);
        let tries = standing == Standing::Trial && calls == 0;
        if standing == Standing::Good || standing == Standing::Spared || tries {
            return Look { calls: calls as f32, penalty: 1.0, may: standing != Standing::Spared };
        }
        let failures = self.loads[at].failures();
        // Where all fail alike none is set aside for it.
        let may = failures <= self.failures() * 2.0 + 0.01;
        // In sixteenths: those that fail about as often are alike.
        let failures = (failures * 16.0).round() / 16.0;
        Look { calls: calls as f32, penalty: (1.02 / (1.02 - failures)).powi(2), may }
    }

    fn failures(&self) -> f32 {
        f32::from_bits(self.failures.load(Relaxed))
    }
}

/// The middle one; nothing of nothing.
fn median(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}
