//! How much of what a server takes longer than others is that more waits there.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::util::pair::{pack, unpack};

/// The power of the requests in flight with which servers' latencies were found to grow: 0 where each has room for more
/// at once, 1 where what comes waits for all that is there. By regression, from one server's report to another's.
///
/// What is explained so says nothing of a server's speed, and its requests in flight count already.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// The mean product of both logarithms, and the mean square of the requests': 32-bit floats.
    state: AtomicU64,
}

/// So many reports are remembered.
const MEMORY: f32 = 1_000.0;
/// None counts for more than e to this times the median, or for less than its inverse.
const MOST: f32 = 2.0;
/// So much is added to the mean square, so that nothing follows from what says nothing.
const RIDGE: f32 = 0.02;

impl Waits {
    /// One has so many times as many in flight as the median, and takes so many times as long.
    pub(super) fn learn(&self, in_flight: f32, latency: f32) {
        let [in_flight, latency] = [in_flight, latency].map(|times| times.ln().clamp(-MOST, MOST));
        let (product, square) = unpack(self.state.load(Relaxed));
        let product = product + (in_flight * latency - product) / MEMORY;
        let square = square + (in_flight * in_flight - square) / MEMORY;
        if (product + square).is_finite() {
            // Two threads at once may lose one of two, which is as good.
            self.state.store(pack(product, square), Relaxed);
        }
    }

    pub(super) fn power(&self) -> f32 {
        let (product, square) = unpack(self.state.load(Relaxed));
        (product / (square + RIDGE)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::mix;

    /// What is found where latencies grow with such a power of the requests in flight, and by chance.
    fn found(power: f32, chance: f32) -> f32 {
        let (waits, mut random) = (Waits::default(), 1);
        let mut any = || {
            random = mix(random);
            (random >> 40) as f32 / (1_u64 << 24) as f32 * 2.0 - 1.0
        };
        for _ in 0..10_000 {
            let in_flight = any();
            waits.learn(in_flight.exp(), (in_flight * power + any() * chance).exp());
        }
        waits.power()
    }

    #[test]
    fn the_power_is_found_through_chance() {
        assert_eq!(Waits::default().power(), 0.0, "at first nothing is explained");
        for power in [0.0, 0.5, 0.9] {
            let found = found(power, 0.5);
            assert!((found - power).abs() < 0.1, "{power}, and {found} found");
        }
        assert_eq!(found(-1.0, 0.5), 0.0, "who is slow is avoided, and has the fewest");
        assert_eq!(found(2.0, 0.5), 1.0);
    }

    #[test]
    fn no_number_changes_it_and_a_lie_only_a_little() {
        let waits = Waits::default();
        for number in [f32::NAN, f32::INFINITY, 0.0, -1.0, 1e30] {
            waits.learn(number, 1.0);
            waits.learn(1.0, number);
        }
        assert!(waits.power() <= 0.3, "{}", waits.power());
        (0..1_000).for_each(|_| waits.learn(1e30, 0.0));
        (0..10_000).for_each(|_| waits.learn(2.0, 2.0));
        assert!(waits.power() > 0.9, "it recovers: {}", waits.power());
    }
}
