use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::instance::{Address, ServiceInstance};

mod ejection;
mod failover;
mod hashed;
mod near;
mod prequal;
mod slow_start;
mod stand;
mod weighted;
mod wrapped;

pub(super) fn nodes(count: usize) -> Vec<Node> {
    weighing(&vec![100; count])
}

pub(super) fn weighing(weights: &[u32]) -> Vec<Node> {
    (0..weights.len())
        .map(|n| {
            let address: Address = format!("grpc://h{n}:1").parse().expect("valid");
            let instance = ServiceInstance::builder("s", format!("i{n}"))
                .and_then(|builder| builder.address(address.clone()).weight(weights[n]).build())
                .expect("valid");
            Node::new(Endpoint::new(address.into(), instance), Arc::default())
        })
        .collect()
}

fn shares(policy: &str, nodes: &[Node], picks: usize) -> Vec<usize> {
    let picker = policy.parse::<Policy>().expect(policy).balancer(1).rebuild(nodes);
    let (headers, now) = (HeaderMap::new(), Instant::now());
    let mut shares = vec![0; nodes.len()];
    let mut random = 42;
    for _ in 0..picks {
        random = mix(random);
        match picker.pick(&PickInfo::new("/s/m", &headers, now, random)) {
            Pick::At(at) => shares[at] += 1,
            other => panic!("{other:?}"),
        }
    }
    shares
}

#[test]
fn shares_are_as_the_policy_says() {
    let nodes = nodes(4);
    assert_eq!(shares("round_robin", &nodes, 400), [100; 4]);
    assert_eq!(shares("pick_first", &nodes, 10), [10, 0, 0, 0]);
    for share in shares("random", &nodes, 40_000).into_iter().chain(shares("least_request", &nodes, 40_000)) {
        assert!((9_500..10_500).contains(&share), "{share}");
    }
}

#[test]
fn least_request_avoids_the_busy() {
    let nodes = nodes(4);
    let _busy: Vec<_> = (0..5).map(|_| nodes[2].load().start(Instant::now())).collect();
    assert_eq!(shares("least_request", &nodes, 16_000)[2], 0);
    assert_eq!(shares("least_request,choices=10", &nodes, 16_000)[2], 0);
}

#[test]
fn peak_ewma_avoids_the_slow_the_busy_and_who_fails_fast() {
    let (nodes, now) = (nodes(4), Instant::now());
    let after = |millis| now + Duration::from_millis(millis);
    for (at, millis) in [(0, 10), (1, 10), (2, 100), (3, 10)] {
        nodes[at].load().start(now).finish(crate::load::Outcome::Success, after(millis));
    }
    // Ten times as slow: a tenth as much in flight.
    assert_eq!(shares("peak_ewma", &nodes, 16_000)[2], 0);
    let busy: Vec<_> = (0..20).map(|_| nodes[0].load().start(now)).collect();
    let even = shares("peak_ewma,choices=10", &nodes, 4_000);
    assert_eq!((even[0], even[2]), (0, 0), "{even:?}");
    drop(busy);
    for _ in 0..20 {
        nodes[1].load().start(now).finish(crate::load::Outcome::Failure, now);
    }
    let failing = shares("peak_ewma,choices=10", &nodes, 4_000);
    assert_eq!((failing[1], failing[2]), (0, 0), "{failing:?}");
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let nodes = nodes(7);
    for policy in [
        "least_request",
        "peak_ewma",
        "round_robin",
        "weighted_round_robin",
        "random",
        "ring_hash",
        "maglev",
        "pick_first",
    ] {
        assert_eq!(shares(policy, &nodes, 50), shares(policy, &nodes, 50), "{policy}");
    }
}

#[test]
fn says_what_is_wrong_with_a_policy() {
    for (text, why) in [
        ("fastest", "there are adaptive, least_request, peak_ewma, prequal, "),
        ("prequal,probes=9", "from 2 to 8"),
        ("prequal,hot_percentile=101", "from 0 to 100"),
        ("prequal,wait=fast", "a time such as"),
        ("adaptive,probes=perhaps", "true or false"),
        ("ring_hash,min_ring_size=0", "from 1 to 8388608"),
        ("ring_hash,hash_header=a b", "the name of a header"),
        ("maglev,table_size=65536", "a prime"),
        ("least_request,choices=1", "from 2 to 10"),
        ("least_request,choices", "key=value"),
        ("round_robin,choices=2", "no option \"choices\""),
        ("pick_first,shuffle=yes", "true or false"),
    ] {
        let error = text.parse::<Policy>().expect_err(text);
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_policy_picks_twice_where_it_was_refused(
        policy in prop_oneof![
            Just("adaptive"), Just("prequal"), Just("least_request"), Just("peak_ewma"), Just("round_robin"), Just("weighted_round_robin"), Just("random"),
            Just("ring_hash"), Just("maglev,table_size=251"),
        ],
        count in 0usize..9, seed in any::<u64>(),
    ) {
        let nodes = nodes(count);
        let picker = policy.parse::<Policy>().expect("known").balancer(seed).rebuild(&nodes);
        let headers = HeaderMap::new();
        let mut tried = Vec::new();
        let mut random = seed;
        loop {
            random = mix(random);
            let mut info = PickInfo::new("/s/m", &headers, Instant::now(), random);
            info.tried = &tried;
            let mut pick = picker.pick(&info);
            let probes;
            if let Pick::Probe(these) = pick {
                probes = these;
                prop_assert!(probes.at().iter().all(|at| *at < count && !tried.contains(at)));
                info.probed = Some(Probed::new(probes.at(), &probes.at()[..1], Duration::from_millis(1)));
                pick = picker.pick(&info);
            }
            match pick {
                Pick::At(at) => tried.push(at),
                Pick::Queue => break,
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(tried.len(), count);
        prop_assert_eq!(tried.into_iter().collect::<HashSet<_>>().len(), count);
    }
}

/// As calls come and go, in order or at random, what is remembered makes no endpoint busier than a
/// draw would, and joins many calls that begin together.
#[test]
fn least_request_with_memory_joins_calls_and_balances_no_worse() {
    let run = |memory: bool| {
        let nodes = nodes(8);
        let picker = LeastRequest::default().rebuild(&nodes);
        let (headers, now) = (HeaderMap::new(), Instant::now());
        let (mut random, mut recent, mut same, mut most) = (7, None, 0, 0);
        let mut open = std::collections::VecDeque::new();
        for _ in 0..20_000 {
            random = mix(random);
            let mut info = PickInfo::new("/s/m", &headers, now, random);
            info.recent = recent.filter(|_| memory);
            let Pick::At(at) = picker.pick(&info) else { panic!("nothing picked") };
            same += usize::from(recent == Some(at));
            recent = Some(at);
            open.push_back(nodes[at].load().start(now));
            if open.len() > 64 {
                drop(open.swap_remove_back((random >> 40) as usize % 64));
            }
            most = most.max(nodes.iter().map(|node| node.load().in_flight()).max().unwrap_or(0));
        }
        (same, most)
    };
    let ((drawn, most), (remembered, most_remembered)) = (run(false), run(true));
    assert!(remembered * 2 > drawn * 3, "{remembered} and {drawn} of 20,000 went where the one before went");
    assert!(most_remembered <= most + 1, "{most_remembered} and {most} at one endpoint, of 64 on eight");
}

#[test]
fn one_call_after_the_other_goes_everywhere() {
    let nodes = nodes(4);
    let picker = Policy::default().balancer(1).rebuild(&nodes);
    let (headers, now) = (HeaderMap::new(), Instant::now());
    let (mut shares, mut random, mut recent) = ([0; 4], 7, None);
    for _ in 0..4_000 {
        random = mix(random);
        let mut info = PickInfo::new("/s/m", &headers, now, random);
        info.recent = recent;
        let Pick::At(at) = picker.pick(&info) else { panic!("nothing picked") };
        shares[at] += 1;
        recent = Some(at);
    }
    assert!(shares.iter().all(|share| (850..1_150).contains(share)), "{shares:?}");
}
