//! Any endpoint, evenly.

use super::{Balancer, Node, Pick, PickInfo, Picker};

/// Takes an endpoint at random, each as likely as the other.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Random;

impl Random {
    /// The policy; it has no options.
    pub fn new() -> Self {
        Self
    }
}

impl Balancer for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let count = ready.len();
        Box::new(move |info: &PickInfo<'_>| info.draw(info.random, count).map_or(Pick::Queue, Pick::At))
    }
}
