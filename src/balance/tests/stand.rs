//! A channel's part in tests of wrappers: endpoints that come and go, and a clock that is set.

use std::time::Duration;

use super::*;
use crate::load::Outcome;

/// Endpoints and how they stand, with a balancer that is asked as a channel asks it.
pub(super) struct Stand {
    pub(super) nodes: Vec<Node>,
    pub(super) standing: Vec<Standing>,
    pub(super) now: Instant,
    pub(super) due: Option<Instant>,
    pub(super) ready: Vec<usize>,
    balancer: Box<dyn Balancer>,
    picker: Option<Box<dyn Picker>>,
    random: u64,
}

/// An endpoint with this under `key` of its metadata.
pub(super) fn with(n: usize, pairs: &[(&str, &str)]) -> Node {
    let address: Address = format!("grpc://h{n}:1").parse().expect("valid");
    let builder = ServiceInstance::builder("s", format!("i{n}")).expect("valid").address(address.clone());
    let builder = pairs.iter().fold(builder, |builder, (key, value)| builder.metadata(*key, *value));
    Node::new(Endpoint::new(address.into(), builder.build().expect("valid")), Arc::default())
}

impl Stand {
    pub(super) fn new(policy: &str, nodes: Vec<Node>) -> Self {
        let balancer = policy.parse::<Policy>().expect(policy).balancer(1);
        let standing = vec![Standing::Ready; nodes.len()];
        let now = Instant::now();
        let mut stand = Self { nodes, standing, now, due: None, ready: Vec::new(), balancer, picker: None, random: 42 };
        stand.publish();
        stand
    }

    fn sweep(&mut self) -> bool {
        let each = |visit: &mut dyn FnMut(&Node, Standing)| {
            self.nodes.iter().zip(&self.standing).for_each(|(node, standing)| visit(node, *standing));
        };
        let sweep = self.balancer.sweep(&Fleet::new(self.now, &each));
        self.due = sweep.next;
        sweep.changed
    }

    /// Something happened to an endpoint.
    pub(super) fn publish(&mut self) {
        self.sweep();
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.ready = (0..self.nodes.len()).filter(|at| self.standing[*at] == Standing::Ready).collect();
        let nodes: Vec<_> = self.ready.iter().map(|at| self.nodes[*at].clone()).collect();
        self.picker = (!nodes.is_empty()).then(|| self.balancer.rebuild(&nodes));
    }

    /// Time passes, in which sweeps that are due are made.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.due.filter(|due| *due <= until) {
            assert!(due >= self.now, "a sweep that is due in the past");
            self.now = due;
            if self.sweep() {
                self.rebuild();
            }
            assert!(self.due.is_none_or(|next| next > due), "sweeps without end");
        }
        self.now = until;
    }

    /// Where a call goes that was refused at these; none if it waits.
    pub(super) fn pick(&mut self, extensions: Option<&Extensions>, tried: &[usize]) -> Option<usize> {
        self.random = mix(self.random);
        let headers = HeaderMap::new();
        let mut info = PickInfo::new("/s/m", &headers, self.now, self.random);
        let tried: Vec<_> = tried.iter().filter_map(|at| self.ready.iter().position(|ready| ready == at)).collect();
        (info.extensions, info.tried) = (extensions, &tried);
        info.recent = (self.random.is_multiple_of(2) && !self.ready.is_empty()).then_some(0);
        match self.picker.as_ref()?.pick(&info) {
            Pick::At(at) => Some(self.ready[at]),
            Pick::Queue => None,
            other => panic!("{other:?}"),
        }
    }

    /// Where so many calls go, by endpoint; those that wait come last.
    pub(super) fn shares(&mut self, calls: usize) -> Vec<usize> {
        let mut shares = vec![0; self.nodes.len() + 1];
        for _ in 0..calls {
            let at = self.pick(None, &[]).unwrap_or(self.nodes.len());
            shares[at] += 1;
        }
        shares
    }

    /// So many calls of an endpoint end well, and so many do not.
    pub(super) fn answers(&self, at: usize, succeeded: u64, failed: u64) {
        for n in 0..succeeded + failed {
            let outcome = if n < succeeded { Outcome::Success } else { Outcome::Failure };
            self.nodes[at].load().start(self.now).finish(outcome, self.now);
        }
    }
}
