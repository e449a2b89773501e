//! How many streams a connection carries, and how many it may.

use crate::{
    channel::line::Line,
    error::Error,
    util::sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

/// Counts the streams of one connection against the server's MAX_CONCURRENT_STREAMS
/// ([RFC 9113, 5.1.2](https://www.rfc-editor.org/rfc/rfc9113#section-5.1.2)).
#[derive(Debug)]
pub(in crate::channel) struct Streams {
    open: AtomicU32,
    limit: AtomicU32,
    line: Arc<Line>,
    /// Whether the server has answered a call on it.
    answered: AtomicBool,
    /// Why the connection ended, once it has.
    ended: OnceLock<Error>,
}

impl Streams {
    /// None is open, and none may be.
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self {
            open: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            line,
            answered: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    /// Sets how many there may be at once; what is open goes on. 0 ends the connection for calls.
    pub(super) fn allow(&self, limit: usize) {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        // Asked often, and changed hardly ever.
        if limit != self.limit.load(SeqCst) && limit > self.limit.swap(limit, SeqCst) {
            self.line.freed();
        }
    }

    pub(super) fn answered(&self) {
        if !self.answered.load(Relaxed) {
            self.answered.store(true, Relaxed);
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// The connection has ended, if for a reason then for this one.
    pub(super) fn end(&self, why: Option<Error>) {
        self.allow(0);
        why.map(|why| self.ended.set(why));
    }

    pub(super) fn ended(&self) -> Option<&Error> {
        self.ended.get()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.open.load(SeqCst) == 0
    }

    pub(super) fn are_several(&self) -> bool {
        self.open.load(SeqCst) > 1
    }

    /// Counts one in, if there is room; of the last free one, only for the first in line.
    pub(super) fn open(&self, first_in_line: bool) -> bool {
        let reserved = u32::from(!first_in_line && self.line.is_occupied());
        let limit = self.limit.load(SeqCst);
        let counted = |open: u32| (open.saturating_add(reserved) < limit).then(|| open + 1);
        self.open.fetch_update(SeqCst, SeqCst, counted).is_ok()
    }

    /// Counts one out.
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, SeqCst);
        self.line.freed();
    }
}
