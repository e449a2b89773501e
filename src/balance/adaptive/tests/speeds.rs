//! With servers that are faster or slower than others for good.

use std::time::Duration;

use super::{Bench, MS, SECOND};
use crate::balance::{
    mix,
    tests::{nodes, weighing},
};

impl Bench {
    /// Servers say so many times that answers take so many milliseconds, give or take so many, with as many in flight.
    fn all_take(&mut self, times: usize, latencies: &[u64], chance: u64) {
        for _ in 0..times {
            self.now += 100 * MS;
            for (at, latency) in latencies.iter().enumerate() {
                self.random = mix(self.random);
                // Nobody is asked.
                self.nodes[at].load().refuse_probes();
                self.says(at, 8.0, latency - chance + self.random % (2 * chance + 1));
            }
            self.pick();
        }
        self.now += 100 * MS;
        // Nobody has anything now, and no answer is slow.
        (0..latencies.len()).for_each(|at| self.says(at, 0.0, 10));
        self.pick();
    }
}

#[test]
fn who_is_faster_for_good_gets_as_much_more() {
    for idle in [false, true] {
        let mut bench = Bench::new(if idle { weighing(&[100, 100, 101]) } else { nodes(3) });
        bench.answer_all(10 * MS);
        bench.all_take(60, &[30, 10, 30], 2);
        if idle {
            let shares = bench.shares(5_000);
            assert!((2_700..3_300).contains(&shares[1]), "three times the others': {shares:?}");
        } else {
            let fast = bench.share_of_open(500, 1);
            assert!((270..330).contains(&fast), "three times the others': {fast}");
        }
        // Another process may be as slow as any.
        bench.nodes[1].load().forget_reports();
        bench.all_take(60, &[30, 30, 30], 2);
        let even = bench.share_of_open(300, 1);
        assert!((85..115).contains(&even), "{even}");
    }
}

/// Also where that is too little for any answer to be slow, and however slow others are.
#[test]
fn who_is_slower_for_good_gets_as_much_less() {
    for slowest in [20, 200] {
        let mut bench = Bench::new(nodes(5));
        bench.answer_all(10 * MS);
        bench.all_take(60, &[20, 20, 24, 20, slowest], 2);
        bench.says(4, 80.0, 10);
        let slow = bench.share_of_open(400, 2);
        assert!((78..92).contains(&slow), "as others take five sixths as long, with {slowest}: {slow}");
    }
}

/// As far as calls wait for each other, half as many at one that weighs half take as long; as far as there is room they
/// take longer, and that is no news.
#[test]
fn what_a_weight_says_counts_once() {
    let mut bench = Bench::new(weighing(&[100, 25, 100]));
    bench.answer_all(10 * MS);
    for _ in 0..400 {
        bench.now += 100 * MS;
        for at in 0..3 {
            bench.random = mix(bench.random);
            let many = 16.0 + (bench.random % 256) as f64;
            bench.nodes[at].load().refuse_probes();
            let (many, latency) = if at == 1 { (many / 4.0, 4.0) } else { (many, 1.0) };
            bench.says(at, many, (latency * (many * 4.0).sqrt()) as u64);
        }
        bench.pick();
    }
    bench.now += 100 * MS;
    (0..3).for_each(|at| bench.says(at, 0.0, 10));
    let light = bench.share_of_open(900, 1);
    assert!((92..108).contains(&light), "{light}");
}

#[test]
fn who_is_faster_for_good_is_as_busy_with_as_many_more() {
    let mut bench = Bench::new(nodes(3));
    bench.answer_all(10 * MS);
    bench.all_take(60, &[30, 10, 30], 0);
    bench.calls_differ();
    for (many, is_least) in [(21.0, true), (30.0, false)] {
        [8.0, many, 8.0].into_iter().enumerate().for_each(|(at, many)| bench.says(at, many, 10));
        assert_eq!(bench.shares(100)[1] > 0, is_least, "{many}");
    }
}

#[test]
fn who_is_about_as_fast_gets_as_much() {
    for about in [27, 29, 33] {
        let mut bench = Bench::new(nodes(4));
        bench.answer_all(10 * MS);
        bench.all_take(60, &[30, about, 30, 30], 0);
        assert_eq!(bench.share_of_open(400, 1), 100, "{about}");
    }
}

/// Else one that needs a few microseconds less would get all calls that find everyone idle.
#[test]
fn what_wakes_up_a_little_later_is_no_slower() {
    let mut bench = Bench::new(nodes(3));
    bench.answer_all(MS);
    for _ in 0..300 {
        bench.now += 10 * MS;
        for (at, micros) in [70, 50, 60].into_iter().enumerate() {
            bench.nodes[at].load().refuse_probes();
            bench.says_it_takes(at, 0.0, Duration::from_micros(micros));
        }
        bench.pick();
    }
    bench.now += SECOND;
    for share in bench.shares(3_000) {
        assert!((900..1_100).contains(&share), "{share}");
    }
}

/// Nor when little was heard of each, for the most part.
#[test]
fn chance_makes_nobody_faster() {
    for (times, at_most) in [(8, 108), (16, 104), (200, 100)] {
        let most = (0..20).map(|seed| {
            let mut bench = Bench::new(nodes(5));
            bench.random = seed;
            bench.answer_all(10 * MS);
            bench.all_take(times, &[20; 5], 15);
            (0..5).map(|at| bench.share_of_open(500, at)).max().unwrap_or(0)
        });
        let most = most.sum::<usize>() / 20;
        assert!(most <= at_most, "{times} times: the most has {most} of 100");
    }
}
