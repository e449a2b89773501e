//! One endpoint for all calls, until it is gone.

use super::{Balancer, ConnectMode, Node, Pick, PickInfo, Picker};

/// Connects to one endpoint, the first that can be reached, and stays with it
/// ([gRFC A61](https://github.com/grpc/proposal/blob/master/A61-IPv4-IPv6-dualstack-backends.md#pick_first-changes)).
#[derive(Debug, Clone, Default)]
pub struct PickFirst {
    shuffle: bool,
}

impl PickFirst {
    /// With `shuffle`, each channel tries the endpoints in a random order of its own
    /// ([gRFC A62](https://github.com/grpc/proposal/blob/master/A62-pick-first.md)).
    pub fn new(shuffle: bool) -> Self {
        Self { shuffle }
    }
}

impl Balancer for PickFirst {
    fn name(&self) -> &str {
        "pick_first"
    }

    fn connect_mode(&self) -> ConnectMode {
        ConnectMode::First { shuffle: self.shuffle }
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let none = ready.is_empty();
        Box::new(move |_: &PickInfo<'_>| if none { Pick::Queue } else { Pick::At(0) })
    }
}
