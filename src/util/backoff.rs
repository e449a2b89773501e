//! Exponential backoff with jitter.

use std::{sync::Arc, time::Duration};

use super::rng::Rng;

/// How long to wait between tries: `base · factor^n`, at most `max`, spread by ± `jitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BackoffConfig {
    /// The first wait. Default 1 s.
    pub base: Duration,
    /// No wait is longer than this, jitter apart. Default 120 s.
    pub max: Duration,
    /// What each wait is multiplied by for the next. Default 1.6.
    pub factor: f64,
    /// The share by which a wait is spread both ways. Default 0.2.
    pub jitter: f64,
}

impl BackoffConfig {
    /// Waits from `base` to `max`, with the default factor and jitter.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, factor: 1.6, jitter: 0.2 }
    }

    /// For those that all lose a registry at the same moment: each wait is anything up to twice its
    /// length, from a second on, so that they do not all come back at the same moment too.
    pub(crate) const fn spread(max: Duration) -> Self {
        Self { base: Duration::from_millis(500), max, factor: 1.6, jitter: 1.0 }
    }
}

/// [gRPC's connection backoff](https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md).
impl Default for BackoffConfig {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(120))
    }
}

/// The waits of one series of tries.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    // Shared, as there may be ten thousand.
    config: Arc<BackoffConfig>,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(config: impl Into<Arc<BackoffConfig>>) -> Self {
        Self { config: config.into(), attempt: 0 }
    }

    /// The wait before the next try.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        let BackoffConfig { base, max, factor, jitter } = *self.config;
        let exponent = i32::try_from(self.attempt).unwrap_or(i32::MAX);
        let wait = (base.as_secs_f64() * factor.powi(exponent)).min(max.as_secs_f64());
        self.attempt = self.attempt.saturating_add(1);
        let spread = 1.0 + jitter * (2.0 * rng.unit() - 1.0);
        Duration::try_from_secs_f64(wait * spread).unwrap_or(max)
    }

    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How many waits were given since the last reset.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_within_the_jitter() {
        let mut backoff = Backoff::new(BackoffConfig::default());
        let mut rng = Rng::seeded(7);
        for n in 0..200 {
            let ideal = 1.6f64.powi(n).min(120.0);
            let wait = backoff.next(&mut rng).as_secs_f64();
            assert!((wait / ideal - 1.0).abs() <= 0.2 + 1e-9, "wait {n}: {wait} s, ideal {ideal} s");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng).as_secs_f64() <= 1.2);
    }

    /// After an outage of any length, at most a fifth of a thousand come back within any 100 ms.
    #[test]
    fn a_crowd_comes_back_spread() {
        let mut rng = Rng::seeded(7);
        let outages = (0..400).map(|n| f64::from(n) * 0.05);
        for (outage, max) in outages.flat_map(|outage| [(outage, 6), (outage, 10)]) {
            let mut back: Vec<_> = (0..1_000)
                .map(|_| {
                    let mut backoff = Backoff::new(BackoffConfig::spread(Duration::from_secs(max)));
                    let mut at = backoff.next(&mut rng).as_secs_f64();
                    while at < outage {
                        at += backoff.next(&mut rng).as_secs_f64();
                    }
                    at
                })
                .collect();
            back.sort_by(f64::total_cmp);
            let crowded = back.windows(201).any(|some| some[200] - some[0] < 0.1);
            assert!(!crowded, "after {outage} s, waits of {max} s");
        }
    }
}
