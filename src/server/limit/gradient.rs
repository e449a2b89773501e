//! A limit that follows the latency.

use std::time::Duration;

use super::AdaptiveLimit;

/// `Gradient2Limit` of Netflix'
/// [concurrency-limits](https://github.com/Netflix/concurrency-limits/blob/main/concurrency-limits-core/src/main/java/com/netflix/concurrency/limits/limit/Gradient2Limit.java),
/// with its constants: the limit shrinks by as much as latency exceeds 1.5 times its long-term average, at most by
/// half, and grows by the queue that is allowed; a fifth of that each window.
///
/// Two things differ. The queue allowed is the limit's square root, as the headroom of
/// [Envoy's](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter),
/// for few places as for many. And while requests are shed, the long-term average grows ten times more slowly: else
/// an overload that lasts becomes the new normal.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    least: f64,
    most: f64,
    /// Long-term latency in seconds.
    long: f64,
    windows: u32,
}

/// What was seen in a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// The mean.
    pub(super) latency: Duration,
    /// The most requests in flight.
    pub(super) in_flight: usize,
    /// Whether requests were shed.
    pub(super) shed: bool,
}

const TOLERANCE: f64 = 1.5;
const SMOOTHING: f64 = 0.2;
const LONG_WINDOWS: f64 = 600.0;
/// So many windows are averaged evenly.
const WARM_UP: u32 = 10;
const SHEDDING: f64 = 0.1;

impl Gradient {
    pub(super) fn new(config: &AdaptiveLimit) -> Self {
        let (least, most) = (config.least as f64, config.most as f64);
        Self { limit: (config.initial as f64).clamp(least, most), least, most, long: 0.0, windows: 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    pub(super) fn update(&mut self, window: Window) {
        let short = window.latency.as_secs_f64().max(1e-6);
        self.windows = self.windows.saturating_add(1);
        let share = if self.windows <= WARM_UP { 1.0 / f64::from(self.windows) } else { 2.0 / (LONG_WINDOWS + 1.0) };
        let slow = window.shed && short > self.long && self.windows > 1;
        self.long += (short - self.long) * if slow { share * SHEDDING } else { share };
        // After a load that was heavy it comes down soon.
        if self.long > 2.0 * short {
            self.long *= 0.95;
        }
        // What is not used says nothing of what would be too much.
        if (window.in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.long / short).clamp(0.5, 1.0);
        let next = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit * (1.0 - SMOOTHING) + next * SMOOTHING).clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(millis: u64, in_flight: usize, shed: bool) -> Window {
        Window { latency: Duration::from_millis(millis), in_flight, shed }
    }

    fn gradient() -> Gradient {
        Gradient::new(&AdaptiveLimit::new())
    }

    #[test]
    fn grows_while_latency_stays_and_shrinks_when_it_rises() {
        let mut gradient = gradient();
        assert_eq!(gradient.limit(), 20);
        for _ in 0..20 {
            gradient.update(seen(10, 20, false));
        }
        let grown = gradient.limit();
        assert!(grown > 35, "{grown}");
        gradient.update(seen(40, grown, true));
        assert!(gradient.limit() < grown, "{}", gradient.limit());
        for _ in 0..100 {
            gradient.update(seen(40, gradient.limit(), true));
        }
        // Where a limit cut to the half of itself is grown by its root: √limit = limit / 2.
        assert_eq!(gradient.limit(), 4);
    }

    #[test]
    fn an_idle_server_keeps_its_limit() {
        let mut gradient = gradient();
        for _ in 0..100 {
            gradient.update(seen(10, 9, false));
        }
        assert_eq!(gradient.limit(), 20);
    }

    #[test]
    fn settles_where_the_queue_begins_to_cost() {
        // Four workers of 10 ms each: what is in flight past four waits.
        let mut gradient = gradient();
        for _ in 0..20 {
            gradient.update(seen(10, 3, false));
        }
        for _ in 0..1_200 {
            let in_flight = gradient.limit();
            gradient.update(seen((10 * in_flight as u64).div_ceil(4).max(10), in_flight, true));
        }
        // Ten minutes of overload later latency is still below four times what it was.
        assert!((5..=15).contains(&gradient.limit()), "{}", gradient.limit());
    }
}
