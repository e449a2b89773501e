//! A mean and its count in one word.

use crate::util::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Of two threads that add to it at once one may lose its value, which is as good.
#[derive(Debug, Default)]
pub(crate) struct Mean {
    /// A 32-bit float, its five last bits the count up to 31.
    state: AtomicU32,
}

const MOST: u32 = 31;

impl Mean {
    /// Of how many, up to 31, it is.
    pub(crate) fn get(&self) -> (f32, u32) {
        unpack(self.state.load(Relaxed), MOST)
    }

    pub(super) fn set(&self, mean: f32, count: u32) {
        self.state.store(pack(mean, count, MOST), Relaxed);
    }

    /// One more counts as much as each before, and no less than such a part.
    pub(crate) fn add(&self, value: f32, least: f32) {
        let (mean, count) = self.get();
        self.set(mean + (value - mean) * gain(count, least), count + 1);
    }

    pub(super) fn clear(&self) {
        self.state.store(0, Relaxed);
    }
}

/// A float whose last bits are a count.
pub(super) fn pack(mean: f32, count: u32, most: u32) -> u32 {
    (mean.to_bits() & !most) | count.min(most)
}

pub(super) fn unpack(state: u32, most: u32) -> (f32, u32) {
    (f32::from_bits(state & !most), state & most)
}

/// What part of a mean of so many one more is.
pub(super) fn gain(count: u32, least: f32) -> f32 {
    (1.0 / (count + 1) as f32).max(least)
}
