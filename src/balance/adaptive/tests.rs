use std::time::{Duration, Instant};

use http::HeaderMap;
use proptest::prelude::*;

use crate::{
    balance::{
        Balancer, Node, Pick, PickInfo, Picker, mix,
        tests::{nodes, weighing},
    },
    load::{CallGuard, Outcome, micros},
};

mod asked;
mod late;
mod new;
mod old;
mod speeds;
mod told;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A channel's balancer, its picker, and the time.
struct Bench {
    balancer: super::Adaptive,
    picker: Box<dyn Picker>,
    nodes: Vec<Node>,
    now: Instant,
    random: u64,
}

impl Bench {
    fn new(nodes: Vec<Node>) -> Self {
        let mut balancer = super::Adaptive::new();
        let picker = balancer.rebuild(&nodes);
        Self { balancer, picker, nodes, now: Instant::now(), random: 42 }
    }

    fn rebuild(&mut self) {
        self.picker = self.balancer.rebuild(&self.nodes);
    }

    /// A call's random number: not made of the last one's, as pickers make more of one likewise.
    fn drawn(&self) -> u64 {
        mix(self.random)
    }

    fn pick_but(&mut self, tried: &[usize]) -> Option<usize> {
        self.random = self.random.wrapping_add(1);
        let headers = HeaderMap::new();
        let mut info = PickInfo::new("/s/m", &headers, self.now, self.drawn());
        info.tried = tried;
        match self.picker.pick(&info) {
            Pick::At(at) => Some(at),
            _ => None,
        }
    }

    fn pick(&mut self) -> usize {
        self.pick_but(&[]).expect("there are endpoints")
    }

    fn start(&mut self) -> (usize, CallGuard) {
        let at = self.pick();
        (at, self.nodes[at].load().start(self.now))
    }

    /// How many of so many calls, one at a time, each would get.
    fn shares(&mut self, calls: usize) -> Vec<usize> {
        let mut shares = vec![0; self.nodes.len()];
        (0..calls).for_each(|_| shares[self.pick()] += 1);
        shares
    }

    /// How many of so many calls that all stay open one gets.
    fn share_of_open(&mut self, calls: usize, at: usize) -> usize {
        let open: Vec<_> = (0..calls).map(|_| self.start()).collect();
        open.iter().filter(|(is, _)| *is == at).count()
    }

    /// One more endpoint comes.
    fn comes_anew(&mut self) {
        let more = nodes(self.nodes.len() + 1).pop().expect("one more");
        self.nodes.push(more);
        self.rebuild();
    }

    /// A call to one that ends after a while.
    fn call(&self, at: usize, took: Duration, outcome: Outcome) {
        self.nodes[at].load().start(self.now).finish(outcome, self.now + took);
    }

    fn answer_all(&self, took: Duration) {
        (0..self.nodes.len()).for_each(|at| self.call(at, took, Outcome::Success));
    }
}

#[test]
fn of_equals_that_are_busy_the_one_is_picked_that_will_be_done_first() {
    let mut bench = Bench::new(nodes(4));
    bench.answer_all(10 * MS);
    let mut held = Vec::new();
    for at in [2, 0, 3, 1] {
        held.push((at, bench.nodes[at].load().start(bench.now)));
        bench.nodes[at].load().picked(micros(bench.now));
        bench.now += 2 * MS;
    }
    // As all are picked in turn, and one is late after 20 ms.
    let order: Vec<_> = (0..8).map(|_| bench.pick()).collect();
    assert_eq!(order[..4], [2, 0, 3, 1], "{order:?}");
    let (late, now) = (bench.now + 21 * MS, bench.now);
    bench.nodes[3].load().picked(micros(now - MS));
    [0, 1].iter().for_each(|at| bench.nodes[*at].load().picked(micros(now + 2 * MS)));
    bench.now = late;
    bench.nodes[2].load().picked(micros(now));
    assert!([0, 1].contains(&bench.pick()), "what takes 21 ms where 10 is usual may take any time");
}

#[test]
fn the_least_busy_is_picked_and_chance_among_equals() {
    let mut bench = Bench::new(nodes(8));
    for share in bench.shares(16_000) {
        assert!((1_800..2_200).contains(&share), "{share}");
    }
    let mut held: Vec<_> = (0..80).map(|_| bench.start()).collect();
    assert!(bench.nodes.iter().all(|node| node.load().in_flight() == 10), "they fill evenly");
    held.retain(|(at, _)| *at != 5);
    assert_eq!(bench.shares(1_000)[5], 1_000);
    held.clear();
    assert!(bench.nodes.iter().all(|node| node.load().in_flight() == 0));
}

#[test]
fn the_slow_is_left_out_and_tried_again_by_and_by() {
    let mut bench = Bench::new(nodes(5));
    bench.answer_all(10 * MS);
    bench.call(3, 400 * MS, Outcome::Success);
    bench.call(3, 400 * MS, Outcome::Success);
    bench.now += SECOND;
    assert_eq!(bench.shares(1_000)[3], 0);
    // It gets a call when the others have many times more.
    let others = [0, 1, 2, 4].map(|at| (0..400).map(|_| bench.nodes[at].load().start(bench.now)).collect::<Vec<_>>());
    assert_eq!(bench.shares(1_000)[3], 1_000);
    drop(others);
    for _ in 0..600 {
        bench.now += 500 * MS;
        bench.pick();
    }
    let shares = bench.shares(1_000);
    assert!((150..250).contains(&shares[3]), "who was slow long ago is like any other: {shares:?}");
}

/// Though idle, and though weights leave the choice among idle ones to chance.
#[test]
fn the_slow_is_left_out_whatever_the_others_weigh() {
    let mut bench = Bench::new(weighing(&[100, 100, 400]));
    bench.answer_all(10 * MS);
    (0..8).for_each(|_| bench.call(0, 100 * MS, Outcome::Success));
    bench.now += 10 * MS;
    bench.pick();
    bench.now += 10 * MS;
    let shares = bench.shares(10_000);
    assert!(shares[0] == 0 && shares[1] > 1_000, "{shares:?}");
}

#[test]
fn what_a_late_wake_up_takes_makes_nobody_slow() {
    let mut bench = Bench::new(nodes(5));
    bench.answer_all(MS / 20);
    (0..20).for_each(|_| bench.call(3, MS / 4, Outcome::Success));
    bench.now += SECOND / 100;
    let shares = bench.shares(1_000);
    assert!((150..250).contains(&shares[3]), "five times slower, and by less than a wake-up: {shares:?}");
    (0..20).for_each(|_| bench.call(3, MS, Outcome::Success));
    bench.now += SECOND / 100;
    assert_eq!(bench.shares(1_000)[3], 0);
}

#[test]
fn the_failing_is_set_aside_tried_by_one_call_and_trusted_again() {
    let mut bench = Bench::new(nodes(4));
    bench.answer_all(10 * MS);
    bench.call(1, MS, Outcome::Failure);
    bench.now += 300 * MS;
    assert_eq!(bench.shares(1_000)[1], 0);
    // The others are busier: one call tries it.
    bench.now += SECOND;
    let _busy: Vec<_> = [0, 2, 3].map(|at| bench.nodes[at].load().start(bench.now)).into();
    let (at, trial) = bench.start();
    assert_eq!(at, 1);
    assert_eq!(bench.shares(1_000)[1], 0, "one at a time");
    trial.finish(Outcome::Success, bench.now + 10 * MS);
    for _ in 0..5 {
        let (at, trial) = bench.start();
        assert_eq!(at, 1);
        trial.finish(Outcome::Success, bench.now + 10 * MS);
    }
    let calls: Vec<_> = (0..8).map(|_| bench.start()).collect();
    assert!(calls.iter().filter(|(at, _)| *at == 1).count() > 1, "and then as any other");
}

/// And is not set aside for it any more.
#[test]
fn who_fails_now_and_then_gets_calls_where_the_others_are_busy() {
    let mut bench = Bench::new(nodes(4));
    bench.answer_all(10 * MS);
    for _ in 0..3 {
        (0..19).for_each(|_| bench.call(1, 10 * MS, Outcome::Success));
        bench.call(1, 10 * MS, Outcome::Failure);
    }
    bench.now += SECOND;
    bench.call(1, 10 * MS, Outcome::Success);
    bench.pick();
    bench.now += 10 * MS;
    assert_eq!(bench.shares(1_000)[1], 0, "the others are idle");
    let to_the_failing = bench.share_of_open(120, 1);
    assert!((24..30).contains(&to_the_failing), "{to_the_failing}");
    bench.now += 20 * SECOND;
    bench.pick();
    bench.now += 10 * MS;
    assert!(bench.shares(1_000)[1] > 200, "it is forgotten where nothing is heard");
}

#[test]
fn each_time_it_fails_it_is_set_aside_for_longer() {
    let mut bench = Bench::new(nodes(2));
    // One answer, which makes the first failure count half.
    bench.answer_all(10 * MS);
    let mut waits = Vec::new();
    for _ in 0..8 {
        bench.call(0, MS, Outcome::Failure);
        let begun = bench.now;
        while bench.shares(20)[0] == 0 {
            bench.now += 100 * MS;
        }
        waits.push((bench.now - begun).as_secs_f64());
    }
    for (wait, expected) in waits.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]) {
        assert!((expected * 0.8..expected * 1.2 + 0.2).contains(wait), "{waits:?}");
    }
}

#[test]
fn faults_that_all_have_set_nobody_aside() {
    let mut bench = Bench::new(nodes(10));
    for at in 0..10 {
        (0..50).for_each(|n| {
            let outcome = if n % 2 == 0 { Outcome::Fault } else { Outcome::Success };
            bench.call(at, MS, outcome);
        });
    }
    assert!(bench.shares(5_000).iter().all(|share| *share > 100));
    // One that has nothing else is left out.
    (0..50).for_each(|_| bench.call(7, MS, Outcome::Fault));
    bench.now += 10 * MS;
    (0..10).filter(|at| *at != 7).for_each(|at| (0..50).for_each(|_| bench.call(at, MS, Outcome::Success)));
    bench.call(7, MS, Outcome::Fault);
    bench.now += 10 * MS;
    assert_eq!(bench.shares(1_000)[7], 0);
}

#[test]
fn where_most_fail_those_that_do_not_get_the_calls() {
    for count in [10, 300] {
        let mut bench = Bench::new(nodes(count));
        for at in 0..count {
            let outcome = if at % 10 < 6 { Outcome::Failure } else { Outcome::Success };
            (0..20).for_each(|_| bench.call(at, MS, outcome));
        }
        let good: usize = bench.shares(2_000).iter().enumerate().filter(|(at, _)| at % 10 >= 6).map(|(_, n)| n).sum();
        assert!(good > 1_980, "{good} of {count}");
        // And where all do, all get some.
        for at in 0..count {
            (0..1_000).for_each(|_| bench.call(at, MS, Outcome::Failure));
        }
        bench.now += 10 * MS;
        let shares = bench.shares(count * 100);
        assert!(shares.iter().all(|share| *share > 20), "{shares:?}");
    }
}

#[test]
fn who_has_no_room_is_spared_for_about_a_call() {
    let mut bench = Bench::new(nodes(3));
    bench.answer_all(20 * MS);
    bench.call(2, MS, Outcome::Overload);
    bench.now += 10 * MS;
    assert_eq!(bench.shares(300)[2], 0);
    bench.now += 20 * MS;
    assert!(bench.shares(300)[2] > 50);
}

#[test]
fn weights_are_honoured_idle_and_busy() {
    for copies in [1, 50] {
        let weights = [100, 300, 600].repeat(copies);
        let mut bench = Bench::new(weighing(&weights));
        let by_weight = |shares: &[usize]| [0, 1, 2].map(|n| shares.iter().skip(n).step_by(3).sum::<usize>());
        let idle = by_weight(&bench.shares(20_000));
        let held: Vec<_> = (0..4_000 * copies).map(|_| bench.start()).collect();
        let busy: Vec<_> = bench.nodes.iter().map(|node| node.load().in_flight() as usize).collect();
        let busy = by_weight(&busy);
        for (n, share) in [0.1, 0.3, 0.6].into_iter().enumerate() {
            let near = |part: usize, of: f64| (part as f64 / of / share - 1.0).abs() < 0.1;
            assert!(near(idle[n], 20_000.0), "{copies}: idle {idle:?}");
            assert!(near(busy[n], 4_000.0 * copies as f64), "{copies}: busy {busy:?}");
        }
        drop(held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happened, there is a pick, of an endpoint that was not tried, unless all were.
    #[test]
    fn there_is_a_pick_whatever_happened(
        count in prop_oneof![1_usize..6, Just(128), 129_usize..140],
        ends in proptest::collection::vec((any::<u16>(), 0_u8..6, 0_u32..10_000), 0..200),
        tried in proptest::collection::vec(0_usize..140, 0..8),
    ) {
        let mut bench = Bench::new(nodes(count));
        let mut open = Vec::new();
        for (at, how, wait) in ends {
            bench.now += MS * wait;
            let (picked, guard) = bench.start();
            prop_assert!(picked < count);
            open.push(guard);
            let guard = open.swap_remove(usize::from(at) % open.len());
            match how {
                0 => guard.finish(Outcome::Success, bench.now),
                1 => guard.finish(Outcome::Failure, bench.now),
                2 => guard.finish(Outcome::Fault, bench.now),
                3 => guard.finish(Outcome::Overload, bench.now),
                4 => guard.finish(Outcome::Late, bench.now),
                _ => drop(guard),
            }
        }
        let all: Vec<_> = (0..count).collect();
        prop_assert_eq!(bench.pick_but(&all), None);
        let mut tried: Vec<_> = tried.into_iter().filter(|at| *at < count).collect();
        tried.dedup();
        let left = all.iter().any(|at| !tried.contains(at));
        let picked = bench.pick_but(&tried);
        prop_assert_eq!(picked.is_some(), left);
        prop_assert!(picked.is_none_or(|at| at < count && !tried.contains(&at)));
        drop(open);
        prop_assert!(bench.nodes.iter().all(|node| node.load().in_flight() == 0));
    }
}
