//! What happens next.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Nanoseconds since the beginning.
pub type Nanos = u64;

/// Later than all else.
pub const NEVER: Nanos = u64::MAX;

/// Nanoseconds of so many milliseconds.
#[must_use]
pub fn millis(ms: f64) -> Nanos {
    (ms * 1e6).round() as Nanos
}

/// Nanoseconds of so many seconds.
#[must_use]
pub fn seconds(s: f64) -> Nanos {
    millis(s * 1e3)
}

/// What may happen, and to which call, server, probe, or pair of client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call reaches its server.
    Arrive,
    /// A worker is done with a call.
    Done,
    /// A server that shares its processor is done with a call.
    Shared,
    /// An answer reaches the client.
    Answer,
    /// A call has waited long enough for a server to be ready.
    Impatient,
    /// An event of the scenario begins, goes on or ends.
    Change,
    /// A server's antagonist begins or ends a burst.
    Burst,
    /// A client hears that something is new with a server.
    News,
    /// A client's dial ends.
    Dialled,
    /// A client dials again.
    Redial,
    /// A client's balancer looks at its servers.
    Sweep,
    /// A probe reaches its server.
    Asked,
    /// What a server says of a probe reaches the client.
    Told,
    /// A call has waited long enough for its probes.
    Waited,
}

const KINDS: [Kind; 14] = [
    Kind::Arrive,
    Kind::Done,
    Kind::Shared,
    Kind::Answer,
    Kind::Impatient,
    Kind::Change,
    Kind::Burst,
    Kind::News,
    Kind::Dialled,
    Kind::Redial,
    Kind::Sweep,
    Kind::Asked,
    Kind::Told,
    Kind::Waited,
];

/// An event's subject must be less.
pub const SUBJECTS: usize = 1 << 28;

/// All that is to happen, the next first; of two at one time the one that was put in first.
#[derive(Debug, Default)]
pub struct Queue {
    // Time, order, kind and subject in one number, which is quick to compare.
    heap: BinaryHeap<Reverse<u128>>,
    order: u32,
}

impl Queue {
    /// Puts an event in, unless it never happens.
    pub fn push(&mut self, at: Nanos, kind: Kind, subject: usize) {
        debug_assert!(subject < SUBJECTS, "{subject} is too large");
        if at == NEVER {
            return;
        }
        self.order = self.order.wrapping_add(1);
        let low = (u64::from(self.order) << 32) | ((kind as u64) << 28) | subject as u64;
        self.heap.push(Reverse((u128::from(at) << 64) | u128::from(low)));
    }

    /// When the next one is.
    #[must_use]
    pub fn next_at(&self) -> Nanos {
        self.heap.peek().map_or(NEVER, |Reverse(event)| (event >> 64) as Nanos)
    }

    /// Takes the next one out.
    pub fn pop(&mut self) -> Option<(Nanos, Kind, usize)> {
        let Reverse(event) = self.heap.pop()?;
        let low = event as u32 as usize;
        Some(((event >> 64) as Nanos, KINDS[low >> 28], low & (SUBJECTS - 1)))
    }
}
