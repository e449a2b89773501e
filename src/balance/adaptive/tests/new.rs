//! With endpoints that come later than the others.

use super::{Bench, MS, SECOND};
use crate::balance::tests::{nodes, weighing};

impl Bench {
    /// All endpoints are looked at from the beginning.
    fn calls_for_a_minute(&mut self) {
        for _ in 0..600 {
            self.now += 100 * MS;
            self.pick();
        }
    }
}

#[test]
fn one_that_comes_later_gets_its_share_by_and_by() {
    for count in [9, 199] {
        let mut bench = Bench::new(nodes(count));
        bench.calls_for_a_minute();
        bench.comes_anew();
        let mut shares = Vec::new();
        for _ in 0..4 {
            shares.push(bench.share_of_open((count + 1) * 100, count));
            bench.now += 5 * SECOND;
        }
        for (share, range) in shares.iter().zip([5..20, 40..75, 75..140, 75..140]) {
            assert!(range.contains(share), "{count}: {shares:?}");
        }
    }
}

/// Where all are idle the least score takes the call, and who is new would get none.
#[test]
fn one_that_comes_later_gets_its_share_where_all_are_idle() {
    for (others, whole) in [(nodes(4), 0.2), (weighing(&[100, 100, 200, 100]), 1.0 / 6.0), (nodes(199), 0.005)] {
        let mut bench = Bench::new(others);
        bench.calls_for_a_minute();
        let new = bench.nodes.len();
        bench.comes_anew();
        for part in [0.325, 0.775, 1.0] {
            let mut calls = 0;
            for _ in 0..50_000 {
                bench.now += 5 * SECOND / 50_000;
                calls += u32::from(bench.pick() == new);
            }
            let share = f64::from(calls) / 50_000.0 / whole;
            assert!((part - 0.15..part + 0.15).contains(&share), "{new}: {share} of its share rather than {part}");
        }
    }
}

#[test]
fn none_begins_slowly_when_all_are_new() {
    let mut bench = Bench::new(nodes(2));
    bench.calls_for_a_minute();
    bench.nodes = nodes(6);
    bench.rebuild();
    let held: Vec<_> = (0..600).map(|_| bench.start()).collect();
    assert!(bench.nodes.iter().all(|node| node.load().in_flight() == 100), "{}", held.len());
}
