//! The connectivity of one endpoint: a state machine that does no I/O.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::transport::Connection;
use crate::{
    endpoint::Endpoint,
    error::Error,
    load::LoadCell,
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
        task::Task,
    },
};

/// An endpoint that the channel knows, and how far it is connected
/// ([gRPC connectivity states](https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md)).
#[derive(Debug)]
pub(super) struct Subchannel {
    endpoint: Endpoint,
    load: Arc<LoadCell>,
    state: State,
    backoff: Backoff,
    /// Which connection the events of drivers must be about.
    generation: u64,
    /// Why it is not ready; stays through further tries until one succeeds (gRFC A62).
    failure: Option<Error>,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting { _dial: Task },
    Ready { connection: Connection, since: Instant },
    TransientFailure { retry_at: Instant },
}

/// A connection that lived shorter counts as a failed try: else a server that accepts and then
/// breaks would be dialled without end.
const HEALTHY: Duration = Duration::from_secs(5);

/// One that the server asked to leave may have been short: servers bound the age of connections.
const POLITE: Duration = Duration::from_secs(1);

impl Subchannel {
    pub(super) fn new(endpoint: Endpoint, backoff: BackoffConfig) -> Self {
        Self {
            endpoint,
            load: Arc::default(),
            state: State::Idle,
            backoff: Backoff::new(backoff),
            generation: 0,
            failure: None,
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn load(&self) -> &Arc<LoadCell> {
        &self.load
    }

    /// The same place with a new description; the connection stays.
    pub(super) fn describe(&mut self, endpoint: Endpoint) {
        self.endpoint = endpoint;
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether it is connected or will be without anybody's doing.
    pub(super) fn is_chosen(&self) -> bool {
        matches!(self.state, State::Connecting { .. } | State::Ready { .. })
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Ready { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// Why the last try failed, if none has succeeded since.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Whether an event of this generation is about the present try or connection.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// The number of the next try, counted since the last success.
    pub(super) fn attempt(&self) -> u32 {
        self.backoff.attempts() + 1
    }

    /// Begins a try; what `dial` starts reports with the generation it is given.
    pub(super) fn connect(&mut self, dial: impl FnOnce(u64) -> Task) {
        self.generation += 1;
        self.state = State::Connecting { _dial: dial(self.generation) };
    }

    pub(super) fn connected(&mut self, connection: Connection, now: Instant) {
        self.failure = None;
        self.state = State::Ready { connection, since: now };
    }

    /// A try failed; tells when the next begins.
    pub(super) fn connect_failed(&mut self, error: Error, now: Instant, rng: &mut Rng) -> Instant {
        self.failure = Some(error);
        self.back_off(now, rng)
    }

    /// The server said GOAWAY; tells when to dial a replacement, none for at once.
    pub(super) fn going_away(&mut self, now: Instant, rng: &mut Rng) -> Option<Instant> {
        self.lost(POLITE, None, now, rng)
    }

    /// The connection broke; tells when to dial again, none for at once.
    pub(super) fn disconnected(&mut self, error: Option<Error>, now: Instant, rng: &mut Rng) -> Option<Instant> {
        self.lost(HEALTHY, error, now, rng)
    }

    /// The wait after a failure is over.
    pub(super) fn retry(&mut self, now: Instant) {
        if matches!(self.state, State::TransientFailure { retry_at } if retry_at <= now) {
            self.state = State::Idle;
        }
    }

    fn lost(&mut self, long_enough: Duration, error: Option<Error>, now: Instant, rng: &mut Rng) -> Option<Instant> {
        let State::Ready { since, .. } = self.state else { return None };
        if now.saturating_duration_since(since) < long_enough {
            self.failure = Some(error.unwrap_or_else(|| Error::unavailable("the server closed a young connection")));
            return Some(self.back_off(now, rng));
        }
        self.backoff.reset();
        self.state = State::Idle;
        None
    }

    fn back_off(&mut self, now: Instant, rng: &mut Rng) -> Instant {
        let retry_at = now + self.backoff.next(rng);
        self.state = State::TransientFailure { retry_at };
        retry_at
    }
}
