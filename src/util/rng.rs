//! Seedable randomness: the same seed gives the same choices.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rand::{Rng as _, RngExt as _, SeedableRng, rngs::SmallRng};

use super::mix::{GOLDEN, mix};

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

/// Random bits for calls, on any thread: each thread has a generator of its own, so that none waits
/// for another; unless they are to be repeatable.
#[derive(Debug)]
pub(crate) enum Draws {
    Threads,
    Seeded(AtomicU64),
}

impl Draws {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        seed.map_or(Self::Threads, |seed| Self::Seeded(AtomicU64::new(seed)))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        thread_local! {
            static RNG: RefCell<Rng> = RefCell::new(Rng::from_entropy());
        }
        match self {
            Self::Threads => RNG.with_borrow_mut(Rng::next_u64),
            Self::Seeded(state) => mix(state.fetch_add(GOLDEN, Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_is_the_published_sequence() {
        let draws = Draws::new(Some(1_234_567));
        assert_eq!(draws.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(draws.next_u64(), 3_203_168_211_198_807_973);
        assert_ne!(Draws::new(None).next_u64(), Draws::new(None).next_u64());
    }
}
