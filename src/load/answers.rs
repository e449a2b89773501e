//! How long a server takes to answer, by how many requests it has in flight.

use std::time::{Duration, Instant};

use super::clock::{micros, seconds, unit};
use crate::util::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How long a server takes to answer, by how many requests it has in flight: the last 8 latencies at about each
/// count, and their medians, as [Prequal](https://www.usenix.org/conference/nsdi24/presentation/wydrowski)'s
/// servers answer to probes. Of an even number it is the lower: where one call in ten takes long, four of eight do often enough.
///
/// A median that nothing was added to for 20 times as long as it is, is left out once, and again after as long: whoever hears
/// none from a server that seemed slow tries it with one call. Else one that was slow by chance would say so to all who ask, get
/// no calls, and have nothing else to say.
///
/// [`RegistrationLayer`](crate::server::RegistrationLayer) has one; this is for who counts requests otherwise, and
/// reports them in a [`BriefReport`](super::BriefReport) or as the metrics named there.
#[derive(Debug)]
pub struct Answers(Box<[Bucket]>);

/// Few, so that a server that becomes slow is seen to be soon.
const SAMPLES: usize = 8;
/// After so many times the median nothing says that it still holds.
const LASTS: f32 = 20.0;
/// Single counts up to 7, then four in each doubling, up to 65 535 and more.
const BUCKETS: usize = 60;

#[derive(Debug, Default)]
struct Bucket {
    /// In microseconds, at least 1; 0 where none was measured.
    samples: [AtomicU32; SAMPLES],
    next: AtomicU32,
    /// When the last was, or when the median was left out since, in [units](unit).
    at: AtomicU32,
}

impl Default for Answers {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| Bucket::default()).collect())
    }
}

impl Answers {
    /// A request was answered now, which came when so many were in flight, itself among them.
    pub fn observe(&self, in_flight: usize, took: Duration, now: Instant) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        self.0[bucket(in_flight)].observe(took, unit(micros(now)));
    }

    /// How long an answer takes when so many are in flight: what was measured at the nearest count. None before
    /// the first answer, and once whenever that is old.
    pub fn median(&self, in_flight: usize, now: Instant) -> Option<Duration> {
        let at = bucket(in_flight);
        let nearest = (0..BUCKETS).flat_map(|far| [at.checked_sub(far), at.checked_add(far)]);
        let mut measured = nearest.flatten().filter_map(|at| self.0.get(at));
        measured.find(|bucket| bucket.is_measured())?.say(unit(micros(now)))
    }
}

impl Bucket {
    fn observe(&self, micros: u32, now: u32) {
        let at = self.next.fetch_add(1, Relaxed) as usize;
        self.samples[at % SAMPLES].store(micros, Relaxed);
        self.at.store(now, Relaxed);
    }

    fn is_measured(&self) -> bool {
        self.samples[0].load(Relaxed) > 0
    }

    /// The median, unless it is old and nobody found that before. Found when it is asked for, as not all who count are.
    fn say(&self, now: u32) -> Option<Duration> {
        // Places that none has taken yet are 0, and come first.
        let mut sorted = self.samples.each_ref().map(|sample| sample.load(Relaxed));
        sorted.sort_unstable();
        let free = sorted.iter().take_while(|sample| **sample == 0).count();
        let (median, at) = (Duration::from_micros(sorted[(free + SAMPLES - 1) / 2].into()), self.at.load(Relaxed));
        let is_old = seconds(at, now) > LASTS * median.as_secs_f32();
        let is_left_out = is_old && self.at.swap(now, Relaxed) == at;
        (!is_left_out).then_some(median)
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

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_median_is_of_the_last_ones_at_the_nearest_count() {
        let (answers, now) = (Answers::default(), Instant::now());
        assert_eq!(answers.median(3, now), None);
        for took in [9, 1, 5] {
            answers.observe(2, millis(took), now);
        }
        assert_eq!((answers.median(2, now), answers.median(500, now)), (Some(millis(5)), Some(millis(5))));
        answers.observe(20, millis(70), now);
        assert_eq!((answers.median(3, now), answers.median(21, now)), (Some(millis(5)), Some(millis(70))));
        for _ in 0..40 {
            answers.observe(2, millis(30), now);
        }
        assert_eq!(answers.median(2, now), Some(millis(30)), "what is long ago is forgotten");
        answers.observe(1, Duration::ZERO, now);
        assert_eq!(answers.median(1, now), Some(Duration::from_micros(1)));
    }

    #[test]
    fn where_half_took_long_it_is_what_the_other_half_took() {
        for (long, short) in [(1, 1), (2, 2), (4, 4)] {
            let (answers, now) = (Answers::default(), Instant::now());
            (0..short).for_each(|_| answers.observe(1, millis(3), now));
            (0..long).for_each(|_| answers.observe(1, millis(70), now));
            assert_eq!(answers.median(1, now), Some(millis(3)), "{long} of {}", long + short);
            answers.observe(1, millis(70), now);
            answers.observe(1, millis(70), now);
            assert_eq!(answers.median(1, now), Some(millis(70)));
        }
    }

    #[test]
    fn what_was_measured_long_ago_is_left_out_once_in_a_while() {
        let (answers, begun) = (Answers::default(), Instant::now());
        let said = |after: u64| answers.median(1, begun + millis(after)).is_some();
        answers.observe(1, millis(5), begun);
        answers.observe(9, millis(50), begun);
        let heard: Vec<_> = [99, 102, 103, 200, 204, 205].into_iter().filter(|after| said(*after)).collect();
        assert_eq!(heard, [99, 103, 200, 205]);
        assert!(answers.median(9, begun + millis(999)).is_some(), "each count for itself");
        answers.observe(1, millis(5), begun + millis(300));
        assert!(said(399), "it was measured again");
    }
}
