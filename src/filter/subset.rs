//! A part of the set that is the client's own: by rendezvous hashing.

use std::sync::Arc;

use crate::{instance::ServiceInstance, util::rank::rank};

/// Keeps the `size` instances that rank first for this seed, in the order they had.
///
/// An instance's rank depends on nothing but itself and the seed: who comes or goes moves at most
/// one other.
pub(super) fn keep(instances: &mut Vec<Arc<ServiceInstance>>, size: usize, seed: u64) {
    if instances.len() <= size {
        return;
    }
    let mut places: Vec<_> = (0..instances.len()).collect();
    places.sort_by_cached_key(|&at| rank(seed, instances[at].id()));
    places.truncate(size);
    places.sort_unstable();
    *instances = places.into_iter().map(|at| instances[at].clone()).collect();
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::btree_set, prelude::*, sample::Index};

    use super::*;

    fn set(ids: impl IntoIterator<Item = usize>) -> Vec<Arc<ServiceInstance>> {
        let instance = |id| ServiceInstance::builder("s", format!("i{id}")).and_then(|builder| builder.build());
        ids.into_iter().map(|id| Arc::new(instance(id).expect("valid"))).collect()
    }

    fn kept(mut instances: Vec<Arc<ServiceInstance>>, seed: u64) -> BTreeSet<String> {
        keep(&mut instances, 5, seed);
        instances.iter().map(|instance| instance.id().to_string()).collect()
    }

    #[test]
    fn clients_together_use_all_evenly() {
        let mut uses = BTreeMap::new();
        for seed in 0..2_000 {
            let subset = kept(set(0..20), seed);
            assert_eq!(subset.len(), 5);
            subset.into_iter().for_each(|id| *uses.entry(id).or_insert(0) += 1);
        }
        assert!(uses.len() == 20 && uses.values().all(|uses| (400..600).contains(uses)), "{uses:?}");
    }

    proptest! {
        /// Rendezvous: who comes or goes moves at most one other, and the order of the set says nothing.
        #[test]
        fn one_that_goes_moves_at_most_one(ids in btree_set(0usize..1_000, 1..40), gone in any::<Index>(), seed: u64) {
            let ids: Vec<_> = ids.into_iter().collect();
            let before = kept(set(ids.iter().copied()), seed);
            prop_assert_eq!(before.len(), ids.len().min(5));
            prop_assert_eq!(&kept(set(ids.iter().rev().copied()), seed), &before);
            let gone = *gone.get(&ids);
            let after = kept(set(ids.iter().copied().filter(|id| *id != gone)), seed);
            let moved: Vec<_> = before.difference(&after).collect();
            let was_in = before.contains(&format!("i{gone}"));
            prop_assert!(moved.iter().all(|id| **id == format!("i{gone}")), "{moved:?}");
            prop_assert_eq!(after.difference(&before).count(), usize::from(was_in && ids.len() > 5));
        }
    }
}
