//! Each endpoint in its turn.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Balancer, Node, Pick, PickInfo, Picker, mix};

/// Takes the endpoints in turn, each picker from a random one on, so that channels do not march in
/// step.
#[derive(Debug, Clone)]
pub struct RoundRobin {
    random: u64,
}

impl RoundRobin {
    /// The seed says where each picker begins.
    pub fn new(seed: u64) -> Self {
        Self { random: seed }
    }
}

impl Balancer for RoundRobin {
    fn name(&self) -> &str {
        "round_robin"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        self.random = mix(self.random);
        let next = AtomicUsize::new(self.random as usize);
        let count = ready.len();
        Box::new(move |info: &PickInfo<'_>| {
            for _ in 0..count {
                let at = next.fetch_add(1, Relaxed) % count;
                if !info.tried.contains(&at) {
                    return Pick::At(at);
                }
            }
            Pick::Queue
        })
    }
}
