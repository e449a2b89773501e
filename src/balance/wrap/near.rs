//! The caller's own zone or region first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Balancer, Fleet, Node, Part, Pick, PickInfo, Picker, Policy, Standing, Sweep, Wrapper, is_below, mix, unit,
};

/// Sends calls to endpoints of the caller's own zone, or region, as far as these are as many as elsewhere, for any
/// [`Policy`].
///
/// The capacity of a zone is the weight of its endpoints that are ready (and not set aside). A caller sends to
/// its own zone the share `min(1, zones × own capacity / whole capacity)` of its calls, where `zones` are those
/// with an endpoint ready; and the rest to the zones that have more than the mean, by what they have more. So
/// as long as its zone has its share of the capacity, no call leaves it; and where callers are spread evenly
/// over the zones, all endpoints get alike by their weight, which is the rule of
/// [Envoy](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware).
/// A call that is refused in its zone goes on to the others.
///
/// Where the own zone has nothing ready, and while less than [`panic_threshold`](Self::panic_threshold) of all
/// endpoints are, all take calls as if there were no zones. Endpoints that name no zone are in one together.
/// Calls with a key of like to like keep to their zone by the key.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Prefer {
    pub(super) by: By,
    pub(super) own: Arc<str>,
    pub(super) panic_percent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum By {
    Zone,
    Region,
}

impl Prefer {
    /// The caller is in this zone, as instances name it.
    pub fn zone(own: impl Into<Arc<str>>) -> Self {
        Self { by: By::Zone, own: own.into(), panic_percent: super::PANIC }
    }

    /// The caller is in this region.
    pub fn region(own: impl Into<Arc<str>>) -> Self {
        Self { by: By::Region, ..Self::zone(own) }
    }

    /// Sets how many percent of the known endpoints must be ready and not set aside; with fewer there are no
    /// zones. Default 50.
    pub fn panic_threshold(mut self, percent: u32) -> Self {
        self.panic_percent = percent.min(100);
        self
    }

    /// The zone or region of an endpoint; empty if it names none.
    fn of<'a>(&self, node: &'a Node) -> &'a str {
        let locality = node.endpoint().instance().locality();
        match self.by {
            By::Zone => locality.zone(),
            By::Region => locality.region(),
        }
        .unwrap_or("")
    }
}

/// So many zones beside the own one have a balancer each; the others have one together.
const ZONES: usize = 7;

/// Balancers for the own zone and the others.
#[derive(Debug)]
pub(super) struct Near {
    settings: Prefer,
    policy: Policy,
    seed: u64,
    shares: Shares,
    inner: BTreeMap<Group, Box<dyn Balancer>>,
}

/// Who is balanced together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Own,
    Zone(Arc<str>),
    /// All others; all, where zones do not count.
    Rest,
}

/// Which part of the calls each group takes. The own zone comes first, and the rest last.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shares(Vec<(Group, f64)>);

impl Shares {
    /// By the capacities.
    fn of(own: &str, zones: &BTreeMap<&str, u64>) -> Self {
        let Some(capacity) = zones.get(own).copied().filter(|capacity| *capacity > 0) else { return Self::default() };
        let whole = zones.values().map(|capacity| u128::from(*capacity)).sum::<u128>();
        let times = |capacity: u64| u128::from(capacity) * zones.len() as u128;
        let stays = (times(capacity) as f64 / whole as f64).min(1.0);
        let more = |capacity: u64| times(capacity).saturating_sub(whole);
        let spare: Vec<_> = zones.iter().map(|(zone, capacity)| (*zone, more(*capacity))).collect();
        let all = spare.iter().map(|(_, more)| *more).sum::<u128>();
        let mut shares = vec![(Group::Own, stays)];
        let mut away: Vec<_> =
            spare.into_iter().filter(|(zone, more)| *zone != own && *more > 0 && stays < 1.0).collect();
        away.sort_by_key(|(zone, more)| (std::cmp::Reverse(*more), *zone));
        let part = |more: u128| (1.0 - stays) * more as f64 / all as f64;
        let rest = away.iter().skip(ZONES).map(|(_, more)| part(*more)).sum();
        shares.extend(away.iter().take(ZONES).map(|(zone, more)| (Group::Zone((*zone).into()), part(*more))));
        shares.push((Group::Rest, rest));
        Self(shares)
    }

    fn group(&self, own: &str, zone: &str) -> usize {
        let is = |group: &Group| match group {
            Group::Own => zone == own,
            Group::Zone(name) => **name == *zone,
            Group::Rest => true,
        };
        self.0.iter().position(|(group, _)| is(group)).unwrap_or(0)
    }
}

impl Near {
    pub(super) fn new(settings: Prefer, policy: Policy, seed: u64) -> Self {
        let mut near = Self { settings, policy, seed, shares: Shares::default(), inner: BTreeMap::new() };
        near.balancer(&Group::Rest);
        near
    }

    fn balancer(&mut self, group: &Group) -> &mut dyn Balancer {
        let nth = self.inner.len() as u64;
        let make = || self.policy.balancer(mix(self.seed ^ nth));
        &mut **self.inner.entry(group.clone()).or_insert_with(make)
    }

    /// The groups that there are now.
    fn groups(&self) -> Vec<Group> {
        let named = self.shares.0.iter().map(|(group, _)| group.clone());
        if self.shares.0.is_empty() { vec![Group::Rest] } else { named.collect() }
    }
}

impl Wrapper for Near {
    fn inner(&self) -> Option<&dyn Balancer> {
        self.inner.values().next().map(|inner| &**inner)
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let group = |node| self.shares.group(&self.settings.own, self.settings.of(node));
        let of: Vec<_> = ready.iter().map(group).collect();
        let shares: Vec<_> = self.shares.0.iter().map(|(_, share)| *share).collect();
        let mut groups = Vec::new();
        let mut upto = 0.0;
        for (at, group) in self.groups().iter().enumerate() {
            upto += shares.get(at).copied().unwrap_or(1.0);
            let places: Vec<_> = (0..ready.len()).filter(|node| of[*node] == at).map(|node| node as u32).collect();
            if places.len() == ready.len() {
                return self.balancer(group).rebuild(ready);
            }
            if !places.is_empty() {
                groups.push((upto, Part::new(self.balancer(group), ready, places)));
            }
        }
        Box::new(Nearest(groups.into()))
    }

    fn sweep(&mut self, fleet: &Fleet<'_>) -> Sweep {
        let (mut known, mut usable) = (0, 0);
        let mut zones = BTreeMap::<Arc<str>, u64>::new();
        fleet.each(|node, standing| {
            known += 1;
            if standing == Standing::Ready {
                usable += 1;
                let zone = self.settings.of(node);
                match zones.get_mut(zone) {
                    Some(capacity) => *capacity += u64::from(node.weight()),
                    None => drop(zones.insert(zone.into(), u64::from(node.weight()))),
                }
            }
        });
        let shares = if is_below(usable, self.settings.panic_percent, known) {
            Shares::default()
        } else {
            Shares::of(&self.settings.own, &zones.iter().map(|(zone, capacity)| (&**zone, *capacity)).collect())
        };
        let changed = std::mem::replace(&mut self.shares, shares) != self.shares;
        let groups = self.groups();
        let kept: BTreeSet<_> = groups.iter().chain(&[Group::Own, Group::Rest]).cloned().collect();
        self.inner.retain(|group, _| kept.contains(group));
        let (settings, shares) = (self.settings.clone(), self.shares.clone());
        let mut sweep = Sweep::new(changed, None);
        for (at, group) in groups.iter().enumerate() {
            let (settings, shares) = (&settings, &shares);
            let each = |visit: &mut dyn FnMut(&Node, Standing)| {
                fleet.each(|node, standing| {
                    if shares.group(&settings.own, settings.of(node)) == at {
                        visit(node, standing);
                    }
                });
            };
            sweep = sweep.and(self.balancer(group).sweep(&Fleet::new(fleet.now(), &each)));
        }
        sweep
    }
}

/// Pickers of groups, and up to where of all draws each takes them.
struct Nearest(Box<[(f64, Part)]>);

impl Picker for Nearest {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let draw = unit(mix(self.affinity(info).unwrap_or(info.random) ^ SALT));
        let first = self.0.iter().position(|(upto, _)| draw < *upto).unwrap_or(0);
        // Who is refused there is not lost: the own zone first, then the others.
        let others = (0..self.0.len()).filter(|at| *at != first);
        for at in [first].into_iter().chain(others) {
            match self.0.get(at).map(|(_, part)| part.pick(info)) {
                Some(Pick::Queue) => {}
                Some(pick) => return pick,
                None => break,
            }
        }
        Pick::Queue
    }

    fn affinity(&self, info: &PickInfo<'_>) -> Option<u64> {
        self.0.first().and_then(|(_, part)| part.affinity(info))
    }
}

/// So that what is drawn here is not what a policy draws.
const SALT: u64 = 0xd1f3_6b28_4e97_0ac5;
