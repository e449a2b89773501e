//! With servers that are faster than others.

use super::{Bench, MS};
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
        // Nobody has more than another now, and no answer is slow.
        (0..latencies.len()).for_each(|at| self.says(at, 8.0, 10));
        self.pick();
    }
}

/// Though others' requests are as many everywhere.
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

#[test]
fn who_is_about_as_fast_gets_as_much() {
    let mut bench = Bench::new(nodes(4));
    bench.answer_all(10 * MS);
    bench.all_take(60, &[30, 29, 30, 30], 0);
    assert_eq!(bench.share_of_open(400, 1), 100);
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
