//! How long a server takes to answer, by how many requests it has in flight.

use std::time::Duration;

use crate::util::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How long a server takes to answer, by how many requests it has in flight: the last 8 latencies at about each
/// count, and their medians, as [Prequal](https://www.usenix.org/conference/nsdi24/presentation/wydrowski)'s
/// servers answer to probes.
///
/// [`RegistrationLayer`](crate::server::RegistrationLayer) has one; this is for who counts requests otherwise, and
/// reports them in a [`BriefReport`](super::BriefReport) or as the metrics named there.
#[derive(Debug)]
pub struct Answers(Box<[Bucket]>);

/// Few, so that a server that becomes slow is seen to be soon.
const SAMPLES: usize = 8;
/// Single counts up to 7, then four in each doubling, up to 65 535 and more.
const BUCKETS: usize = 60;

#[derive(Debug, Default)]
struct Bucket {
    /// In microseconds, at least 1.
    samples: [AtomicU32; SAMPLES],
    next: AtomicU32,
    /// 0 where none was measured.
    median: AtomicU32,
}

impl Default for Answers {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| Bucket::default()).collect())
    }
}

impl Answers {
    /// A request was answered, which came when so many were in flight, itself among them.
    pub fn observe(&self, in_flight: usize, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        self.0[bucket(in_flight)].observe(micros);
    }

    /// How long an answer takes when so many are in flight: what was measured at the nearest count. None before
    /// the first answer.
    pub fn median(&self, in_flight: usize) -> Option<Duration> {
        let at = bucket(in_flight);
        let nearest = (0..BUCKETS).flat_map(|far| [at.checked_sub(far), at.checked_add(far)]);
        let medians = nearest.flatten().filter_map(|at| self.0.get(at)).map(|bucket| bucket.median.load(Relaxed));
        medians.into_iter().find(|median| *median > 0).map(|median| Duration::from_micros(median.into()))
    }
}

impl Bucket {
    fn observe(&self, micros: u32) {
        let at = self.next.fetch_add(1, Relaxed) as usize;
        self.samples[at % SAMPLES].store(micros, Relaxed);
        // Places that none has taken yet are 0, and come first.
        let mut sorted = self.samples.each_ref().map(|sample| sample.load(Relaxed));
        sorted.sort_unstable();
        let free = sorted.iter().filter(|sample| **sample == 0).count();
        self.median.store(sorted[(free + SAMPLES) / 2], Relaxed);
    }
}

fn bucket(in_flight: usize) -> usize {
    let count = in_flight.min(u16::MAX.into());
    if count < 4 {
        return count;
    }
    let doubling = count.ilog2() as usize;
    (doubling - 1) * 4 + (count >> (doubling - 2) & 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_single_up_to_seven_and_then_four_a_doubling() {
        let buckets: Vec<_> = (0..20).map(bucket).collect();
        assert_eq!(buckets, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 12]);
        assert_eq!((bucket(65_535), bucket(usize::MAX)), (BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn the_median_is_of_the_last_ones_at_the_nearest_count() {
        let millis = Duration::from_millis;
        let answers = Answers::default();
        assert_eq!(answers.median(3), None);
        for took in [9, 1, 5] {
            answers.observe(2, millis(took));
        }
        assert_eq!((answers.median(2), answers.median(500)), (Some(millis(5)), Some(millis(5))));
        answers.observe(20, millis(70));
        assert_eq!((answers.median(3), answers.median(21)), (Some(millis(5)), Some(millis(70))));
        for _ in 0..40 {
            answers.observe(2, millis(30));
        }
        assert_eq!(answers.median(2), Some(millis(30)), "what is long ago is forgotten");
        answers.observe(1, Duration::ZERO);
        assert_eq!(answers.median(1), Some(Duration::from_micros(1)));
    }
}
