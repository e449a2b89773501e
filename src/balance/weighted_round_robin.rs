//! Each endpoint in its turn, the heavy ones more often.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Balancer, Node, Pick, PickInfo, Picker, mix};

/// Takes the endpoints in turns, as often as they weigh, evenly spread and in no bursts.
///
/// The weights are the registry's: `weight` of the metadata, Consul's `Weights`. They change without a
/// reconnect. In the series of all channels' calls an endpoint's share is off by a few calls at most,
/// however many there are.
#[derive(Debug, Clone)]
pub struct WeightedRoundRobin {
    turn: Arc<AtomicU64>,
}

impl WeightedRoundRobin {
    /// The seed says where it begins, so that channels do not march in step.
    pub fn new(seed: u64) -> Self {
        Self { turn: Arc::new(AtomicU64::new(mix(seed))) }
    }
}

impl Balancer for WeightedRoundRobin {
    fn name(&self) -> &str {
        "weighted_round_robin"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let mut upto = 0;
        let ends = ready
            .iter()
            .map(|node| {
                upto += u64::from(node.weight());
                upto
            })
            .collect();
        Box::new(Turns { turn: self.turn.clone(), ends })
    }
}

struct Turns {
    turn: Arc<AtomicU64>,
    /// Where each one's part of the line ends; the last is the line's length.
    ends: Box<[u64]>,
}

/// 2⁶⁴ by the golden ratio: of all steps round a circle, multiples of this one fill it most evenly
/// (Knuth, The Art of Computer Programming, volume 3, section 6.4, theorem S).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Picker for Turns {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let Some(length) = self.ends.last() else { return Pick::Queue };
        let turn = self.turn.fetch_add(GOLDEN, Relaxed);
        let place = ((u128::from(turn) * u128::from(*length)) >> 64) as u64;
        let at = self.ends.partition_point(|end| *end <= place);
        // Who was refused there goes on to the next.
        info.around(self.ends.len(), at, |at| at)
    }
}
