//! Each endpoint in its turn, the heavy ones more often.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::{Balancer, Node, Pick, PickInfo, Picker, due::Due, mix};
use crate::{
    load::{Effort, micros},
    util::mix::GOLDEN,
};

/// Takes the endpoints in turns, as often as they weigh, evenly spread and in no bursts.
///
/// The weights are learned from what servers [report](crate::report::LoadReport), as gRPC does
/// ([A58](https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md)): requests
/// in a second, by how busy the server is with them; failures count as work. As long as fewer than two servers
/// report, or where none does, they are the registry's: `weight` of the metadata, Consul's `Weights`. Who does not
/// report among those who do weighs as much as they do on average, by its weight in the registry.
///
/// Weights change without a reconnect. In the series of all channels' calls an endpoint's share is off by a few calls at
/// most, however many there are.
#[derive(Debug, Clone)]
pub struct WeightedRoundRobin {
    turn: Arc<AtomicU64>,
    learning: Learning,
    oob: Option<Duration>,
}

/// How weights are learned.
#[derive(Debug, Clone, Copy)]
struct Learning {
    blackout: Duration,
    expiration: Duration,
    update: Duration,
    error_penalty: f64,
}

impl WeightedRoundRobin {
    /// The seed says where it begins, so that channels do not march in step.
    pub fn new(seed: u64) -> Self {
        let learning = Learning {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
            error_penalty: 1.0,
        };
        Self { turn: Arc::new(AtomicU64::new(mix(seed))), learning, oob: None }
    }

    /// Sets for how long a server must have been reporting before it counts. Default 10 s.
    #[must_use]
    pub fn blackout_period(mut self, period: Duration) -> Self {
        self.learning.blackout = period;
        self
    }

    /// Sets after how long without a report a server's last one does not count any more. Default 3 min.
    #[must_use]
    pub fn weight_expiration_period(mut self, period: Duration) -> Self {
        self.learning.expiration = period;
        self
    }

    /// Sets how often weights are computed, at most each 100 ms. Default 1 s.
    #[must_use]
    pub fn weight_update_period(mut self, period: Duration) -> Self {
        self.learning.update = period.max(Duration::from_millis(100));
        self
    }

    /// Asks servers to report out of band as well, so often: for those that put nothing into responses, or answer few.
    /// Default: they are not asked.
    #[must_use]
    pub fn oob_load_reports(mut self, every: Duration) -> Self {
        self.oob = Some(every);
        self
    }

    /// Sets how much failures count: at 1, a server of whose requests all fail looks busier by 1. Default 1.
    #[must_use]
    pub fn error_utilization_penalty(mut self, penalty: f32) -> Self {
        self.learning.error_penalty = penalty.max(0.0).into();
        self
    }
}

impl Balancer for WeightedRoundRobin {
    fn name(&self) -> &str {
        "weighted_round_robin"
    }

    fn load_reports(&self) -> Option<Duration> {
        self.oob
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Box::new(Turns {
            turn: self.turn.clone(),
            ends: ends(ready.iter().map(|node| node.weight().into())),
            learned: ArcSwapOption::empty(),
            nodes: ready.into(),
            learning: self.learning,
            due: Due::default(),
        })
    }
}

/// Where each one's part of a line ends; the last is the line's length.
fn ends(weights: impl Iterator<Item = u64>) -> Box<[u64]> {
    let mut upto = 0;
    weights
        .map(|weight| {
            upto += weight;
            upto
        })
        .collect()
}

struct Turns {
    turn: Arc<AtomicU64>,
    /// By the registry's weights.
    ends: Box<[u64]>,
    /// By those that were learned, if there are such.
    learned: ArcSwapOption<Box<[u64]>>,
    nodes: Box<[Node]>,
    learning: Learning,
    /// When weights are computed again.
    due: Due,
}

impl Picker for Turns {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        self.learn(info.now);
        match &*self.learned.load() {
            Some(learned) => self.take(info, learned),
            None => self.take(info, &self.ends),
        }
    }
}

impl Turns {
    fn take(&self, info: &PickInfo<'_>, ends: &[u64]) -> Pick {
        let Some(length) = ends.last() else { return Pick::Queue };
        let turn = self.turn.fetch_add(GOLDEN, Relaxed);
        let place = ((u128::from(turn) * u128::from(*length)) >> 64) as u64;
        let at = ends.partition_point(|end| *end <= place);
        // Who was refused there goes on to the next.
        info.around(ends.len(), at, |at| at)
    }

    /// Computes the weights when that is due, by one of the threads that pick; the others go on with the old ones.
    fn learn(&self, now: Instant) {
        let period = u64::try_from(self.learning.update.as_micros()).unwrap_or(u64::MAX);
        if self.due.take(micros(now), period).is_some() {
            let learned = self.weights(now).map(|weights| Arc::new(ends(weights.into_iter())));
            if learned.is_some() || self.learned.load().is_some() {
                self.learned.store(learned);
            }
        }
    }

    /// What is learned of the servers, if it is enough.
    fn weights(&self, now: Instant) -> Option<Vec<u64>> {
        /// The mean, of which each weight is a share: fine enough, and no sum of them overflows.
        const MEAN: f64 = 65_536.0;
        let known: Vec<_> =
            self.nodes.iter().map(|node| self.learning.weight(&node.load().reported(now)?.effort?)).collect();
        let count = known.iter().flatten().count();
        if count < 2 {
            return None;
        }
        let mean = known.iter().flatten().sum::<f64>() / count as f64;
        let registered = |node: &Node| f64::from(node.weight());
        let among = self.nodes.iter().zip(&known).filter(|(_, known)| known.is_some());
        let registered_mean = among.map(|(node, _)| registered(node)).sum::<f64>() / count as f64;
        let weights = self.nodes.iter().zip(&known).map(|(node, known)| {
            let share = known.map_or_else(|| registered(node) / registered_mean, |known| known / mean);
            ((share * MEAN) as u64).max(1)
        });
        Some(weights.collect())
    }
}

impl Learning {
    /// A server's weight, if what is known of it counts.
    fn weight(&self, effort: &Effort) -> Option<f64> {
        if effort.age >= self.expiration || effort.known_for < self.blackout {
            return None;
        }
        let requests = f64::from(effort.requests_per_second);
        let failing = f64::from(effort.errors_per_second) / requests;
        let weight = requests / (f64::from(effort.utilization) + failing * self.error_penalty);
        Some(weight).filter(|weight| weight.is_finite() && *weight > 0.0)
    }
}
