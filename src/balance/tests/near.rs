use std::{collections::BTreeMap, time::Duration};

use super::{stand::*, *};

fn zoned(zones: &[(&str, u32)]) -> Vec<Node> {
    let node = |(n, (zone, weight)): (usize, &(&str, u32))| {
        let region = &zone[..1];
        with(n, &[("zone", zone), ("region", region), ("weight", &weight.to_string())])
    };
    zones.iter().enumerate().map(node).collect()
}

fn by_zone(stand: &mut Stand, calls: usize) -> BTreeMap<String, f64> {
    let shares = stand.shares(calls);
    let mut zones = BTreeMap::new();
    for (node, share) in stand.nodes.iter().zip(shares) {
        let zone = node.endpoint().instance().locality().zone().unwrap_or("").to_owned();
        *zones.entry(zone).or_default() += share as f64 / calls as f64;
    }
    zones
}

#[test]
fn no_call_leaves_a_zone_that_has_its_share() {
    let nodes = zoned(&[("a", 100), ("a", 100), ("b", 100), ("b", 100), ("c", 100), ("c", 100)]);
    for own in ["a", "b", "c"] {
        let zones = by_zone(&mut Stand::new(&format!("random,prefer_zone={own}"), nodes.clone()), 1_000);
        assert_eq!(zones[own], 1.0, "{zones:?}");
    }
    // More than its share changes nothing; less sends what is too much to those who have more.
    let nodes = zoned(&[("a", 100), ("b", 200), ("b", 200), ("c", 100), ("d", 200)]);
    let zones = by_zone(&mut Stand::new("random,prefer_zone=b", nodes.clone()), 1_000);
    assert_eq!(zones["b"], 1.0);
    let zones = by_zone(&mut Stand::new("random,prefer_zone=a", nodes), 40_000);
    assert!((zones["a"] - 0.5).abs() < 0.02 && (zones["b"] - 0.5).abs() < 0.02, "{zones:?}");
}

#[test]
fn who_is_lost_takes_capacity_along() {
    let nodes = zoned(&[("a", 100), ("a", 100), ("b", 100), ("b", 100)]);
    let mut stand = Stand::new("round_robin,prefer_zone=a", nodes);
    assert_eq!(by_zone(&mut stand, 100)["a"], 1.0);
    stand.standing[0] = Standing::Failed;
    stand.publish();
    let zones = by_zone(&mut stand, 40_000);
    assert!((zones["a"] - 2.0 / 3.0).abs() < 0.02, "{zones:?}");
    stand.standing[1] = Standing::Failed;
    stand.publish();
    assert_eq!(by_zone(&mut stand, 100)["b"], 1.0, "nothing left in the own zone");
    stand.standing[3] = Standing::Failed;
    stand.standing[0] = Standing::Ready;
    stand.standing[1] = Standing::Ready;
    stand.publish();
    assert_eq!(by_zone(&mut stand, 100)["a"], 1.0);
    // Less than half are ready: no zones.
    stand.nodes.extend(zoned(&[("c", 1), ("c", 1), ("c", 1), ("c", 1), ("c", 1)]));
    stand.standing.resize(9, Standing::Connecting);
    stand.publish();
    let shares = stand.shares(300);
    assert_eq!(shares[..4], [100, 100, 100, 0]);
}

#[test]
fn who_is_refused_at_home_goes_on_elsewhere() {
    let mut stand = Stand::new("random,prefer_zone=a", zoned(&[("a", 100), ("b", 100), ("c", 100)]));
    assert_eq!(stand.pick(None, &[]), Some(0));
    assert!(matches!(stand.pick(None, &[0]), Some(1 | 2)));
    assert_eq!(stand.pick(None, &[0, 2]), Some(1));
    assert_eq!(stand.pick(None, &[0, 1, 2]), None);
}

#[test]
fn the_region_comes_before_the_zone() {
    let nodes = zoned(&[("a1", 100), ("a2", 300), ("b1", 200), ("b2", 200)]);
    let mut stand = Stand::new("random,prefer_region=a,prefer_zone=a1", nodes);
    let zones = by_zone(&mut stand, 40_000);
    // a has half of all, so nothing leaves it; a1 has a quarter of a, with two zones there.
    assert!((zones["a1"] - 0.5).abs() < 0.02 && (zones["a2"] - 0.5).abs() < 0.02, "{zones:?}");
}

#[test]
fn a_key_stays_where_it_is() {
    let nodes = zoned(&[("a", 100), ("b", 300), ("b", 300)]);
    let mut stand = Stand::new("maglev,table_size=251,prefer_zone=a", nodes);
    let mut away = 0;
    for n in 0..400 {
        let mut key = Extensions::new();
        key.insert(HashKey::new(format!("user {n}")));
        let first = stand.pick(Some(&key), &[]);
        assert!((0..20).all(|_| stand.pick(Some(&key), &[]) == first));
        away += usize::from(first != Some(0));
    }
    // A seventh of the capacity, of two zones: 2/7 stay.
    assert!((240..330).contains(&away), "{away}");
}

#[test]
fn zones_without_end_are_balanced_together() {
    let names: Vec<_> = (0..200).map(|n| format!("z{n:03}")).collect();
    let mut zones: Vec<_> = names.iter().map(|name| (name.as_str(), 200)).collect();
    zones[0].1 = 100;
    let mut stand = Stand::new("weighted_round_robin,prefer_zone=z000", zoned(&zones));
    let shares = stand.shares(100_000);
    assert!((49_000..51_500).contains(&shares[0]), "{}", shares[0]);
    assert!(shares[1..200].iter().all(|share| (150..360).contains(share)), "{shares:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The law: where callers are spread evenly over the zones, each zone gets what it weighs, and no more
    /// calls leave their zone than must.
    #[test]
    fn evenly_spread_callers_load_all_alike(weights in proptest::collection::vec(1u32..10, 2..6)) {
        let names: Vec<_> = (0..weights.len()).map(|n| format!("z{n}")).collect();
        let zones: Vec<_> = names.iter().map(String::as_str).zip(weights.iter().map(|weight| weight * 100)).collect();
        let (calls, all) = (20_000, f64::from(weights.iter().sum::<u32>()));
        let mean = 1.0 / weights.len() as f64;
        let mut load = BTreeMap::<String, f64>::new();
        for (own, weight) in names.iter().zip(&weights) {
            let mut stand = Stand::new(&format!("random,prefer_zone={own}"), zoned(&zones));
            stand.pass(Duration::from_secs(1));
            let shares = by_zone(&mut stand, calls);
            let stays = (f64::from(*weight) / all / mean).min(1.0);
            prop_assert!((shares[own] - stays).abs() < 0.02, "{own} of {zones:?}: {shares:?}");
            for (zone, share) in shares {
                *load.entry(zone).or_default() += share * mean;
            }
        }
        for (name, weight) in names.iter().zip(&weights) {
            prop_assert!((load[name] - f64::from(*weight) / all).abs() < 0.02, "{zones:?}: {load:?}");
        }
    }
}
