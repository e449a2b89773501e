//! A run: calls from their clients to servers and back, event by event.

use std::{collections::VecDeque, time::Instant};

use callsign::{
    Endpoint,
    balance::Policy,
    load::{BriefReport, Outcome},
};
use http::HeaderMap;

use super::{
    arrivals::Arrivals,
    calls::{Calls, NOWHERE, Stage},
    central::Central,
    client::{Client, Found, base, clock, endpoints, heard},
    condition::Conditions,
    oracle::{Oracle, choose},
    probing::Probing,
    queue::{Kind, NEVER, Nanos, Queue, millis, seconds},
    rng::Rng,
    scenario::{Code, Discipline, Scenario},
    server::{Admitted, Server},
    tally::{Ending, Tally},
};

/// Who chooses the servers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Chooser {
    /// Clients, each with a balancer.
    Policy(Policy),
    /// One who knows everything.
    Oracle(Oracle),
}

/// All that there is in a run.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) now: Nanos,
    pub(super) queue: Queue,
    pub(super) calls: Calls,
    pub(super) servers: Vec<Server>,
    pub(super) conditions: Conditions,
    pub(super) clients: Vec<Client>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) oracle: Option<Oracle>,
    /// Which servers the oracle uses now.
    pub(super) usable: Vec<bool>,
    pub(super) central: Central,
    pub(super) probing: Probing,
    arrivals: Arrivals,
    next_call: Nanos,
    /// When each call ends at the latest, which is in the order in which they began.
    deadlines: VecDeque<(Nanos, u32, u64)>,
    deadline: Nanos,
    measured: (Nanos, Nanos),
    open: usize,
    open_measured: usize,
    ended: u64,
    pub(super) base: Instant,
    headers: HeaderMap,
    network: Rng,
    luck: Rng,
    tally: Tally,
}

/// So long a call waits for a server to be ready: the channel's default.
const PATIENCE: Nanos = 3_000_000_000;

/// Simulates a scenario once.
///
/// # Errors
///
/// If the crate does not take the servers' weights.
///
/// # Panics
///
/// If a call ended twice or never, or a load cell still counts one.
pub fn run(scenario: &Scenario, chooser: &Chooser, seed: u64) -> Result<Tally, String> {
    let mut world = World::new(scenario, chooser, seed)?;
    world.run();
    assert_eq!(world.ended, world.calls.begun(), "each call ends once");
    let counted: u64 = world.clients.iter().map(Client::in_flight).sum();
    assert_eq!(counted, 0, "calls that load cells still count");
    Ok(Tally { simulated: world.ended, ..world.tally })
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, chooser: &Chooser, seed: u64) -> Result<Self, String> {
        let mut queue = Queue::default();
        let conditions = Conditions::new(scenario, seed, &mut queue);
        let oracle = if let Chooser::Oracle(oracle) = chooser { Some(*oracle) } else { None };
        let one_queue = oracle == Some(Oracle::OneQueue);
        let server = |(at, group)| {
            let mut group = super::scenario::Servers::clone(group);
            if one_queue {
                // A call comes only to a worker that is free.
                (group.discipline, group.queue) = (Discipline::Fifo, None);
            }
            Server::new(at, &group, conditions.of(at))
        };
        let servers: Vec<_> = scenario.each_server().enumerate().map(server).collect();
        let clients = match chooser {
            Chooser::Policy(policy) => (0..scenario.clients)
                .map(|at| Client::new(policy, servers.len(), Rng::new(seed, 1_000_000_000 + at as u64)))
                .collect(),
            Chooser::Oracle(_) => Vec::new(),
        };
        let begin = seconds(scenario.warmup_s);
        let mut world = Self {
            scenario,
            now: 0,
            calls: Calls::default(),
            usable: Vec::new(),
            central: Central::new(scenario),
            probing: Probing::default(),
            endpoints: endpoints(scenario.each_server().map(|group| group.weight))?,
            arrivals: Arrivals::new(scenario, Rng::new(seed, 1)),
            next_call: 0,
            deadlines: VecDeque::new(),
            deadline: millis(scenario.deadline_ms).max(1),
            measured: (begin, begin + seconds(scenario.measure_s)),
            open: 0,
            open_measured: 0,
            ended: 0,
            base: base(),
            headers: HeaderMap::new(),
            network: Rng::new(seed, 2),
            luck: Rng::new(seed, 3),
            tally: Tally::new(servers.len()),
            queue,
            conditions,
            clients,
            servers,
            oracle,
        };
        world.connect_all();
        world.look_at_servers();
        Ok(world)
    }

    fn run(&mut self) {
        self.next_call = self.arrivals.next_at();
        while self.open > 0 || self.next_call != NEVER {
            let event = self.queue.next_at();
            let deadline = self.deadlines.front().map_or(NEVER, |first| first.0);
            if event <= deadline.min(self.next_call) {
                let Some((at, kind, subject)) = self.queue.pop() else { break };
                self.now = at;
                self.happens(kind, subject);
            } else if deadline <= self.next_call {
                let Some((at, call, number)) = self.deadlines.pop_front() else { break };
                self.now = at;
                if self.calls[call].number == number && self.calls[call].open {
                    self.late(call);
                }
            } else {
                self.now = self.next_call;
                self.begin();
            }
        }
    }

    fn happens(&mut self, kind: Kind, subject: usize) {
        let call = subject as u32;
        match kind {
            Kind::Arrive => self.arrived(call),
            Kind::Done => self.done(call),
            Kind::Shared => {
                let done = self.servers[subject].shared_done(self.now, &mut self.calls, &mut self.queue);
                done.into_iter().for_each(|call| self.respond(call, None));
            }
            Kind::Answer => self.answered(call),
            Kind::Impatient => {
                let waits = &self.calls[call];
                if waits.open && waits.stage == Stage::Pending && waits.due == self.now {
                    self.end(call, Ending::Failed(Code::Unavailable));
                    self.calls.free(call);
                }
            }
            Kind::Change | Kind::Burst | Kind::News | Kind::Dialled | Kind::Redial | Kind::Sweep => {
                self.changes(kind, subject);
            }
            Kind::Asked | Kind::Told | Kind::Waited => self.probes(kind, subject),
        }
    }

    /// One way through the network.
    pub(super) fn hop(&mut self) -> Nanos {
        let network = &self.scenario.network;
        millis(network.base_ms + network.jitter_ms * self.network.exponential())
    }

    /// The shortest way through the network.
    pub(super) fn shortest(&self) -> Nanos {
        millis(self.scenario.network.base_ms)
    }

    /// A call comes; and the one after it will, until all that is measured has ended.
    fn begin(&mut self) {
        let (begin, end) = self.measured;
        let measured = (begin..end).contains(&self.now);
        let (client, work) = self.arrivals.next_call();
        let call = self.calls.begin(self.now, client, work, measured);
        self.open += 1;
        self.open_measured += usize::from(measured);
        self.deadlines.push_back((self.now + self.deadline, call, self.calls[call].number));
        self.clients.get_mut(client as usize).into_iter().for_each(Client::began);
        self.next_call = self.arrivals.next_at();
        self.choose(call);
        if self.now >= end && self.open_measured == 0 {
            self.next_call = NEVER;
        }
    }

    /// A call looks for a server.
    pub(super) fn choose(&mut self, at: u32) {
        let call = &mut self.calls[at];
        (call.stage, call.answer, call.report) = (Stage::Pending, None, None);
        let Some(oracle) = self.oracle else {
            let client = &mut self.clients[call.client as usize];
            match client.pick(&call.tried, call.asking.take().as_ref(), &self.headers, self.base, self.now) {
                Found::Ask(asking) => self.ask(at, asking),
                Found::Server(server, guard) => {
                    call.guard = Some(guard);
                    self.send(at, server);
                }
                Found::Wait => {
                    client.waiting.push_back((at, call.number));
                    if call.due == NEVER && PATIENCE < self.deadline {
                        call.due = self.now + PATIENCE;
                        self.queue.push(call.due, Kind::Impatient, at as usize);
                    }
                }
                Found::Fail => {
                    self.end(at, Ending::Failed(Code::Unavailable));
                    self.calls.free(at);
                }
            }
            return;
        };
        if oracle == Oracle::OneQueue {
            return self.send(at, NOWHERE);
        }
        let mean = millis(self.scenario.service.mean_ms);
        match choose(oracle, &self.servers, &self.usable, mean, &mut self.luck) {
            Some(server) => self.send(at, server as u32),
            None => {
                self.end(at, Ending::Failed(Code::Unavailable));
                self.calls.free(at);
            }
        }
    }

    fn send(&mut self, at: u32, server: u32) {
        let call = &mut self.calls[at];
        (call.stage, call.server, call.due) = (Stage::Out, server, NEVER);
        call.attempts += 1;
        if server != NOWHERE {
            self.assign(at, server as usize);
        }
        let arrives = self.now + self.hop();
        self.queue.push(arrives, Kind::Arrive, at as usize);
    }

    pub(super) fn assign(&mut self, at: u32, server: usize) {
        self.calls[at].server = server as u32;
        self.servers[server].assigned += 1;
        self.tally.sent[server] += u64::from(self.calls[at].measured);
    }

    fn arrived(&mut self, at: u32) {
        let server = self.calls[at].server;
        if server == NOWHERE {
            return self.join_queue(at);
        }
        let condition = &self.servers[server as usize].condition;
        if !self.calls[at].open {
            self.gone(at);
        } else if condition.down {
            self.respond(at, Some(Code::Unavailable));
        } else if condition.stalled {
            self.servers[server as usize].unseen.push(at);
        } else {
            self.receive(at);
        }
    }

    /// A server looks at a call.
    pub(super) fn receive(&mut self, at: u32) {
        let server = &mut self.servers[self.calls[at].server as usize];
        let luck = &mut self.luck;
        let fails = server.condition.fails.iter().find(|(share, _)| luck.unit() < *share);
        if let Some((_, code)) = fails {
            let code = *code;
            return self.respond(at, Some(code));
        }
        if server.admit(at, self.now, &mut self.calls, &mut self.queue) == Admitted::Full {
            self.respond(at, Some(Code::ResourceExhausted));
        }
    }

    fn done(&mut self, at: u32) {
        let call = &self.calls[at];
        if call.due != self.now || call.stage != Stage::Running {
            return;
        }
        let server = call.server as usize;
        self.servers[server].done(at, self.now, &mut self.calls, &mut self.queue);
        if self.calls[at].open {
            self.respond(at, None);
        } else {
            self.gone(at);
        }
        self.feed(server);
    }

    /// A call leaves its server, and nobody waits for it.
    pub(super) fn gone(&mut self, at: u32) {
        self.servers[self.calls[at].server as usize].assigned -= 1;
        self.calls.free(at);
    }

    /// A call leaves its server with an answer.
    pub(super) fn respond(&mut self, at: u32, answer: Option<Code>) {
        let mut delay = 0;
        if let Some(server) = self.servers.get_mut(self.calls[at].server as usize) {
            server.assigned -= 1;
            delay = server.condition.delay;
        }
        self.tell(at, answer);
        let call = &mut self.calls[at];
        (call.stage, call.answer) = (Stage::Back, answer);
        let arrives = self.now + delay + self.hop();
        self.queue.push(arrives, Kind::Answer, at as usize);
    }

    /// A server puts into its answer how busy it is, if servers do and this one is there to answer.
    fn tell(&mut self, at: u32, answer: Option<Code>) {
        let server = self.servers.get_mut(self.calls[at].server as usize).filter(|server| !server.condition.down);
        let Some(server) = server.filter(|_| self.scenario.reports || self.scenario.probes) else { return };
        // Who is shed is no request.
        if answer != Some(Code::ResourceExhausted) {
            server.answers(at, answer.is_some(), self.now, &self.calls);
        }
        let report = if self.scenario.reports { server.report(self.now) } else { BriefReport::default() };
        self.calls[at].report = Some(BriefReport { answers_probes: self.scenario.probes, ..report });
    }

    fn answered(&mut self, at: u32) {
        let call = &mut self.calls[at];
        if !call.open {
            return self.calls.free(at);
        }
        let (answer, report) = (call.answer, call.report.take());
        let now = clock(self.base, self.now);
        call.guard.take().into_iter().for_each(|guard| heard(guard, answer, report, now));
        if answer == Some(Code::Unavailable) && call.attempts <= self.scenario.retries {
            let client = self.clients.get_mut(call.client as usize);
            if client.is_none_or(|client| client.may_retry(self.now)) {
                call.tried.push(call.server);
                return self.choose(at);
            }
        }
        self.end(at, answer.map_or(Ending::Answered, Ending::Failed));
        self.calls.free(at);
    }

    /// The deadline of a call passes, which its server knows as well as its caller.
    fn late(&mut self, at: u32) {
        self.end(at, Ending::Late);
        let now = clock(self.base, self.now);
        let call = &mut self.calls[at];
        call.guard.take().into_iter().for_each(|guard| guard.finish(Outcome::Late, now));
        let (stage, server) = (call.stage, call.server);
        match stage {
            Stage::Pending => self.calls.free(at),
            Stage::Waiting if server == NOWHERE => self.central.leave(),
            Stage::Waiting | Stage::Running => {
                self.servers[server as usize].abandon(at, self.now, &mut self.calls, &mut self.queue);
            }
            Stage::Out | Stage::Back | Stage::Gone => {}
        }
    }

    fn end(&mut self, at: u32, ending: Ending) {
        let call = &mut self.calls[at];
        assert!(call.open, "a call ends twice");
        call.open = false;
        self.open -= 1;
        self.ended += 1;
        if call.measured {
            self.open_measured -= 1;
            self.tally.end(ending, self.now - call.begun, call.attempts);
        }
    }
}
