//! The connections of one endpoint.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{
    served::Served,
    transport::{Connection, Stream},
};
use crate::util::thread;

/// The connections of an endpoint that take calls, at least one.
#[derive(Debug)]
pub(super) struct Connections {
    served: Served,
    list: Box<[Connection]>,
    more: Arc<More>,
}

impl Connections {
    pub(super) fn new(served: Served, list: impl IntoIterator<Item = Connection>, more: Arc<More>) -> Self {
        Self { served, list: list.into_iter().collect(), more }
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The one that this thread begins with.
    pub(super) fn nearest(&self) -> Option<&Connection> {
        self.list.get(if self.list.len() > 1 { thread::index() % self.list.len() } else { 0 })
    }

    /// A stream on one of them, if there is a free one; else asks for one more connection.
    ///
    /// Each thread begins with a connection of its own, so that threads seldom meet at one's lock.
    pub(super) fn open(&self, first_in_line: bool) -> Option<Stream> {
        let from = if self.list.len() > 1 { thread::index() % self.list.len() } else { 0 };
        let (before, after) = self.list.split_at(from);
        let found = after.iter().chain(before).find_map(|connection| connection.open(first_in_line));
        if found.is_none() {
            self.more.ask();
        }
        found
    }
}

/// How a call asks the pool for one more connection to an endpoint, once.
pub(super) struct More {
    asked: AtomicBool,
    ask: Box<dyn Fn() + Send + Sync>,
}

impl More {
    pub(super) fn new(ask: impl Fn() + Send + Sync + 'static) -> Self {
        Self { asked: AtomicBool::new(false), ask: Box::new(ask) }
    }

    fn ask(&self) {
        if !self.asked.load(Relaxed) && !self.asked.swap(true, Relaxed) {
            (self.ask)();
        }
    }

    /// Lets it be asked again.
    pub(super) fn rearm(&self) {
        self.asked.store(false, Relaxed);
    }
}

impl fmt::Debug for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "More({})", self.asked.load(Relaxed))
    }
}
