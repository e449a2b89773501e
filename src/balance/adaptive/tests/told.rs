//! With what servers say of their load.

use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::{Bench, MS, SECOND};
use crate::{
    balance::{Pick, PickInfo, Probed, Probes, mix, tests::nodes, tests::weighing},
    load::{BriefReport, Outcome},
};

impl Bench {
    /// A server says that it has so many in flight, and how many milliseconds answers take.
    pub(super) fn says(&self, at: usize, in_flight: f64, latency: u64) {
        self.says_it_takes(at, in_flight, MS * latency as u32);
    }

    pub(super) fn says_it_takes(&self, at: usize, in_flight: f64, latency: Duration) {
        let latency = Some(latency).filter(|latency| !latency.is_zero());
        let report = BriefReport { in_flight: Some(in_flight), latency, ..BriefReport::default() };
        self.nodes[at].load().report(&report, self.now);
    }

    /// Calls take longer or shorter for a while, so that what others have more is not taken for chance.
    pub(super) fn calls_differ(&mut self) {
        for _ in 0..20 {
            self.now += 6 * MS;
            self.nodes.iter().for_each(|node| node.load().refuse_probes());
            (0..self.nodes.len()).for_each(|at| self.call(at, MS * [5, 10, 10][at % 3], Outcome::Success));
            self.pick();
        }
    }

    pub(super) fn all_say(&self, in_flight: f64) {
        (0..self.nodes.len()).for_each(|at| self.says(at, in_flight, 10));
    }

    /// What a picker decides that may ask.
    pub(super) fn decides(&mut self) -> Pick {
        self.random = self.random.wrapping_add(1);
        let headers = HeaderMap::new();
        self.picker.pick(&PickInfo::new("/s/m", &headers, self.now, self.drawn()))
    }

    /// Whom it would ask.
    pub(super) fn asks(&mut self) -> Option<Probes> {
        match self.decides() {
            Pick::Probe(probes) => Some(probes),
            _ => None,
        }
    }

    pub(super) fn pick_of(&mut self, probed: Probed<'_>) -> usize {
        let headers = HeaderMap::new();
        let mut info = PickInfo::new("/s/m", &headers, self.now, self.drawn());
        info.probed = Some(probed);
        let Pick::At(at) = self.picker.pick(&info) else { panic!("who was told chooses") };
        at
    }
}

/// A channel whose calls take 10 ms, though not all of them did, and whose servers report.
pub(super) fn reporting(count: usize) -> Bench {
    let mut bench = Bench::new(nodes(count));
    (0..count).for_each(|at| bench.call(at, [5 * MS, 20 * MS][at % 2], Outcome::Success));
    bench.pick();
    (0..40).for_each(|_| bench.answer_all(10 * MS));
    bench.all_say(4.0);
    bench.now += 10 * MS;
    bench.all_say(4.0);
    bench.pick();
    bench.now += 6 * MS;
    bench.all_say(4.0);
    bench
}

/// A channel all of whose calls take as long, and whose servers report.
pub(super) fn alike() -> Bench {
    let mut bench = Bench::new(nodes(8));
    bench.answer_all(10 * MS);
    bench.pick();
    bench.now += 6 * MS;
    bench.all_say(4.0);
    bench
}

#[test]
fn who_says_that_it_is_less_busy_gets_calls_until_it_is_as_busy() {
    let mut bench = reporting(8);
    // Nearly all calls are this channel's.
    let mut held: Vec<_> = (0..80).map(|_| bench.start()).collect();
    bench.all_say(11.0);
    bench.now += 6 * MS;
    bench.pick();
    bench.all_say(14.0);
    bench.says(5, 11.0, 10);
    held.extend((0..3).map(|_| bench.start()));
    assert!(held[80..].iter().all(|(at, _)| *at == 5), "they are counted in what it has");
    held.extend((0..7).map(|_| bench.start()));
    assert_eq!(held.iter().filter(|(at, _)| *at == 5).count(), 13, "then the others get one each");
}

/// All clients see it, and all together are to make up for it.
#[test]
fn the_less_there_is_of_this_channel_the_fewer_calls_it_sends_where_there_is_less() {
    let mut bench = reporting(8);
    bench.says(5, 1.0, 10);
    let held: Vec<_> = (0..3).map(|_| bench.start()).collect();
    assert_eq!(held.iter().filter(|(at, _)| *at == 5).count(), 2, "and not three");
    drop(held);
    let shares = bench.shares(7_000);
    assert_eq!(shares[5], 7_000, "{shares:?}");
}

/// Work that is sent evenly stays even there, and who has more has it for a moment.
#[test]
fn where_all_calls_take_as_long_what_others_have_counts_for_little() {
    let mut bench = alike();
    bench.says(5, 1.0, 10);
    bench.pick();
    let held: Vec<_> = (0..16).map(|_| bench.start()).collect();
    let to_the_idle = held.iter().filter(|(at, _)| *at == 5).count();
    assert!((2..=3).contains(&to_the_idle), "one more than its share, and not three: {to_the_idle}");
    drop(held);
    bench.says(5, 40.0, 10);
    assert_eq!(bench.share_of_open(40, 5), 0, "chance does not explain so much");
}

/// Else who has next to nothing less than others would get all calls.
#[test]
fn where_all_calls_take_as_long_less_than_a_request_makes_no_difference() {
    let mut bench = alike();
    bench.says(5, 3.0, 10);
    bench.pick();
    let shares = bench.shares(8_000);
    assert!(shares.iter().all(|share| (800..1_200).contains(share)), "{shares:?}");
    bench.calls_differ();
    bench.all_say(4.0);
    bench.says(5, 3.0, 10);
    assert_eq!(bench.shares(100)[5], 100);
}

#[test]
fn one_that_lies_gets_no_more_than_it_is_seen_to_do() {
    let mut bench = reporting(10);
    // Idle, says one, and it is the quickest.
    bench.says(3, 0.0, 0);
    let held: Vec<_> = (0..100).map(|_| bench.start()).collect();
    let to_the_liar = held.iter().filter(|(at, _)| *at == 3).count();
    assert!((8..=20).contains(&to_the_liar), "{to_the_liar}");
    // And one that says that it has a million moves no other's share.
    let mut bench = reporting(10);
    bench.says(3, 1e6, 10_000);
    bench.now += 6 * MS;
    (0..10).filter(|at| *at != 3).for_each(|at| bench.says(at, 4.0, 10));
    let shares = bench.shares(9_000);
    assert_eq!(shares[3], 0);
    assert!(shares.iter().enumerate().all(|(at, share)| at == 3 || (800..1_200).contains(share)), "{shares:?}");
}

#[test]
fn who_says_nothing_gets_its_share_where_others_report() {
    let mut bench = Bench::new(nodes(8));
    bench.answer_all(10 * MS);
    bench.now += 6 * MS;
    (0..6).for_each(|at| bench.says(at, 4.0, 10));
    let held: Vec<_> = (0..400).map(|_| bench.start()).collect();
    for at in 0..8 {
        let share = held.iter().filter(|(is, _)| *is == at).count();
        assert!((35..=65).contains(&share), "{at}: {share}");
    }
}

#[test]
fn one_that_comes_anew_gets_its_first_calls_though_all_others_are_busy() {
    let mut bench = reporting(8);
    bench.now += 20 * SECOND;
    bench.comes_anew();
    for _ in 0..2 {
        bench.now += 6 * MS;
        (0..8).for_each(|at| bench.says(at, 40.0, 100));
        bench.pick();
    }
    bench.now += 4 * MS;
    (0..8).for_each(|at| bench.says(at, 40.0, 100));
    let to_the_new = bench.share_of_open(8, 8);
    assert!((2..8).contains(&to_the_new), "{to_the_new}");
}

/// Else all clients that call seldom would go there at once.
#[test]
fn one_that_comes_anew_is_as_any_where_nothing_is_known_of_the_others_either() {
    let mut bench = reporting(8);
    bench.now += 20 * SECOND;
    bench.comes_anew();
    bench.nodes.iter().for_each(|node| node.load().refuse_probes());
    bench.pick();
    bench.now += 20 * SECOND;
    bench.pick();
    let shares = bench.shares(9_000);
    assert!(shares.iter().all(|share| (800..1_200).contains(share)), "{shares:?}");
}

#[test]
fn what_is_in_flight_counts_by_weight() {
    let mut bench = Bench::new(weighing(&[100, 300, 600]));
    bench.answer_all(10 * MS);
    bench.now += 6 * MS;
    [1.0, 3.0, 6.0].into_iter().enumerate().for_each(|(at, in_flight)| bench.says(at, in_flight * 4.0, 10));
    bench.pick();
    let held: Vec<_> = (0..1_000).map(|_| bench.start()).collect();
    for (at, share) in [100.0, 300.0, 600.0].into_iter().enumerate() {
        let got = held.iter().filter(|(is, _)| *is == at).count() as f64;
        assert!((got / share - 1.0).abs() < 0.15, "{at}: {got}");
    }
}

#[test]
fn who_says_that_it_is_slow_gets_less() {
    let mut bench = reporting(10);
    bench.says(2, 4.0, 50);
    let to_the_slow = bench.share_of_open(200, 2);
    assert!(to_the_slow <= 4, "{to_the_slow}");
}

/// Who has all calls sees in what waits who is slow; of many clients each has too few calls for that. They are counted now,
/// and not where they were when a server said what it has.
#[test]
fn slowness_counts_for_more_where_the_calls_are_others() {
    for (others, own, share) in [(0.0, 1, 4..=6), (40.0, 1, 0..=2), (1.0, 0, 0..=1)] {
        let mut bench = reporting(10);
        let start = |bench: &Bench| bench.nodes.iter().map(|node| node.load().start(bench.now)).collect::<Vec<_>>();
        let mut held = start(&bench);
        for _ in 0..2 {
            bench.now += 6 * MS;
            bench.all_say(1.0 + others);
            bench.says(2, 1.0 + others, 53);
            held.truncate(10 * own);
            bench.pick();
            held = start(&bench);
        }
        held.clear();
        let to_the_slow = bench.share_of_open(9 * 20, 2);
        assert!(share.contains(&to_the_slow), "{own} of its own beside {others}: {to_the_slow}");
    }
}

/// A queue is counted once: as requests in flight, and not as slowness too, which would have all clients leave at once.
#[test]
fn that_more_waits_at_a_server_does_not_make_it_slow() {
    let mut bench = reporting(10);
    for _ in 0..300 {
        bench.now += 6 * MS;
        for at in 0..10 {
            bench.random = mix(bench.random);
            let in_flight = 2 + bench.random % 7;
            bench.says(at, in_flight as f64 - 1.0, in_flight * 2);
        }
        bench.pick();
    }
    bench.now += 6 * MS;
    (0..10).for_each(|at| bench.says(at, 4.0, 10));
    bench.pick();
    bench.says(2, 16.0, 34);
    // Then nine others have as many as this channel is to give them, and from then on all get the same.
    let to_the_busy = bench.share_of_open(9 * 5 + 40, 2);
    assert!((2..=5).contains(&to_the_busy), "{to_the_busy}");
}

/// What others have at a new server it says itself; and how it fares too, once it has answered.
#[test]
fn one_that_comes_later_has_less_of_this_channels_calls_until_it_says_how_it_fares() {
    for (latency, share) in [(0, 1..=3), (10, 17..=23), (40, 0..=3)] {
        let mut bench = reporting(9);
        bench.now += 60 * SECOND;
        bench.comes_anew();
        for _ in 0..3 {
            bench.now += 6 * MS;
            bench.all_say(4.0);
            bench.says(9, 4.0, latency);
            bench.pick();
        }
        let to_the_new = bench.share_of_open(9 * 20, 9);
        assert!(share.contains(&to_the_new), "{latency} ms: {to_the_new}");
    }
}

/// Where others are as busy everywhere, they see as well which server is slow.
#[test]
fn who_is_slow_has_less_of_this_channels_calls_not_more_of_others() {
    let mut bench = reporting(10);
    (0..10).for_each(|at| bench.call(at, 10 * MS, Outcome::Success));
    (0..4).for_each(|_| bench.call(2, 40 * MS, Outcome::Success));
    for _ in 0..3 {
        bench.now += 6 * MS;
        bench.all_say(8.0);
        bench.pick();
    }
    bench.says(2, 1.0, 10);
    assert_eq!(bench.shares(100)[2], 100, "it has so much less to do that it will be done first");
    let to_the_slow = bench.share_of_open(9 * 20, 2);
    assert!((9..=12).contains(&to_the_slow), "{to_the_slow}");
}

#[test]
fn own_calls_are_counted_as_they_are_and_of_others_what_was_said() {
    let mut bench = reporting(4);
    // Of the four that each has one is this channel's own: when that ends it has three.
    let mut held: Vec<_> = (0..4).map(|at| bench.nodes[at].load().start(bench.now)).collect();
    bench.all_say(4.0);
    bench.now += 6 * MS;
    bench.all_say(4.0);
    bench.pick();
    drop(held.remove(2));
    assert_eq!(bench.shares(400), [0, 0, 400, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever servers say, and whoever was asked, there is a pick, of an endpoint that was not tried.
    #[test]
    fn there_is_a_pick_whatever_servers_say(
        count in prop_oneof![1_usize..6, Just(128), 129_usize..140],
        says in proptest::collection::vec((any::<u16>(), any::<f64>(), 0_u64..100_000, 0_u32..2_000), 1..100),
        tried in proptest::collection::vec(0_usize..140, 0..4),
    ) {
        let mut bench = Bench::new(nodes(count));
        let tried: Vec<_> = tried.into_iter().filter(|at| *at + 1 < count).collect();
        for (at, in_flight, latency, wait) in says {
            bench.now += MS * wait;
            let at = usize::from(at) % count;
            bench.says(at, in_flight.abs().min(f64::MAX), latency);
            bench.call(at, MS * latency as u32, Outcome::Success);
            bench.random = mix(bench.random);
            let headers = HeaderMap::new();
            let mut info = PickInfo::new("/s/m", &headers, bench.now, bench.random);
            info.tried = &tried;
            let pick = bench.picker.pick(&info);
            let (asked, answered);
            let pick = if let Pick::Probe(probes) = pick {
                asked = probes.at().to_vec();
                prop_assert!(asked.iter().all(|at| *at < count && !tried.contains(at)));
                answered = asked[..asked.len() / 2].to_vec();
                info.probed = Some(Probed::new(&asked, &answered, MS));
                bench.picker.pick(&info)
            } else {
                pick
            };
            let Pick::At(at) = pick else { panic!("{pick:?}") };
            prop_assert!(at < count && !tried.contains(&at));
        }
    }
}
