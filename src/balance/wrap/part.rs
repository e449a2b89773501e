//! A picker of some of the endpoints, whose positions are among all of them.

use super::{Balancer, Node, Pick, PickInfo, Picker, Probed};

/// What an inner balancer picks from its part, by the positions that the channel knows.
pub(super) struct Part {
    picker: Box<dyn Picker>,
    /// Ascending: where each of the inner positions is among all.
    places: Box<[u32]>,
}

impl Part {
    /// The inner balancer's picker of those of `all` at these places, which ascend.
    pub(super) fn new(inner: &mut dyn Balancer, all: &[Node], places: Vec<u32>) -> Self {
        let nodes: Vec<_> = places.iter().filter_map(|at| all.get(*at as usize).cloned()).collect();
        Self { picker: inner.rebuild(&nodes), places: places.into() }
    }

    /// The picker of those that `wanted` tells; with no map, and no cost, where that is all of them. One
    /// that makes calls wait if it is none.
    pub(super) fn of(inner: &mut dyn Balancer, all: &[Node], wanted: impl Fn(usize) -> bool) -> Box<dyn Picker> {
        let places: Vec<_> = (0..all.len()).filter(|at| wanted(*at)).map(|at| at as u32).collect();
        match places.len() {
            0 => Box::new(|_: &PickInfo<'_>| Pick::Queue),
            count if count == all.len() => inner.rebuild(all),
            _ => Box::new(Self::new(inner, all, places)),
        }
    }

    fn outside(&self, at: usize) -> Option<usize> {
        self.places.get(at).map(|at| *at as usize)
    }

    fn inside(&self, at: usize) -> Option<usize> {
        self.places.binary_search(&u32::try_from(at).ok()?).ok()
    }
}

impl Picker for Part {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        // Takes no memory where nothing was tried, as is the rule.
        let inside = |all: &[usize]| all.iter().filter_map(|at| self.inside(*at)).collect::<Vec<_>>();
        let (tried, probed) = (inside(info.tried), info.probed.unwrap_or_default());
        let (asked, answered) = (inside(probed.asked), inside(probed.answered));
        let probed = info.probed.map(|_| Probed::new(&asked, &answered, probed.first).waited(probed.waited));
        let inner = PickInfo { recent: info.recent.and_then(|at| self.inside(at)), tried: &tried, probed, ..*info };
        match self.picker.pick(&inner) {
            Pick::At(at) => self.outside(at).map_or(Pick::Queue, Pick::At),
            Pick::Probe(probes) => Pick::Probe(probes.with(probes.at().iter().filter_map(|at| self.outside(*at)))),
            other => other,
        }
    }

    fn affinity(&self, info: &PickInfo<'_>) -> Option<u64> {
        self.picker.affinity(info)
    }
}
