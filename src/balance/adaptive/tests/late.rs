//! Where deadlines pass, and where many servers fail at once.

use super::{Bench, MS, SECOND, told::reporting};
use crate::{balance::tests::nodes, load::Outcome};

/// The last call to each of these was late, and some are picked since.
fn are_late(bench: &mut Bench, these: impl Iterator<Item = usize>) {
    these.for_each(|at| bench.call(at, 10 * MS, Outcome::Late));
    for _ in 0..40 {
        bench.now += 10 * MS;
        bench.pick();
    }
}

#[test]
fn who_is_late_is_slow_and_not_set_aside() {
    let mut bench = Bench::new(nodes(4));
    bench.answer_all(10 * MS);
    (0..2).for_each(|_| bench.call(1, SECOND, Outcome::Late));
    bench.now += 10 * MS;
    assert_eq!(bench.shares(1_000)[1], 0, "it is a hundred times slower");
    bench.now += 2 * SECOND;
    (0..20).for_each(|_| bench.call(1, 10 * MS, Outcome::Success));
    bench.now += 10 * MS;
    let again = bench.share_of_open(120, 1);
    assert!((20..31).contains(&again), "and as soon as it is not, it is as good as any: {again}");
}

#[test]
fn where_all_are_as_slow_who_is_late_counts_twice_as_busy_for_a_while() {
    let mut bench = Bench::new(nodes(4));
    (0..50).for_each(|_| bench.answer_all(SECOND));
    bench.pick();
    bench.call(1, SECOND, Outcome::Late);
    bench.now += SECOND + 10 * MS;
    let spared = bench.share_of_open(140, 1);
    assert!((17..23).contains(&spared), "{spared} of 140, and 40 to each other");
    bench.now += SECOND;
    let after = bench.share_of_open(140, 1);
    assert!((30..36).contains(&after), "{after}");
}

#[test]
fn who_never_answered_in_time_is_slow() {
    let mut bench = Bench::new(nodes(4));
    (0..3).for_each(|at| bench.call(at, 10 * MS, Outcome::Success));
    bench.call(3, SECOND, Outcome::Late);
    bench.now += 10 * MS;
    assert_eq!(bench.shares(1_000)[3], 0);
}

/// What is set aside for a second or more may have recovered, and the others have too much to do.
#[test]
fn where_those_in_use_fail_who_is_aside_is_tried_by_a_call_at_a_time() {
    let mut bench = Bench::new(nodes(4));
    [0, 2, 3].iter().for_each(|at| bench.call(*at, 10 * MS, Outcome::Success));
    // For 0.8 s at least, as it has answered nothing.
    bench.call(1, MS, Outcome::Failure);
    bench.now += 10 * MS;
    let _busy: Vec<_> = [0, 2, 3].map(|at| bench.nodes[at].load().start(bench.now)).into();
    assert_eq!(bench.shares(1_000)[1], 0, "the others do not fail");
    are_late(&mut bench, [0, 2].into_iter());
    let (at, trial) = bench.start();
    assert_eq!(at, 1);
    let shares = bench.shares(1_000);
    assert!(shares[1] < 10, "one at a time: {shares:?}");
    trial.finish(Outcome::Failure, bench.now);
    bench.now += 50 * MS;
    assert_eq!(bench.shares(100)[1], 0, "who fails at once would get most");
    bench.now += 60 * MS;
    assert_eq!(bench.pick(), 1);
}

/// It has room, and they have not.
#[test]
fn who_fails_a_part_gets_calls_where_more_than_that_fail_elsewhere() {
    let mut bench = Bench::new(nodes(4));
    (0..50).for_each(|_| bench.answer_all(10 * MS));
    for call in 0..50 {
        let outcome = if call % 3 == 2 { Outcome::Failure } else { Outcome::Success };
        bench.call(0, 10 * MS, outcome);
    }
    bench.now += 10 * MS;
    let before = bench.share_of_open(120, 0);
    assert!(before <= 1, "it is set aside: {before}");
    are_late(&mut bench, 1..4);
    let now = bench.share_of_open(120, 0);
    assert!((10..25).contains(&now), "half as many as the others: {now}");
}

/// Else most of what they do would be in vain.
#[test]
fn where_the_others_cannot_take_all_who_is_aside_gets_up_to_its_share() {
    for count in [4, 200] {
        let mut bench = Bench::new(nodes(count));
        (0..50).for_each(|_| bench.answer_all(10 * MS));
        bench.pick();
        (0..50).for_each(|_| bench.call(0, MS, Outcome::Failure));
        // It is not tried again while that is open.
        let _trial = bench.nodes[0].load().start(bench.now);
        // Where only the last of these is late, and is the last.
        let odd = [&[Outcome::Success; 9][..], &[Outcome::Fault]].concat();
        for (outcomes, share) in
            [(&odd[..], 0), (&[Outcome::Late, Outcome::Success], 0), (&[Outcome::Success, Outcome::Late], 100)]
        {
            for _ in 0..20 {
                (1..count).for_each(|at| outcomes.iter().for_each(|outcome| bench.call(at, 200 * MS, *outcome)));
                bench.now += 6 * MS;
                bench.pick();
            }
            let got = bench.shares(100 * count)[0];
            assert!((share * 7 / 10..=share * 13 / 10).contains(&got), "{got} where others' are {outcomes:?}");
        }
        let busy: Vec<_> = (0..50).map(|_| bench.nodes[1].load().start(bench.now)).collect();
        assert_eq!(bench.shares(100 * count)[1], 0, "the others go to the best");
        drop(busy);
        assert!((0..1_000).all(|_| bench.pick_but(&[0]) != Some(0)), "it was tried");
        (0..20).for_each(|_| (1..count).for_each(|at| bench.call(at, 10 * MS, Outcome::Success)));
        bench.now += 6 * MS;
        bench.pick();
        assert_eq!(bench.shares(100 * count)[0], 0, "they are as quick as before");
    }
}

#[test]
fn who_only_failed_so_far_is_not_taken_for_idle() {
    let mut bench = reporting(4);
    bench.nodes.extend(nodes(5).pop());
    bench.rebuild();
    (0..4).for_each(|at| bench.says(at, 4.0, 10));
    bench.pick();
    bench.now += 6 * MS;
    (0..4).for_each(|at| bench.says(at, 4.0, 10));
    assert_eq!(bench.shares(100)[4], 100, "nobody was there, and it may well have nothing to do");
    bench.call(4, 10 * MS, Outcome::Fault);
    assert!(bench.shares(100)[4] < 50);
}
