//! A number that threads share.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A 32-bit float. Of two threads that change it at once one may lose what it adds, which is as good.
#[derive(Debug, Default)]
pub(super) struct Number(AtomicU32);

impl Number {
    pub(super) fn new(value: f32) -> Self {
        Self(AtomicU32::new(value.to_bits()))
    }

    pub(super) fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Relaxed))
    }

    pub(super) fn set(&self, value: f32) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Moves a mean towards what was found by such a part, from what stands there before anything was.
    pub(super) fn average(&self, nothing: f32, found: f32, part: f32) {
        let before = self.get();
        self.set(if before == nothing { found } else { before + (found - before) * part });
    }
}
