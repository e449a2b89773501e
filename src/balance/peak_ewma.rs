//! The quickest of a few drawn at random, by how slow it was and how much it has to do.

use std::sync::Arc;

use super::{Balancer, MAX_CHOICES, Node, Pick, PickInfo, Picker};
use crate::load::LoadCell;

/// Draws a few endpoints at random and takes the one that will answer soonest: its
/// [peak latency](LoadCell::peak_latency) times the calls that would then be in flight.
///
/// As in Finagle and Linkerd, but that a failure counts as a call in flight for a second, and never makes
/// an endpoint look faster: else one that fails at once draws the calls to itself. An endpoint that was
/// not heard of yet is as fast as the other.
#[derive(Debug, Clone)]
pub struct PeakEwma {
    choices: usize,
}

impl PeakEwma {
    /// Draws `choices` endpoints for each call, at least 2 and at most 10.
    pub fn new(choices: usize) -> Self {
        Self { choices: choices.clamp(2, MAX_CHOICES) }
    }
}

/// Two choices.
impl Default for PeakEwma {
    fn default() -> Self {
        Self::new(2)
    }
}

impl Balancer for PeakEwma {
    fn name(&self) -> &str {
        "peak_ewma"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Box::new(Quickest { loads: ready.iter().map(|node| node.load().clone()).collect(), choices: self.choices })
    }
}

struct Quickest {
    loads: Box<[Arc<LoadCell>]>,
    choices: usize,
}

impl Picker for Quickest {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let mut drawn = [0; MAX_CHOICES];
        let mut costs = [(0.0, 0.0); MAX_CHOICES];
        let (mut random, mut count) = (info.random, 0);
        while count < self.choices.min(self.loads.len()) {
            let Some(at) = info.draw_another(random, self.loads.len(), &drawn[..count]) else { break };
            let load = &self.loads[at];
            drawn[count] = at;
            costs[count] = (load.peak_latency(info.now).as_secs_f32(), load.busy(info.now) as f32 + 1.0);
            count += 1;
            random = super::mix(random);
        }
        // Who has not answered yet is taken for as fast as the fastest that has.
        let known = costs[..count].iter().map(|(latency, _)| *latency).filter(|latency| *latency > 0.0);
        let fastest = known.fold(f32::INFINITY, f32::min);
        let fastest = if fastest.is_finite() { fastest } else { 1.0 };
        let cost = |(latency, busy): (f32, f32)| busy * if latency > 0.0 { latency } else { fastest };
        // The first of equals stays: it was drawn evenly.
        let best = (0..count).min_by(|a, b| cost(costs[*a]).total_cmp(&cost(costs[*b])));
        best.map_or(Pick::Queue, |best| Pick::At(drawn[best]))
    }
}
