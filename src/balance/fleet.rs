//! What a balancer is told of all endpoints, ready or not, and of the time.

use std::{fmt, time::Instant};

use super::Node;

/// All endpoints that a channel knows, and the time of its clock: what [`Balancer::sweep`](super::Balancer::sweep)
/// looks at.
#[derive(Clone, Copy)]
pub struct Fleet<'a> {
    now: Instant,
    all: All<'a>,
}

/// Tells each endpoint, in one order; nothing is gathered for those who do not ask.
type All<'a> = &'a dyn Fn(&mut dyn FnMut(&Node, Standing));

/// How an endpoint stands with its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// Nobody dials it, as the policy connects to another one.
    Idle,
    /// It is dialled, and the dial before did not fail.
    Connecting,
    /// It takes calls.
    Ready,
    /// The last dial failed; it stays so until one succeeds (gRFC A62).
    Failed,
    /// It is ready, but set aside by who wraps this balancer.
    Ejected,
}

impl<'a> Fleet<'a> {
    /// A fleet of what the function tells, each endpoint once.
    pub fn new(now: Instant, all: All<'a>) -> Self {
        Self { now, all }
    }

    /// The time, of the channel's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Tells each endpoint and how it stands.
    pub fn each(&self, mut visit: impl FnMut(&Node, Standing)) {
        (self.all)(&mut visit);
    }
}

impl fmt::Debug for Fleet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        self.each(|node, standing| {
            list.entry(&(node.endpoint(), standing));
        });
        list.finish()
    }
}

/// What came of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
#[non_exhaustive]
pub struct Sweep {
    /// Whether to ask for another picker, though the same endpoints are ready.
    pub changed: bool,
    /// When to sweep again at the latest, if nothing happens before.
    pub next: Option<Instant>,
}

impl Sweep {
    /// What came of it, and when to sweep again.
    pub fn new(changed: bool, next: Option<Instant>) -> Self {
        Self { changed, next }
    }

    /// This one and another in one: changed if one is, and again when the first is due.
    pub fn and(self, other: Self) -> Self {
        Self { changed: self.changed | other.changed, next: self.next.into_iter().chain(other.next).min() }
    }
}
