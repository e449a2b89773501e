//! What the pool publishes and each call reads: a picker and its connections, as one value.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::connections::Connections;
use crate::{balance::Picker, error::Error, util::thread};

/// One state of a channel.
#[allow(clippy::large_enum_variant, reason = "the large one is the common one, and lives behind an Arc")]
#[derive(Debug)]
pub(super) enum Published {
    /// Calls are picked.
    Ready(Ready),
    /// Nothing is ready, but something may become so: calls wait. The error says for what.
    Waiting(Error),
    /// Nobody used the channel for long: it has no connections until it is woken.
    Idle,
    /// Everything was tried and failed, or there is nothing: calls fail unless they wait.
    Failing(Error),
}

/// What calls pick from: the picker knows the endpoints by position.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) picker: Box<dyn Picker>,
    pub(super) connections: Box<[Arc<Connections>]>,
    pub(super) recent: Recent,
}

/// Where the last call of each thread went.
#[derive(Debug, Default)]
pub(super) struct Recent([Place; 16]);

/// Alone on its cache line: each is written by one thread, or by few.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place(AtomicUsize);

impl Recent {
    /// The position, if there was a call.
    pub(super) fn get(&self) -> Option<usize> {
        self.place().load(Relaxed).checked_sub(1)
    }

    pub(super) fn set(&self, at: usize) {
        let place = self.place();
        // Mostly it is the same.
        if place.load(Relaxed) != at + 1 {
            place.store(at + 1, Relaxed);
        }
    }

    fn place(&self) -> &AtomicUsize {
        &self.0[thread::index() % self.0.len()].0
    }
}
