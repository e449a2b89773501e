//! An order of one's own.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Where something stands in the order that a seed makes (rendezvous hashing): it depends on nothing else, so who comes
/// or goes moves nobody.
pub(crate) fn rank(seed: u64, what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, what).hash(&mut hasher);
    hasher.finish()
}
