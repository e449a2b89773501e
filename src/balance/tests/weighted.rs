use super::*;

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
