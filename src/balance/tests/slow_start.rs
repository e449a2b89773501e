use std::time::Duration;

use super::{stand::*, *};

const SECOND: Duration = Duration::from_secs(1);

fn joining(policy: &str) -> Stand {
    let mut stand = Stand::new(policy, nodes(4));
    stand.pass(60 * SECOND);
    stand.nodes.push(with(9, &[]));
    stand.standing.push(Standing::Ready);
    stand.publish();
    stand
}

fn share_of_last(stand: &mut Stand) -> f64 {
    let last = stand.nodes.len() - 1;
    stand.shares(40_000)[last] as f64 / 40_000.0 * stand.nodes.len() as f64
}

#[test]
fn who_joins_gets_a_growing_share() {
    for (policy, shares) in [
        ("random,slow_start=10s", [0.1, 0.2, 0.5, 0.9, 1.0]),
        ("round_robin,slow_start=10s", [0.1, 0.2, 0.5, 0.9, 1.0]),
        ("weighted_round_robin,slow_start=10s,slow_start_min_weight=30", [0.3, 0.3, 0.5, 0.9, 1.0]),
        ("ring_hash,min_ring_size=4096,slow_start=10s", [0.1, 0.2, 0.5, 0.9, 1.0]),
        ("random,slow_start=10s,slow_start_aggression=2", [0.1, 0.447, 0.707, 0.949, 1.0]),
    ] {
        let mut stand = joining(policy);
        let mut whole = joining(&policy.replace("slow_start=10s", "slow_start=1us"));
        whole.pass(SECOND);
        let whole = share_of_last(&mut whole);
        for (share, wait) in shares.into_iter().zip([2, 3, 4, 1, 0]) {
            let is = share_of_last(&mut stand) / whole;
            // Of its own part of all calls; or where others take turns the sooner, of what another gets.
            let most = share * 5.0 / (4.0 + share);
            assert!((share - 0.05..most + 0.05).contains(&is), "{policy}: {is} and not {share}");
            stand.pass(wait * SECOND);
        }
    }
}

#[test]
fn the_rest_is_spread_over_all_others() {
    for policy in ["random,slow_start=10s", "round_robin,slow_start=10s", "least_request,slow_start=10s"] {
        let shares = joining(policy).shares(40_000);
        assert!(shares[..4].iter().all(|share| (9_300..10_300).contains(share)), "{policy}: {shares:?}");
    }
}

#[test]
fn the_first_and_the_many_start_at_once() {
    let mut stand = Stand::new("round_robin,slow_start=10s", nodes(4));
    stand.pass(9 * SECOND);
    stand.nodes.push(with(9, &[]));
    stand.standing.push(Standing::Ready);
    stand.publish();
    assert_eq!(stand.shares(50)[4], 10, "within the first window");
    let mut stand = joining("round_robin,slow_start=10s");
    stand.pass(SECOND);
    (10..14).for_each(|n| stand.nodes.push(with(n, &[])));
    stand.standing.resize(9, Standing::Ready);
    stand.publish();
    assert_eq!(stand.shares(90)[..9], [10; 9], "five of nine are new");
}

#[test]
fn who_comes_back_is_warm_after_a_moment_only() {
    let mut stand = Stand::new("round_robin,slow_start=10s", nodes(4));
    stand.pass(60 * SECOND);
    for (away, warm) in [(500, true), (3_000, false)] {
        stand.standing[3] = Standing::Connecting;
        stand.publish();
        stand.pass(Duration::from_millis(away));
        stand.standing[3] = Standing::Ready;
        stand.publish();
        assert_eq!(stand.shares(4_000)[3] > 900, warm, "{away} ms");
    }
}

#[test]
fn a_key_goes_over_once() {
    let mut stand = joining("ring_hash,min_ring_size=1024,slow_start=10s");
    let keys: Vec<_> = (0..2_000)
        .map(|n| {
            let mut key = Extensions::new();
            key.insert(HashKey::new(format!("user {n}")));
            key
        })
        .collect();
    let mut before: Vec<_> = keys.iter().map(|key| stand.pick(Some(key), &[])).collect();
    for _ in 0..10 {
        stand.pass(SECOND);
        for (key, before) in keys.iter().zip(&mut before) {
            let at = stand.pick(Some(key), &[]);
            assert!(*before == at || at == Some(4), "{before:?} to {at:?}");
            *before = at;
        }
    }
    assert!(before.iter().filter(|at| **at == Some(4)).count() > 200);
}
