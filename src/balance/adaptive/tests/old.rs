//! What servers said is old, or will be when a call comes there.

use std::time::Duration;

use super::{Bench, MS, SECOND, told::reporting};

/// Servers have so many calls in flight, and answer each within 10 ms, which takes so long with the way there and back.
fn from_afar(takes: Duration, in_flight: f64) -> Bench {
    let mut bench = reporting(8);
    (0..20).for_each(|_| bench.answer_all(takes));
    for _ in 0..3 {
        bench.now += 6 * MS;
        bench.all_say(in_flight);
        bench.pick();
    }
    bench
}

#[test]
fn what_was_said_long_ago_says_no_more_of_one_than_of_all() {
    for (in_flight, share) in [(1.0, 1_000), (30.0, 0)] {
        let mut bench = reporting(8);
        bench.says(5, in_flight, 10);
        assert_eq!(bench.shares(1_000)[5], share);
        // Not so long that anybody is asked.
        (0..8).filter(|at| *at != 5).for_each(|at| bench.nodes[at].load().refuse_probes());
        bench.now += SECOND;
        bench.pick();
        bench.now += 6 * MS;
        let shares = bench.shares(8_000);
        assert!(shares.iter().all(|share| (800..1_200).contains(share)), "{shares:?}");
    }
}

/// By the time that a call comes there, so have those of all others who heard the same.
#[test]
fn the_longer_the_way_the_fewer_calls_it_sends_where_there_is_less() {
    let to_the_idle = |takes| {
        let mut bench = from_afar(takes, 40.0);
        bench.says(5, 10.0, 10);
        bench.share_of_open(24, 5)
    };
    // A server has another call after 0.25 ms. By then about half of what was said is gone; and more than half of the rest
    // others make up for. What servers say is the lower of two medians: up to a tenth more than that is no way.
    let [near, far] = [11 * MS, 11 * MS + MS / 5].map(to_the_idle);
    assert!((14..=16).contains(&near) && (5..=7).contains(&far), "{near} and {far}");
}

/// Else all that are as far from a server would go to the same, for what says next to nothing.
#[test]
fn what_is_old_when_a_call_comes_there_sets_nobody_apart() {
    // A server has another call after 2.5 ms, and the way takes 20.
    let mut bench = from_afar(30 * MS, 4.0);
    for in_flight in [2.0, 40.0] {
        bench.says(5, in_flight, 10);
        let shares = bench.shares(8_000);
        assert!(shares.iter().all(|share| (800..1_200).contains(share)), "{shares:?}");
    }
}
