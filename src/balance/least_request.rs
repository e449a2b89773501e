//! The least busy of a few drawn at random.

use std::sync::Arc;

use super::{Balancer, MAX_CHOICES, Node, Pick, PickInfo, Picker};
use crate::load::LoadCell;

/// Draws a few endpoints at random and takes the one with the fewest calls in flight
/// ([gRFC A48](https://github.com/grpc/proposal/blob/master/A48-xds-least-request-lb-policy.md)).
///
/// Other than there no endpoint is drawn twice for a call, so one that hangs gets nothing while it
/// does; and a failure counts as a call in flight for a second, so that failing fast does not look
/// like being fast. And of a thread's calls one draws where the one before went, as long as that is
/// no busier than another.
#[derive(Debug, Clone)]
pub struct LeastRequest {
    choices: usize,
}

impl LeastRequest {
    /// Draws `choices` endpoints for each call, at least 2 and at most 10, as gRPC bounds them.
    pub fn new(choices: usize) -> Self {
        Self { choices: choices.clamp(2, MAX_CHOICES) }
    }
}

/// Two choices.
impl Default for LeastRequest {
    fn default() -> Self {
        Self::new(2)
    }
}

impl Balancer for LeastRequest {
    fn name(&self) -> &str {
        "least_request"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Box::new(LeastRequestPicker {
            loads: ready.iter().map(|node| node.load().clone()).collect(),
            choices: self.choices,
        })
    }
}

struct LeastRequestPicker {
    loads: Box<[Arc<LoadCell>]>,
    choices: usize,
}

impl LeastRequestPicker {
    fn recent(&self, info: &PickInfo<'_>) -> Option<(usize, u32)> {
        let at = info.recent.filter(|at| !info.tried.contains(at))?;
        let load = self.loads.get(at)?.busy(info.now);
        (load > 0).then_some((at, load))
    }
}

impl Picker for LeastRequestPicker {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let mut best = None;
        let mut random = info.random;
        let mut drawn = [0; MAX_CHOICES];
        let mut first = 0;
        // Where the thread's last call went counts as drawn, if it is at work: the writes of calls
        // that begin together then join, and one that is remembered balances no worse than one
        // that is drawn (Mitzenmacher, Prabhakar, Shah: Load balancing with memory, 2002).
        if let Some((at, load)) = self.recent(info) {
            (best, drawn[0], first) = (Some((load, at)), at, 1);
        }
        for n in first..self.choices.min(self.loads.len()) {
            let Some(at) = info.draw_another(random, self.loads.len(), &drawn[..n]) else { break };
            let load = self.loads[at].busy(info.now);
            // The first of equals stays: it was drawn evenly.
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, at));
            }
            drawn[n] = at;
            random = super::mix(random);
        }
        best.map_or(Pick::Queue, |(_, at)| Pick::At(at))
    }
}
