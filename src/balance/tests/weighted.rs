use super::*;
use crate::load::BriefReport;

/// Not only in the long run: in any stretch each gets what it weighs, give or take a few.
#[test]
fn shares_are_as_the_weights_in_any_stretch() {
    let weights = [100, 50, 1, 300, 49];
    let nodes = weighing(&weights);
    let picker = WeightedRoundRobin::new(3).rebuild(&nodes);
    let (headers, now) = (HeaderMap::new(), Instant::now());
    let picks: Vec<_> = (0..20_000)
        .map(|_| match picker.pick(&PickInfo::new("/s/m", &headers, now, 0)) {
            Pick::At(at) => at,
            other => panic!("{other:?}"),
        })
        .collect();
    for length in [50, 500, 5_000] {
        for stretch in picks.windows(length).step_by(97) {
            for (at, weight) in weights.iter().enumerate() {
                let share = stretch.iter().filter(|picked| **picked == at).count() as f64;
                let due = f64::from(*weight) / 500.0 * length as f64;
                assert!((share - due).abs() < 3.0, "{at} got {share} of {length}, due are {due}");
            }
        }
    }
}

#[test]
fn the_heaviest_possible_beside_the_lightest_starves_neither() {
    let shares = shares("weighted_round_robin", &weighing(&[1_000_000, 1]), 3_000_000);
    assert!((2..=4).contains(&shares[1]), "{shares:?}");
}

/// A weight that changes goes on where the turns were.
#[test]
fn a_new_weight_counts_from_the_next_call_on() {
    let mut balancer = WeightedRoundRobin::new(1);
    let (headers, now) = (HeaderMap::new(), Instant::now());
    let mut shares = [0; 2];
    for weights in [[100, 100], [100, 300]] {
        let picker = balancer.rebuild(&weighing(&weights));
        for _ in 0..400 {
            let Pick::At(at) = picker.pick(&PickInfo::new("/s/m", &headers, now, 0)) else { panic!("nothing") };
            shares[at] += 1;
        }
    }
    assert!((298..=302).contains(&shares[0]), "{shares:?}");
}

/// Servers that report each second from `from` to `to`: requests a second, utilization, failures a second.
fn report(nodes: &[Node], efforts: &[Option<(f64, f64, f64)>], base: Instant, from: u64, to: u64) {
    for second in from..to {
        for (node, effort) in nodes.iter().zip(efforts) {
            let Some((requests_per_second, utilization, errors_per_second)) = *effort else { continue };
            let report = BriefReport { requests_per_second, utilization, errors_per_second, ..BriefReport::default() };
            node.load().report(&report, base + Duration::from_secs(second));
        }
    }
}

fn shares_at(picker: &dyn Picker, nodes: usize, now: Instant) -> Vec<usize> {
    let (headers, mut shares) = (HeaderMap::new(), vec![0; nodes]);
    for _ in 0..6_000 {
        let Pick::At(at) = picker.pick(&PickInfo::new("/s/m", &headers, now, 0)) else { panic!("nothing") };
        shares[at] += 1;
    }
    shares
}

fn near(shares: &[usize], due: &[usize]) {
    assert!(shares.iter().zip(due).all(|(share, due)| share.abs_diff(*due) <= 3), "{shares:?}, due are {due:?}");
}

#[test]
fn weights_are_learned_from_reports_after_a_blackout_and_forgotten_in_time() {
    let nodes = weighing(&[100, 200, 300]);
    let picker = WeightedRoundRobin::new(1).rebuild(&nodes);
    let base = Instant::now();
    let at = |second| shares_at(&*picker, 3, base + Duration::from_secs(second));
    let registered = [1_000, 2_000, 3_000];
    near(&at(0), &registered);
    // 100 at half of what they can is as good as 200 at all of it; a third is half as good.
    let efforts = [Some((100.0, 0.5, 0.0)), Some((200.0, 1.0, 0.0)), Some((50.0, 0.5, 0.0))];
    report(&nodes, &efforts, base, 1, 10);
    near(&at(10), &registered);
    report(&nodes, &efforts, base, 10, 13);
    near(&at(13), &[2_400, 2_400, 1_200]);
    // The half of whose requests fail works half as much again for each.
    report(&nodes, &[Some((100.0, 0.5, 50.0)), efforts[1], efforts[2]], base, 13, 20);
    near(&at(20), &[1_500, 3_000, 1_500]);
    near(&at(20 + 178), &[1_500, 3_000, 1_500]);
    near(&at(20 + 180), &registered);
    // After so long a silence there is a blackout again.
    report(&nodes, &efforts, base, 300, 305);
    near(&at(305), &registered);
    report(&nodes, &efforts, base, 305, 312);
    near(&at(312), &[2_400, 2_400, 1_200]);
    // A new picker knows it from its first call on.
    let again = WeightedRoundRobin::new(1).rebuild(&nodes);
    near(&shares_at(&*again, 3, base + Duration::from_secs(312)), &[2_400, 2_400, 1_200]);
}

#[test]
fn who_does_not_report_weighs_as_the_others_on_average_by_the_registry() {
    let nodes = weighing(&[100, 100, 200]);
    let picker = WeightedRoundRobin::new(1).rebuild(&nodes);
    let base = Instant::now();
    report(&nodes, &[Some((100.0, 0.5, 0.0)), None, None], base, 0, 15);
    near(&shares_at(&*picker, 3, base + Duration::from_secs(14)), &[1_500, 1_500, 3_000]);
    report(&nodes, &[Some((100.0, 0.5, 0.0)), Some((100.0, 0.25, 0.0)), None], base, 15, 30);
    // 200, 400, and twice the mean of 300.
    near(&shares_at(&*picker, 3, base + Duration::from_secs(29)), &[1_000, 2_000, 3_000]);
}

/// What a hostile server says can neither break it nor starve the others for good.
#[test]
fn absurd_reports_are_borne() {
    let nodes = weighing(&[1, 1, 1]);
    let picker = WeightedRoundRobin::new(1).rebuild(&nodes);
    let base = Instant::now();
    report(
        &nodes,
        &[Some((1e300, 1e-300, 1e300)), Some((f64::MIN_POSITIVE, 1e300, 0.0)), Some((1e30, 1e-30, 0.0))],
        base,
        0,
        20,
    );
    let shares = shares_at(&*picker, 3, base + Duration::from_secs(19));
    assert_eq!(shares.iter().sum::<usize>(), 6_000);
}

#[test]
fn options_are_those_of_grpc() {
    let config = r#"{"loadBalancingConfig": [{"weighted_round_robin": {"blackoutPeriod": "2s", "weightExpirationPeriod": "60s",
        "weightUpdatePeriod": "0.5s", "errorUtilizationPenalty": 2,
        "enableOobLoadReport": true, "oobReportingPeriod": "3s"}}]}"#;
    let policy = Policy::from_service_config(config).expect("valid").expect("there is one");
    assert_eq!(
        policy.name(),
        "weighted_round_robin,blackout_period=2s,weight_expiration_period=60s,weight_update_period=0.5s,\
         error_utilization_penalty=2,enable_oob_load_report=true,oob_reporting_period=3s"
    );
    assert_eq!(policy.balancer(1).load_reports(), Some(Duration::from_secs(3)));
    let usual = "weighted_round_robin,oob_reporting_period=3s".parse::<Policy>().expect("valid");
    assert_eq!(usual.balancer(1).load_reports(), None);
    for wrong in ["blackout_period=x", "error_utilization_penalty=-1", "error_utilization_penalty=NaN"] {
        let error = format!("weighted_round_robin,{wrong}").parse::<Policy>().expect_err(wrong);
        assert!(error.to_string().contains(wrong.split('=').next().expect("a key")), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Of policies that go by weight, endpoints that are idle get what they weigh: by turns to the call, by chance or a
    /// table nearly so, on a ring as near as its points are many.
    #[test]
    fn who_is_idle_gets_what_it_weighs(weights in proptest::collection::vec(1u32..10, 2..6)) {
        let (nodes, picks) = (weighing(&weights), 20_000);
        let all: u32 = weights.iter().sum();
        for (policy, within) in [("weighted_round_robin", 0.001), ("adaptive", 0.1), ("maglev", 0.1), ("ring_hash", 0.5)] {
            let shares = shares(policy, &nodes, picks);
            for (share, weight) in shares.iter().zip(&weights) {
                let due = picks as f64 * f64::from(*weight) / f64::from(all);
                prop_assert!((*share as f64 - due).abs() <= within * due + 2.0, "{}: {:?} of {:?}", policy, shares, weights);
            }
        }
    }
}
