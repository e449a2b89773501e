use super::{super::hash::hash, *};

fn at(picker: &dyn Picker, key: HashKey) -> usize {
    let (headers, mut extensions) = (HeaderMap::new(), Extensions::new());
    extensions.insert(key);
    let mut info = PickInfo::new("/s/m", &headers, Instant::now(), 0);
    info.extensions = Some(&extensions);
    match picker.pick(&info) {
        Pick::At(at) => at,
        other => panic!("{other:?}"),
    }
}

fn made(policy: &str, nodes: &[Node]) -> Box<dyn Picker> {
    policy.parse::<Policy>().expect(policy).balancer(1).rebuild(nodes)
}

/// XXH64's own examples; gRPC and Envoy hash with seed 0.
#[test]
fn hashes_as_grpc_does() {
    assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
    assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
}

#[test]
fn a_key_goes_before_the_header_and_the_header_before_chance() {
    let nodes = nodes(50);
    for policy in ["ring_hash,hash_header=x-user", "maglev,hash_header=x-user"] {
        let picker = made(policy, &nodes);
        let by_header = |values: &[&str], random| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-user", value.parse().expect("a value"));
            }
            match picker.pick(&PickInfo::new("/s/m", &headers, Instant::now(), random)) {
                Pick::At(at) => at,
                other => panic!("{other:?}"),
            }
        };
        let users: Vec<_> = (0..100).map(|n| format!("user-{n}")).collect();
        for user in &users {
            assert_eq!(by_header(&[user], 1), by_header(&[user], 2), "{policy}: {user}");
            assert_eq!(by_header(&[user], 1), at(&*picker, HashKey::new(user)), "{policy}: {user}");
        }
        assert_eq!(by_header(&["a", "b"], 0), at(&*picker, HashKey::new("a,b")));
        let spread: HashSet<_> = (0..200).map(|n| by_header(&[], mix(n))).collect();
        assert!(spread.len() > 30, "{policy}: without a key only {} of 50", spread.len());
        let spread: HashSet<_> = users.iter().map(|user| by_header(&[user], 0)).collect();
        assert!(spread.len() > 30, "{policy}: 100 users on only {} of 50", spread.len());
    }
}

#[test]
fn shares_are_as_the_weights() {
    let nodes = weighing(&[100, 300, 600]);
    for (policy, off) in [("ring_hash,min_ring_size=50000,max_ring_size=100000", 0.03), ("maglev", 0.005)] {
        let picker = made(policy, &nodes);
        let mut shares = [0.0_f64; 3];
        (0..100_000).for_each(|n| shares[at(&*picker, HashKey::from_hash(mix(n)))] += 1e-5);
        for (share, due) in shares.iter().zip([0.1, 0.3, 0.6]) {
            assert!((share - due).abs() < off, "{policy}: {shares:?}");
        }
    }
}

#[test]
fn a_ring_is_as_large_as_it_may_be_and_no_endpoint_is_left_out() {
    let nodes = nodes(300);
    let picker = made("ring_hash,min_ring_size=1,max_ring_size=1", &nodes);
    let all: HashSet<_> = (0..100_000).map(|n| at(&*picker, HashKey::from_hash(mix(n)))).collect();
    assert!(all.len() > 290, "{} of 300", all.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Of the keys of those that stay no more move than two endpoints have; those of who goes are spread; and it does not matter
    /// in which order the endpoints are told.
    #[test]
    fn few_keys_move(
        policy in prop_oneof![Just("ring_hash,min_ring_size=10000,max_ring_size=100000"), Just("maglev")],
        count in 3usize..40, gone in any::<proptest::sample::Index>(), seed in any::<u64>(),
    ) {
        const KEYS: u64 = 4_000;
        let before = nodes(count);
        let gone = gone.index(count);
        let mut after = before.clone();
        after.remove(gone);
        after.reverse();
        let (first, second) = (made(policy, &before), made(policy, &after));
        let (mut moved, mut orphans, mut heirs) = (0, 0, HashSet::new());
        for n in 0..KEYS {
            let key = HashKey::from_hash(mix(seed ^ n));
            let (old, new) = (at(&*first, key), at(&*second, key));
            let same = before[old].endpoint().key() == after[new].endpoint().key();
            if old == gone {
                orphans += 1;
                heirs.insert(new);
            } else {
                moved += u64::from(!same);
            }
        }
        let due = KEYS / count as u64;
        prop_assert!((due / 2..due * 2).contains(&orphans), "{orphans} keys were at one of {count}");
        // gRPC's ring has more places an endpoint when there are fewer.
        prop_assert!(moved <= due * 2, "{moved} of {KEYS} keys moved between those that stayed, of {count}");
        prop_assert!(heirs.len() * 2 >= (count - 1).min(orphans as usize / 3), "{} heirs of {count}", heirs.len());
    }
}
