//! Seedable randomness: the same seed gives the same choices.

use std::cell::RefCell;

use rand::{Rng as _, RngExt as _, SeedableRng, rngs::SmallRng};

/// A small generator; not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Rng(SmallRng);

impl Rng {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Seeded by the operating system, or by the clock of the hasher where there is none.
    pub(crate) fn from_entropy() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::seeded(RandomState::new().hash_one(std::process::id()))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.random()
    }
}

/// A number of this thread's own generator: what a call on the hot path draws.
pub(crate) fn thread_u64() -> u64 {
    thread_local! {
        static RNG: RefCell<Rng> = RefCell::new(Rng::from_entropy());
    }
    RNG.with_borrow_mut(Rng::next_u64)
}
