//! With servers that answer when asked.

use std::time::Duration;

use super::{
    Bench, MS, SECOND,
    told::{alike, reporting},
};
use crate::{
    balance::{Pick, Probed, tests::nodes},
    load::Outcome,
};

#[test]
fn a_few_are_asked_where_little_was_heard_and_the_best_of_them_gets_the_call() {
    for count in [10, 300] {
        let mut bench = reporting(count);
        assert!(bench.asks().is_none(), "{count}: all were heard of just now");
        bench.now += SECOND;
        bench.asks();
        bench.now += 6 * MS;
        let probes = bench.asks().expect("it asks");
        let asked = probes.at().to_vec();
        assert_eq!(asked.len(), 4);
        assert!(asked.iter().all(|at| *at < count), "{asked:?}");
        assert_eq!(probes.wait(), MS * 3);
        bench.says(asked[2], 1.0, 10);
        bench.now += 11 * MS;
        bench.says(asked[0], 9.0, 10);
        // The others said nothing in time, nor did they while a call takes.
        assert_eq!(bench.pick_of(Probed::new(&asked, &asked[..1], MS)), asked[0]);
        bench.says(asked[1], 2.0, 10);
        assert_eq!(bench.pick_of(Probed::new(&asked, &asked[..2], MS)), asked[1]);
        bench.says(asked[2], 1.0, 10);
        assert_eq!(bench.pick_of(Probed::new(&asked, &asked[..3], MS)), asked[2]);
        assert_eq!(bench.pick_of(Probed::new(&asked, &asked[..2], MS)), asked[2], "by what it said just before");
        if count == 10 {
            let idle = (0..count).find(|at| !asked.contains(at)).expect("one that was not asked");
            bench.says(idle, 0.0, 10);
            assert_eq!(bench.pick_of(Probed::new(&asked, &[], MS)), idle, "nobody answered: by what else is known");
        }
        (0..40).for_each(|_| bench.answer_all(4 * MS));
        bench.now += 6 * MS;
        bench.asks();
        bench.now += 6 * MS;
        let wait = bench.asks().expect("it asks").wait();
        assert!(wait.abs_diff(MS * 2) < MS / 100, "{wait:?}: half of a call");
    }
}

#[test]
fn each_that_is_asked_is_told_how_soon_a_call_comes() {
    let mut bench = alike();
    bench.now += SECOND;
    bench.asks();
    bench.now += 6 * MS;
    let probes = bench.asks().expect("it asks");
    assert_eq!(probes.announced(), Duration::ZERO, "nobody knows yet");
    let asked = probes.at().to_vec();
    (10..).step_by(5).zip(&asked).for_each(|(ms, at)| bench.says(*at, 1.0, ms));
    bench.pick_of(Probed::new(&asked, &asked, MS / 2).waited(MS));
    bench.now += 30 * MS;
    bench.asks();
    bench.now += 6 * MS;
    assert_eq!(bench.asks().expect("it asks").announced(), MS, "as long as a call waits for all");
}

#[test]
fn what_was_asked_for_just_now_is_not_doubted() {
    let mut bench = alike();
    bench.says(3, 2.0, 10);
    let shares = bench.shares(800);
    assert!(shares[3] < 200, "{shares:?}: two calls less are chance, where all take as long");
    let all = [4, 1, 3, 6];
    assert_eq!(bench.pick_of(Probed::new(&all, &all, MS)), 3);
}

#[test]
fn those_are_asked_that_seem_best_but_not_by_all() {
    let mut bench = reporting(12);
    (0..4).for_each(|at| bench.says(at, 0.0, 10));
    bench.now += 6 * MS;
    bench.asks();
    let mut asked = [0; 12];
    for _ in 0..3_000 {
        let probes = bench.asks().expect("what was heard is old");
        probes.at().iter().for_each(|at| asked[*at] += 1);
    }
    // Half of the time; and any of the others instead.
    assert!(asked[..4].iter().all(|count| (1_450..1_650).contains(count)), "{asked:?}");
    assert!(asked[4..].iter().all(|count| (650..850).contains(count)), "{asked:?}");
}

#[test]
fn that_it_is_worth_it_to_ask_is_seen_without_asking() {
    let mut bench = reporting(10);
    let all = [4, 5, 6, 7];
    for _ in 0..60 {
        bench.all_say(4.0);
        bench.pick_of(Probed::new(&all, &all, MS / 10).waited(MS));
    }
    let asks = |bench: &mut Bench, longest: u64| {
        for _ in 0..20 {
            (0..10).for_each(|at| bench.says(at, 4.0, if at % 2 == 0 { 10 } else { longest }));
            bench.now += 6 * MS;
            bench.asks();
        }
        (0..6_400).filter_map(|_| bench.asks()).count()
    };
    let few = asks(&mut bench, 10);
    assert!((10..50).contains(&few), "{few}: one of 256 is to tell how long it takes");
    // Those that were asked before have not answered.
    let many = asks(&mut bench, 18);
    assert!(many > 3_000, "{many}");
}

/// How many of so many calls ask first, where four were asked so often, the last of which said nothing in time.
fn asking(bench: &mut Bench, calls: usize, waited: Duration, silent_speaks: bool) -> usize {
    let all = [4, 5, 6, 7];
    for _ in 0..60 {
        bench.now += 20 * MS;
        let speaking = if silent_speaks { 4 } else { 3 };
        all[..speaking].iter().for_each(|at| bench.says(*at, 4.0, 10 + (*at == 5) as u64));
        bench.pick_of(Probed::new(&all, &all[..3], MS / 10).waited(waited));
    }
    bench.now += SECOND;
    bench.asks();
    bench.now += 6 * MS;
    (0..calls).filter(|_| bench.asks().is_some()).count()
}

#[test]
fn who_answers_but_not_in_time_makes_it_dear_to_ask_and_who_stalls_does_not() {
    let stalled = asking(&mut reporting(10), 640, 3 * MS, false);
    assert!(stalled > 500, "{stalled}: what it is for");
    let far = asking(&mut reporting(10), 6_400, 3 * MS, true);
    assert!((10..50).contains(&far), "{far}: one of 256 is to tell how long it takes");
}

#[test]
fn where_all_are_alike_it_is_worth_it_for_less() {
    let wait = MS * 3 / 4;
    let even = asking(&mut reporting(10), 640, wait, true);
    assert!(even > 500, "{even}: nothing else tells one from the other");
    let mut bench = reporting(10);
    for _ in 0..20 {
        bench.now += 6 * MS;
        (0..10).for_each(|at| bench.call(at, MS * [5, 10, 10][at % 3], Outcome::Success));
        bench.asks();
    }
    let uneven = asking(&mut bench, 6_400, wait, true);
    assert!((10..50).contains(&uneven), "{uneven}: one of 256 is to tell how long it takes");
}

/// It is not worth it to ask a few; and the fourth was slow when it spoke last, so long ago.
fn slow_before(bench: &mut Bench, age: Duration) {
    let all = [4, 5, 6, 7];
    for _ in 0..60 {
        bench.all_say(4.0);
        bench.pick_of(Probed::new(&all, &all, MS / 10).waited(MS));
    }
    bench.says(3, 4.0, 50);
    bench.now += age;
    bench.asks();
    bench.now += 6 * MS;
    bench.asks();
}

/// Of so many calls, for how many the fourth is asked alone, and how many it gets unasked.
fn fourth(bench: &mut Bench, calls: usize) -> (usize, usize) {
    let decided: Vec<_> = (0..calls).map(|_| bench.decides()).collect();
    let alone = decided.iter().filter(|pick| matches!(pick, Pick::Probe(probes) if probes.at() == [3])).count();
    (alone, decided.iter().filter(|pick| matches!(pick, Pick::At(3))).count())
}

#[test]
fn one_that_was_slow_when_it_spoke_last_is_asked_before_it_gets_a_call() {
    for count in [10, 300] {
        let mut bench = reporting(count);
        slow_before(&mut bench, 50 * MS);
        let open: Vec<_> = (0..count * 20).map(|call| call % count).filter(|at| *at != 3).collect();
        let open: Vec<_> = open.into_iter().map(|at| bench.nodes[at].load().start(bench.now)).collect();
        let (alone, got) = fourth(&mut bench, 20 * count);
        assert!(alone == 0 && got > 0, "{alone}, {got} of {count}: it was heard a short while ago, and counts");
        drop(open);
        slow_before(&mut bench, 5 * SECOND);
        let (alone, got) = fourth(&mut bench, 10 * count);
        assert!(alone > 0 && got == 0, "{alone}, {got} of {count}");
        for (says, gets) in [(None, false), (Some(50), false), (Some(10), true)] {
            let mut bench = reporting(count);
            slow_before(&mut bench, 5 * SECOND);
            let mut asked = (0..20 * count).filter_map(|_| bench.asks());
            assert!(asked.any(|probes| probes.at() == [3]), "{count}");
            says.iter().for_each(|latency| bench.says(3, 4.0, *latency));
            let answered = if says.is_some() { &[3][..] } else { &[] };
            let got = bench.pick_of(Probed::new(&[3], answered, MS)) == 3;
            assert_eq!(got, gets, "it is silent, or slow still, or as fast as the others: {says:?} of {count}");
        }
        // Who does not answer, or must not be asked, is tried.
        let mut bench = reporting(count);
        slow_before(&mut bench, 5 * SECOND);
        bench.nodes[3].load().refuse_probes();
        let (alone, got) = fourth(&mut bench, 20 * count);
        assert!(alone == 0 && got > 0, "{alone}, {got} of {count}");
        let mut bench = reporting(count);
        bench.balancer.probes = false;
        bench.rebuild();
        slow_before(&mut bench, 5 * SECOND);
        let (alone, got) = fourth(&mut bench, 20 * count);
        assert!(alone == 0 && got > 0, "{alone}, {got} of {count}");
    }
}

#[test]
fn nobody_is_asked_who_does_not_answer_or_where_it_takes_longer_than_it_saves() {
    let mut bench = Bench::new(nodes(10));
    bench.answer_all(10 * MS);
    bench.now += SECOND;
    bench.pick();
    assert!(bench.asks().is_none(), "nobody reports");
    // This channel knows what is in flight, as nearly all of it is its own.
    let mut bench = reporting(10);
    let held: Vec<_> = (0..40).map(|call| bench.nodes[call % 10].load().start(bench.now)).collect();
    let asks_later = |others: f64, bench: &mut Bench| {
        bench.all_say(4.0 + others);
        bench.now += SECOND;
        bench.asks();
        bench.now += 6 * MS;
        bench.asks().is_some()
    };
    assert!(!asks_later(0.9, &mut bench) && asks_later(2.0, &mut bench));
    drop(held);
    // The way there takes longer than the call: what was said is old when it comes there.
    (0..8).for_each(|_| bench.answer_all(100 * MS));
    assert!(!asks_later(4.0, &mut bench));
    let mut bench = reporting(10);
    bench.nodes[..3].iter().for_each(|node| node.load().refuse_probes());
    bench.now += SECOND;
    bench.asks();
    bench.now += 6 * MS;
    let asked: Vec<_> = (0..1_000).filter_map(|_| bench.asks()).collect();
    assert!((600..800).contains(&asked.len()), "{}: those that do not answer have their share", asked.len());
    assert!(asked.iter().all(|probes| probes.at().iter().all(|at| *at >= 3)));
    // The best of them takes so much less than the worst, and a probe so long.
    let all = [4, 5, 6, 7];
    for (saves, round_trip, worth) in [(8, 5, false), (8, 1, true), (0, 1, false), (9, 2, true)] {
        for _ in 0..60 {
            all.iter().for_each(|at| bench.says(*at, 4.0, if *at == 5 { 10 + saves } else { 10 }));
            // Another call had sent one of them.
            bench.pick_of(Probed::new(&all, &all, MS / 10).waited(MS * round_trip));
        }
        bench.now += SECOND;
        bench.asks();
        bench.now += 6 * MS;
        let asked = (0..6_400).filter_map(|_| bench.asks()).count();
        let few = (10..50).contains(&asked);
        assert!(if worth { asked > 3_000 } else { few }, "{asked}: one of 256 looks whether that is still so");
    }
}
