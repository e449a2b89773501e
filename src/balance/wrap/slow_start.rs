//! Who is new gets its share by and by.

use std::time::{Duration, Instant};

use super::{Balancer, Fleet, Memory, Node, Pick, PickInfo, Picker, Standing, Sweep, Wrapper, mix, unit};

/// Gives an endpoint that joins a growing share of calls, for any [`Policy`](super::super::Policy), so that it can
/// warm up ([Envoy's slow start](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/slow_start)).
///
/// Of the calls that the policy would send to it, it takes a share that grows over the window; with the others
/// the policy is asked for another one. Who joins within the first window of the channel's life takes its
/// whole share at once, and so does everybody while more than half of those that are ready are new. An
/// endpoint that was not ready for more than a second is taken for restarted, and is new again.
///
/// Where like calls go to like endpoints, a key of the new endpoint goes over once, as the share grows.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct SlowStart {
    pub(super) window: Duration,
    pub(super) aggression: f64,
    pub(super) least_percent: u32,
}

/// So long an endpoint may be away and is still warm: a connection that the server asked to leave.
const AWAY: Duration = Duration::from_secs(1);

impl SlowStart {
    /// Slow start over so long a window: from a tenth of the share in a line to all of it. No longer than a day.
    pub fn new(window: Duration) -> Self {
        Self { window: window.min(Duration::from_secs(24 * 3600)), aggression: 1.0, least_percent: 10 }
    }

    /// Sets how the share grows: with the time gone, as a part of the window, to the power of 1/`aggression`;
    /// more than 1 is quicker at first. Default 1; from 0.01 to 100.
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = if aggression.is_nan() { 1.0 } else { aggression.clamp(0.01, 100.0) };
        self
    }

    /// Sets the least share, in percent. Default 10.
    pub fn min_weight(mut self, percent: u32) -> Self {
        self.least_percent = percent.min(100);
        self
    }

    /// The share of one that joined so long ago.
    fn share(&self, joined: Duration) -> f64 {
        let part = joined.as_secs_f64() / self.window.as_secs_f64().max(f64::MIN_POSITIVE);
        part.min(1.0).powf(1.0 / self.aggression).max(f64::from(self.least_percent) / 100.0)
    }
}

/// A balancer that is asked once more where it picked one that is new.
#[derive(Debug)]
pub(super) struct SlowStarting {
    settings: SlowStart,
    inner: Box<dyn Balancer>,
    known: Memory<Known>,
    /// When there was a first endpoint.
    begun: Option<Instant>,
}

/// How an endpoint has been.
#[derive(Debug, Clone, Copy, Default)]
enum Known {
    #[default]
    Never,
    /// Ready since then, which is not long.
    Joined(Instant),
    /// Ready for long.
    Warm,
    /// Not ready since then.
    Away(Instant),
}

impl SlowStarting {
    pub(super) fn new(settings: SlowStart, inner: Box<dyn Balancer>) -> Self {
        Self { settings, inner, known: Memory::default(), begun: None }
    }
}

impl Wrapper for SlowStarting {
    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&*self.inner)
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let joined = |node| match self.known.get(node) {
            Some(Known::Joined(at)) => Some(*at),
            _ => None,
        };
        let joined: Box<[_]> = ready.iter().map(joined).collect();
        let inner = self.inner.rebuild(ready);
        let new = joined.iter().flatten().count();
        if new == 0 || new * 2 > joined.len() {
            return inner;
        }
        Box::new(Warming { inner, joined, settings: self.settings.clone() })
    }

    fn sweep(&mut self, fleet: &Fleet<'_>) -> Sweep {
        let (now, window) = (fleet.now(), self.settings.window);
        let is_over = |since: Instant, time: Duration| now.saturating_duration_since(since) >= time;
        self.known.follow(fleet, |_| Known::Never);
        let (mut changed, mut next) = (false, None);
        for (_, standing, known) in self.known.iter_mut() {
            if standing != Standing::Ready {
                if let Known::Joined(_) | Known::Warm = known {
                    *known = Known::Away(now);
                }
                continue;
            }
            let early = !is_over(*self.begun.get_or_insert(now), window);
            *known = match *known {
                Known::Never if early => Known::Warm,
                Known::Away(since) if early || !is_over(since, AWAY) => Known::Warm,
                Known::Never | Known::Away(_) => Known::Joined(now),
                Known::Joined(at) if is_over(at, window) => {
                    changed = true;
                    Known::Warm
                }
                as_it_was => as_it_was,
            };
            if let Known::Joined(at) = known {
                next = next.into_iter().chain([*at + window]).min();
            }
        }
        self.inner.sweep(fleet).and(Sweep::new(changed, next))
    }
}

struct Warming {
    inner: Box<dyn Picker>,
    joined: Box<[Option<Instant>]>,
    settings: SlowStart,
}

impl Picker for Warming {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let first = self.inner.pick(info);
        let Pick::At(at) = first else { return first };
        let Some(Some(joined)) = self.joined.get(at) else { return first };
        // A key goes over once, as the share grows; a call that has none goes by chance.
        let key = self.affinity(info);
        let mut random = mix(key.unwrap_or(info.random) ^ SALT);
        if unit(random) < self.settings.share(info.now.saturating_duration_since(*joined)) {
            return first;
        }
        // As if it had not been picked: told that it was tried, some policies go to its neighbour each time.
        for _ in 0..if key.is_none() { AGAIN } else { 0 } {
            random = mix(random);
            match self.inner.pick(&PickInfo { random, ..*info }) {
                Pick::At(other) if other != at => return Pick::At(other),
                _ => {}
            }
        }
        let tried: Vec<_> = info.tried.iter().copied().chain([at]).collect();
        match self.inner.pick(&PickInfo { tried: &tried, random: mix(random), ..*info }) {
            Pick::At(other) if !tried.contains(&other) => Pick::At(other),
            _ => first,
        }
    }

    fn affinity(&self, info: &PickInfo<'_>) -> Option<u64> {
        self.inner.affinity(info)
    }
}

/// So often a policy is asked once more as if for another call, before it is told.
const AGAIN: usize = 2;

/// So that what is drawn here is not what a policy draws.
const SALT: u64 = 0x5b1c_7a3f_92e4_06d8;
