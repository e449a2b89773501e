use std::time::Duration;

use super::{stand::*, *};

const SECOND: Duration = Duration::from_secs(1);

/// Ten endpoints answer a hundred calls each; the last fails so many of them.
fn interval(stand: &mut Stand, failed: u64) {
    for at in 0..stand.nodes.len() {
        let failed = if at + 1 == stand.nodes.len() { failed } else { 0 };
        stand.answers(at, 100 - failed, failed);
    }
    stand.pass(10 * SECOND);
}

#[test]
fn an_outlier_is_aside_longer_each_time_and_comes_back() {
    let mut stand = Stand::new("round_robin,outlier_ejection=true", nodes(10));
    interval(&mut stand, 0);
    assert_eq!(stand.shares(100)[9], 10);
    interval(&mut stand, 100);
    assert_eq!(stand.shares(90), [10, 10, 10, 10, 10, 10, 10, 10, 10, 0, 0]);
    // More than 30 s, to the end of an interval.
    stand.pass(30 * SECOND);
    assert_eq!(stand.shares(90)[9], 0);
    stand.pass(10 * SECOND);
    assert_eq!(stand.shares(100)[9], 10);
    // Once more at once, for 60 s.
    interval(&mut stand, 100);
    stand.pass(60 * SECOND);
    assert_eq!(stand.shares(90)[9], 0);
    stand.pass(10 * SECOND);
    assert_eq!(stand.shares(100)[9], 10);
    // Intervals that go well are to its credit.
    (0..3).for_each(|_| interval(&mut stand, 0));
    interval(&mut stand, 100);
    stand.pass(40 * SECOND);
    assert_eq!(stand.shares(100)[9], 10);
}

#[test]
fn what_failed_before_it_was_known_does_not_count() {
    let nodes = nodes(10);
    nodes.iter().for_each(|node| {
        for _ in 0..200 {
            node.load().start(Instant::now()).finish(crate::load::Outcome::Failure, Instant::now());
        }
    });
    let mut stand = Stand::new("round_robin,outlier_ejection=true,max_ejection_percent=100", nodes);
    stand.pass(10 * SECOND);
    assert_eq!(stand.shares(100)[..10], [10; 10]);
}

#[test]
fn no_more_than_the_share_goes_aside() {
    let fails = |most: u32, failing: usize| {
        let policy = format!("round_robin,outlier_ejection=true,max_ejection_percent={most},panic_threshold=0");
        let mut stand = Stand::new(&policy, nodes(10));
        for at in 0..10 {
            stand.answers(at, if at < failing { 0 } else { 100 }, if at < failing { 100 } else { 0 });
        }
        stand.pass(10 * SECOND);
        stand.shares(1000)[..10].iter().filter(|share| **share == 0).count()
    };
    assert_eq!((fails(10, 4), fails(30, 4), fails(35, 4), fails(0, 4)), (1, 3, 4, 0));
    assert_eq!(fails(100, 10), 0, "with all aside, all take calls");
}

#[test]
fn in_panic_all_take_calls() {
    let policy = "round_robin,outlier_ejection=true,max_ejection_percent=100,panic_threshold=";
    for (threshold, aside) in [(50, 0), (40, 6), (0, 6)] {
        let mut stand = Stand::new(&format!("{policy}{threshold}"), nodes(10));
        for at in 0..10 {
            stand.answers(at, if at < 6 { 0 } else { 100 }, if at < 6 { 100 } else { 0 });
        }
        stand.pass(10 * SECOND);
        let shares = stand.shares(1000);
        assert_eq!(shares.iter().filter(|share| **share == 0).count() - 1, aside, "{threshold}: {shares:?}");
    }
    // Who is not ready is not left either.
    let mut stand = Stand::new(&format!("{policy}50"), nodes(10));
    interval(&mut stand, 100);
    assert_eq!(stand.shares(90)[9], 0);
    (0..5).for_each(|at| stand.standing[at] = Standing::Failed);
    stand.publish();
    assert_eq!(stand.shares(100)[5..10], [20; 5]);
    stand.standing[0] = Standing::Ready;
    stand.publish();
    assert_eq!(stand.shares(100)[9], 0);
}

#[test]
fn a_weight_or_a_reconnect_forgets_nothing() {
    let mut stand = Stand::new("round_robin,outlier_ejection=true", nodes(10));
    interval(&mut stand, 100);
    stand.standing[9] = Standing::Connecting;
    stand.publish();
    stand.standing[9] = Standing::Ready;
    let load = stand.nodes[9].load().clone();
    stand.nodes[9] = Node::new(with(9, &[("weight", "7")]).endpoint().clone(), load);
    stand.publish();
    assert_eq!(stand.shares(90)[9], 0);
}

#[test]
fn enforcement_is_a_chance() {
    let mut aside = 0;
    for seed in 0..400 {
        let policy: Policy =
            "random,outlier_ejection=true,success_rate_enforcement=0,failure_percentage_enforcement=25"
                .parse()
                .expect("valid");
        let (mut balancer, nodes, now) = (policy.balancer(seed), nodes(10), Instant::now());
        let each = |visit: &mut dyn FnMut(&Node, Standing)| nodes.iter().for_each(|node| visit(node, Standing::Ready));
        let _ = balancer.sweep(&Fleet::new(now, &each));
        for (at, node) in nodes.iter().enumerate() {
            for _ in 0..100 {
                let outcome = if at == 3 { crate::load::Outcome::Failure } else { crate::load::Outcome::Success };
                node.load().start(now).finish(outcome, now);
            }
        }
        aside += u32::from(balancer.sweep(&Fleet::new(now + 10 * SECOND, &each)).changed);
    }
    assert!((70..130).contains(&aside), "{aside} of 400");
}
