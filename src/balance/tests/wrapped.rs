//! Every policy in every wrapper.

use std::time::Duration;

use super::{stand::*, *};

const POLICIES: [&str; 9] = [
    "adaptive",
    "least_request,choices=3",
    "peak_ewma",
    "round_robin",
    "weighted_round_robin",
    "random",
    "ring_hash",
    "maglev,table_size=251",
    "pick_first",
];

const WRAPPERS: [&str; 7] = [
    "outlier_ejection=true,max_ejection_percent=100,failure_percentage_request_volume=1,panic_threshold=20",
    "slow_start=10s,slow_start_aggression=2,slow_start_min_weight=5",
    "failover=true,failover_threshold=60,failover_timeout=5s",
    "prefer_zone=z0",
    "prefer_region=r0,panic_threshold=60",
    "prefer_zone=z1,prefer_region=r1,failover=true",
    "outlier_ejection=true,slow_start=5s,failover=true,prefer_zone=z0,prefer_region=r0",
];

fn all() -> impl Iterator<Item = String> {
    POLICIES.iter().flat_map(|policy| WRAPPERS.iter().map(move |wrapper| format!("{policy},{wrapper}")))
}

fn fleet(count: usize) -> Vec<Node> {
    let node = |n: usize| {
        let (zone, region) = (format!("z{}", n % 3), format!("r{}", n % 2));
        let (priority, weight) = ((n / 4).to_string(), (1 + n % 5).to_string());
        with(n, &[("zone", &zone), ("region", &region), ("priority", &priority), ("weight", &weight)])
    };
    (0..count).map(node).collect()
}

#[test]
fn a_wrapped_policy_wants_the_load_reports_that_it_wanted() {
    for wrapper in WRAPPERS {
        let policy = format!("weighted_round_robin,enable_oob_load_report=true,oob_reporting_period=3s,{wrapper}");
        let balancer = policy.parse::<Policy>().expect(&policy).balancer(1);
        assert_eq!(balancer.load_reports(), Some(Duration::from_secs(3)), "{policy}");
    }
}

#[test]
fn options_are_known_to_targets_and_read_back() {
    for text in all() {
        let (name, options) = text.split_once(',').expect("options");
        let target = format!("memory:///s?policy={name}&{}", options.replace(',', "&"));
        let target: crate::Target = target.parse().expect(&text);
        target.registry().expect_params(&[]).expect(&text);
        target.policy().expect("one").parse::<Policy>().expect(&text);
    }
    let built = Policy::default()
        .with_preference(Prefer::zone("a").panic_threshold(30))
        .with_failover(Failover::new().threshold(10).timeout(Duration::from_millis(1500)))
        .with_slow_start(SlowStart::new(Duration::from_secs(3)).aggression(0.5).min_weight(7))
        .with_outlier_ejection(
            OutlierEjection::new()
                .interval(Duration::from_millis(500))
                .ejection_time(Duration::from_secs(1), Duration::from_secs(2))
                .max_ejection_percent(50)
                .success_rate(1000, 50, 3, 10)
                .failure_percentage(40, 60, 2, 5),
        );
    let read: Policy = built.name().parse().expect("what it prints");
    assert_eq!(read.name(), built.name());
    let debug = |policy: &Policy| format!("{:?}", policy.balancer(1)).replace(&format!("{policy:?}"), "");
    assert!(debug(&read).contains("aggression: 0.5") && debug(&read).contains("interval: 500ms"));
}

#[test]
fn says_what_is_wrong_with_an_option() {
    for (text, why) in [
        ("random,panic_threshold=40", "needs outlier_ejection=true"),
        ("random,slow_start=0s", "a time above 0"),
        ("random,slow_start_min_weight=20", "need slow_start=10s"),
        ("random,failover_threshold=20", "need failover=true"),
        ("random,outlier_ejection=yes", "true or false"),
        ("random,max_ejection_percent=20", "need outlier_ejection=true"),
        ("random,outlier_ejection=true,max_ejection_percent=120", "from 0 to 100"),
        ("random,prefer_zone=", "a name"),
        ("random,slow_start=10s,slow_start_aggression=NaN", "from 0.01 to 100"),
        ("random,slow_start=10s,slow_start=20s", "slow_start"),
    ] {
        let error = text.parse::<Policy>().expect_err(text);
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens: each pick is of an endpoint that is ready, none twice for a call, and where one is
    /// ready of a level that is not waited for, calls go on.
    #[test]
    fn every_pick_is_ready_and_none_is_lost(
        count in 1usize..14,
        happens in proptest::collection::vec((any::<usize>(), 0u8..8, 0u64..12_000), 1..12),
    ) {
        for policy in all() {
            let mut stand = Stand::new(&policy, fleet(count));
            let first = policy.starts_with("pick_first");
            for (who, what, millis) in &happens {
                let at = who % count;
                match what {
                    0 => stand.standing[at] = Standing::Connecting,
                    1 => stand.standing[at] = Standing::Failed,
                    2 | 3 => stand.standing[at] = Standing::Ready,
                    4 => stand.answers(at, 0, 60),
                    5 => stand.nodes[at] = fleet(count)[at].clone(),
                    _ => (0..count).for_each(|at| stand.answers(at, 60, 0)),
                }
                stand.publish();
                stand.pass(Duration::from_millis(*millis));
                let mut tried = Vec::new();
                while let Some(at) = stand.pick(None, &tried) {
                    prop_assert!(stand.standing[at] == Standing::Ready, "{policy}: {at} is not ready");
                    // Of one endpoint alone there is no other.
                    if first {
                        tried.push(at);
                        break;
                    }
                    prop_assert!(!tried.contains(&at), "{policy}: {at} twice");
                    tried.push(at);
                }
                let waits = stand.standing.contains(&Standing::Connecting) && policy.contains("failover=true");
                prop_assert!(!tried.is_empty() || stand.ready.is_empty() || waits, "{policy}: nothing picked");
                if !policy.contains("outlier") && !policy.contains("failover") && !first {
                    prop_assert_eq!(tried.len(), stand.ready.len(), "{}: refused calls reach all", policy);
                }
            }
        }
    }
}

#[test]
fn what_is_never_swept_still_picks() {
    for policy in all() {
        let nodes = fleet(6);
        let picked = shares(&policy, &nodes, 50);
        assert_eq!(picked.iter().sum::<usize>(), 50, "{policy}");
    }
}
