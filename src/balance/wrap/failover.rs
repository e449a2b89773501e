//! The next level where the one before has too few endpoints.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Balancer, Fleet, Node, Part, Picker, Standing, Sweep, Wrapper, is_below};

/// Uses the endpoints of the first level that has enough of them ready, for any [`Policy`](super::super::Policy)
/// ([gRFC A56](https://github.com/grpc/proposal/blob/master/A56-priority-lb-policy.md)).
///
/// An endpoint's level is the number under `priority` in its instance's metadata: 0 is the first, and that of
/// who names none. A level whose endpoints are still being connected is waited for, at most `timeout`; one
/// whose endpoints failed is not. When a level before has enough again, calls go back at once. Where no level
/// has enough, all endpoints that are ready take calls. All levels stay connected.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Failover {
    pub(super) threshold: u32,
    pub(super) timeout: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        // gRPC waits 10 s; but here a call that finds nothing ready waits 3 s, and then fails.
        Self { threshold: 0, timeout: Duration::from_secs(2) }
    }
}

impl Failover {
    /// Goes on to the next level where none is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many percent of a level's known endpoints must be ready; at least one, always. Default 0.
    pub fn threshold(mut self, percent: u32) -> Self {
        self.threshold = percent.min(100);
        self
    }

    /// Sets how long to wait for a level that is being connected. Default 2 s, which is less than calls'
    /// [`patience`](crate::ChannelBuilder::patience); no longer than a day.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(Duration::from_secs(24 * 3600));
        self
    }
}

/// A balancer that sees one level.
#[derive(Debug)]
pub(super) struct FailingOver {
    settings: Failover,
    inner: Box<dyn Balancer>,
    /// None: all of them.
    chosen: Option<u32>,
    /// Since when a level is waited for.
    waiting: BTreeMap<u32, Instant>,
}

#[derive(Debug, Default)]
struct Level {
    known: usize,
    ready: usize,
    connecting: usize,
}

fn level(node: &Node) -> u32 {
    let metadata = node.endpoint().instance().metadata();
    metadata.get("priority").and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl FailingOver {
    pub(super) fn new(settings: Failover, inner: Box<dyn Balancer>) -> Self {
        Self { settings, inner, chosen: None, waiting: BTreeMap::new() }
    }

    /// Whether so many ready ones of a level are enough.
    fn enough(&self, ready: usize, level: &Level) -> bool {
        ready > 0 && !is_below(ready, self.settings.threshold, level.known)
    }

    /// The level to use, and until when it is waited for if it is.
    fn choose(&mut self, levels: &BTreeMap<u32, Level>, now: Instant) -> (Option<u32>, Option<Instant>) {
        let waiting = std::mem::take(&mut self.waiting);
        for (priority, level) in levels {
            if self.enough(level.ready, level) {
                return (Some(*priority), None);
            }
            if level.connecting > 0 && self.enough(level.ready + level.connecting, level) {
                let since = waiting.get(priority).copied().unwrap_or(now);
                self.waiting.insert(*priority, since);
                let until = since + self.settings.timeout;
                if until > now {
                    return (Some(*priority), Some(until));
                }
            }
        }
        (None, None)
    }
}

impl Wrapper for FailingOver {
    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&*self.inner)
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Part::of(&mut *self.inner, ready, |at| self.chosen.is_none_or(|chosen| level(&ready[at]) == chosen))
    }

    fn sweep(&mut self, fleet: &Fleet<'_>) -> Sweep {
        let mut levels = BTreeMap::<_, Level>::new();
        fleet.each(|node, standing| {
            let level = levels.entry(level(node)).or_default();
            level.known += 1;
            level.ready += usize::from(standing == Standing::Ready);
            level.connecting += usize::from(standing == Standing::Connecting);
        });
        let (chosen, until) = self.choose(&levels, fleet.now());
        let changed = std::mem::replace(&mut self.chosen, chosen) != chosen;
        let each = |visit: &mut dyn FnMut(&Node, Standing)| {
            fleet.each(|node, standing| {
                if chosen.is_none_or(|chosen| level(node) == chosen) {
                    visit(node, standing);
                }
            });
        };
        self.inner.sweep(&Fleet::new(fleet.now(), &each)).and(Sweep::new(changed, until))
    }
}
