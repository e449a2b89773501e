//! Where calls wait that found every stream taken: first come, first served.

use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::util::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A line of calls, of which only the first looks for a stream.
///
/// While anybody waits, who comes anew leaves the last free stream of a connection to the first in
/// line, see [`Streams::open`](super::transport::Streams::open): under load that has no end, nobody
/// is passed over for ever.
#[derive(Debug, Default)]
pub(super) struct Line {
    turn: Mutex<()>,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Line {
    /// Whether anybody waits.
    pub(super) fn is_occupied(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Tells the first in line that there may be a free stream now.
    pub(super) fn freed(&self) {
        // A stream is counted out before this looks, and who waits is counted in before it looks for
        // a stream: in the one order of all these, one of both sees the other.
        if self.is_occupied() {
            self.freed.notify_one();
        }
    }

    /// Waits to be the first in line. Dropping the future, or the place, leaves the line.
    pub(super) async fn join(&self) -> Place<'_> {
        self.waiting.fetch_add(1, SeqCst);
        let counted = Counted(self);
        Place { _turn: self.turn.lock().await, counted }
    }
}

/// The first place in the line.
#[derive(Debug)]
pub(super) struct Place<'a> {
    _turn: MutexGuard<'a, ()>,
    counted: Counted<'a>,
}

impl Place<'_> {
    /// Waits until a stream may have become free since this was last asked.
    pub(super) async fn freed(&self) {
        self.counted.0.freed.notified().await;
    }
}

#[derive(Debug)]
struct Counted<'a>(&'a Line);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
