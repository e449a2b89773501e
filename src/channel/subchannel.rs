//! The connectivity of one endpoint: a state machine that does no I/O.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    connections::{Connections, More},
    served::Served,
    transport::Connection,
};
use crate::{
    balance::{Node, Standing},
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
    served: Served,
    state: State,
    backoff: Backoff,
    /// The last dial's, so that what is told can be told apart.
    generation: u64,
    /// Why it is not ready; stays through further tries until one succeeds (gRFC A62).
    failure: Option<Error>,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting { _dial: Task },
    Ready(Ready),
    TransientFailure { retry_at: Instant },
}

#[derive(Debug)]
struct Ready {
    /// At least one.
    live: Vec<Live>,
    connections: Arc<Connections>,
    another: Another,
    more: Arc<More>,
}

#[derive(Debug)]
struct Live {
    generation: u64,
    connection: Connection,
    since: Instant,
    /// What follows its load reports.
    _reports: Option<Task>,
}

/// One more connection.
#[derive(Debug)]
enum Another {
    /// When calls ask.
    Possible,
    Connecting {
        _dial: Task,
    },
    /// Calls asked, but the last try failed.
    Later {
        retry_at: Instant,
    },
}

/// A connection that lived shorter, and on which no call was answered, counts as a failed try: else a
/// server that accepts and then breaks would be dialled without end.
const HEALTHY: Duration = Duration::from_secs(5);

/// One that the server asked to leave may have been short: servers bound the age of connections.
const POLITE: Duration = Duration::from_secs(1);

impl Subchannel {
    pub(super) fn new(served: Served, backoff: Arc<BackoffConfig>) -> Self {
        Self { served, state: State::Idle, backoff: Backoff::new(backoff), generation: 0, failure: None }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        self.served.endpoint()
    }

    pub(super) fn node(&self) -> &Node {
        self.served.node()
    }

    pub(super) fn load(&self) -> &Arc<LoadCell> {
        self.node().load()
    }

    /// The same place with a new description; the connections stay.
    pub(super) fn describe(&mut self, endpoint: Endpoint) {
        self.served = self.served.describe(endpoint);
        if let State::Ready(ready) = &mut self.state {
            ready.connections = connections(&self.served, &ready.live, &ready.more);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// How it stands, where all are dialled or only some.
    pub(super) fn standing(&self, all: bool) -> Standing {
        match self.connections() {
            Some(_) => Standing::Ready,
            None if self.failure.is_some() => Standing::Failed,
            None if self.is_idle() && !all => Standing::Idle,
            None => Standing::Connecting,
        }
    }

    /// Whether it is connected or will be without anybody's doing.
    pub(super) fn is_chosen(&self) -> bool {
        matches!(self.state, State::Connecting { .. } | State::Ready { .. })
    }

    pub(super) fn connections(&self) -> Option<&Arc<Connections>> {
        match &self.state {
            State::Ready(ready) => Some(&ready.connections),
            _ => None,
        }
    }

    /// Why the last try failed, if none has succeeded since.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// The number of the next try, counted since the last success.
    pub(super) fn attempt(&self) -> u32 {
        self.backoff.attempts() + 1
    }

    /// Begins a try; what `dial` does is told with this generation, which no other one has.
    pub(super) fn connect(&mut self, generation: u64, dial: Task) {
        self.generation = generation;
        match &mut self.state {
            State::Ready(ready) => ready.another = Another::Connecting { _dial: dial },
            state => *state = State::Connecting { _dial: dial },
        }
    }

    /// Whether a try of this generation is under way.
    fn is_connecting(&self, generation: u64) -> bool {
        let connecting = match &self.state {
            State::Connecting { .. } => true,
            State::Ready(ready) => matches!(ready.another, Another::Connecting { .. }),
            State::Idle | State::TransientFailure { .. } => false,
        };
        connecting && self.generation == generation
    }

    /// A try succeeded; tells whether it was still wanted. Calls will ask for one more by `more`, if that
    /// leaves less than `most`.
    pub(super) fn connected(
        &mut self,
        generation: u64,
        connection: Connection,
        most: usize,
        more: impl FnOnce() -> More,
        now: Instant,
    ) -> bool {
        if !self.is_connecting(generation) {
            return false;
        }
        self.failure = None;
        let (mut live, more) = match &mut self.state {
            State::Ready(ready) => (std::mem::take(&mut ready.live), ready.more.clone()),
            _ => {
                self.served.node().load().forget_reports();
                (Vec::with_capacity(1), Arc::new(more()))
            }
        };
        live.push(Live { generation, connection, since: now, _reports: None });
        if live.len() < most {
            more.rearm();
        }
        self.ready(live, Another::Possible, more);
        true
    }

    /// Keeps a task for as long as the connection of a try takes calls.
    pub(super) fn keep(&mut self, generation: u64, reports: Task) {
        if let State::Ready(ready) = &mut self.state
            && let Some(live) = ready.live.iter_mut().find(|live| live.generation == generation)
        {
            live._reports = Some(reports);
        }
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    fn ready(&mut self, live: Vec<Live>, another: Another, more: Arc<More>) {
        let connections = connections(&self.served, &live, &more);
        self.state = State::Ready(Ready { live, connections, another, more });
    }

    /// Calls found every stream of every connection taken; tells whether to dial one more.
    pub(super) fn wants_another(&self, most: usize) -> bool {
        match &self.state {
            State::Ready(ready) => matches!(ready.another, Another::Possible) && ready.live.len() < most,
            _ => false,
        }
    }

    /// A try failed; tells when the next begins, none if it was not wanted any more.
    pub(super) fn connect_failed(
        &mut self,
        generation: u64,
        error: &Error,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Instant> {
        if !self.is_connecting(generation) {
            return None;
        }
        if let State::Ready(ready) = &mut self.state {
            let retry_at = now + self.backoff.next(rng);
            ready.another = Another::Later { retry_at };
            return Some(retry_at);
        }
        self.failure = Some(error.clone());
        Some(self.back_off(now, rng))
    }

    /// The server said GOAWAY; tells when to dial a replacement, none for at once.
    pub(super) fn going_away(&mut self, generation: u64, now: Instant, rng: &mut Rng) -> Lost {
        self.lost(generation, POLITE, None, now, rng)
    }

    /// The connection broke; tells when to dial again, none for at once.
    pub(super) fn disconnected(&mut self, generation: u64, error: Option<Error>, now: Instant, rng: &mut Rng) -> Lost {
        self.lost(generation, HEALTHY, error, now, rng)
    }

    /// The wait after a failure is over.
    pub(super) fn retry(&mut self, now: Instant) {
        match &mut self.state {
            State::TransientFailure { retry_at } if *retry_at <= now => self.state = State::Idle,
            State::Ready(ready) if matches!(ready.another, Another::Later { retry_at } if retry_at <= now) => {
                ready.another = Another::Possible;
                ready.more.rearm();
            }
            _ => {}
        }
    }

    /// Drops its connections; it can be dialled anew.
    pub(super) fn rest(&mut self) {
        self.failure = None;
        self.state = State::Idle;
    }

    fn lost(
        &mut self,
        generation: u64,
        long_enough: Duration,
        error: Option<Error>,
        now: Instant,
        rng: &mut Rng,
    ) -> Lost {
        let State::Ready(ready) = &mut self.state else { return Lost::Unknown };
        let Some(at) = ready.live.iter().position(|live| live.generation == generation) else { return Lost::Unknown };
        let lost = ready.live.remove(at);
        let young = now.saturating_duration_since(lost.since) < long_enough && !lost.connection.has_answered();
        if !ready.live.is_empty() {
            // The others go on; whether one more is wanted, calls will say.
            let (live, more) = (std::mem::take(&mut ready.live), ready.more.clone());
            let another = std::mem::replace(&mut ready.another, Another::Possible);
            let (another, retry_at) = match another {
                Another::Possible if young => {
                    let retry_at = now + self.backoff.next(rng);
                    (Another::Later { retry_at }, Some(retry_at))
                }
                another => (another, None),
            };
            if matches!(another, Another::Possible) {
                more.rearm();
            }
            self.ready(live, another, more);
            return Lost::Known { retry_at };
        }
        if let Another::Connecting { _dial } = std::mem::replace(&mut ready.another, Another::Possible) {
            self.state = State::Connecting { _dial };
            return Lost::Known { retry_at: None };
        }
        if young {
            self.failure = Some(error.unwrap_or_else(|| Error::unavailable("the server closed a young connection")));
            return Lost::Known { retry_at: Some(self.back_off(now, rng)) };
        }
        self.backoff.reset();
        self.state = State::Idle;
        Lost::Known { retry_at: None }
    }

    fn back_off(&mut self, now: Instant, rng: &mut Rng) -> Instant {
        let retry_at = now + self.backoff.next(rng);
        self.state = State::TransientFailure { retry_at };
        retry_at
    }
}

fn connections(served: &Served, live: &[Live], more: &Arc<More>) -> Arc<Connections> {
    let list = live.iter().map(|live| live.connection.clone());
    Arc::new(Connections::new(served.clone(), list, more.clone()))
}

/// What the loss of a connection means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: it was given up before.
    Unknown,
    /// It takes no calls any more; something is to be done then, or at once.
    Known { retry_at: Option<Instant> },
}
