//! The queue that all servers share, of an oracle that has one.

use std::collections::VecDeque;

use super::{
    calls::Stage,
    model::World,
    oracle::{Oracle, usable},
    scenario::{Code, Scenario},
};

/// Calls that wait for any server.
#[derive(Debug, Default)]
pub(super) struct Central {
    /// In the order that they came; those whose callers went away stay, and do not count.
    waiting: VecDeque<u32>,
    awaited: usize,
    places: Option<usize>,
}

impl Central {
    /// With as many places as all servers have together.
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self { places: scenario.each_server().map(|group| group.queue).sum(), ..Self::default() }
    }

    /// The caller of one that waits went away.
    pub(super) fn leave(&mut self) {
        self.awaited -= 1;
    }
}

impl World<'_> {
    /// A call reaches the queue that all servers share: the fastest that is free takes it.
    pub(super) fn join_queue(&mut self, at: u32) {
        if !self.calls[at].open {
            return self.calls.free(at);
        }
        let free = (0..self.servers.len()).filter(|at| self.usable[*at] && self.servers[*at].is_free());
        let speed = |at: &usize| self.servers[*at].condition.speed;
        if let Some(server) = free.max_by(|a, b| speed(a).total_cmp(&speed(b))) {
            self.assign(at, server);
            self.receive(at);
        } else if self.central.places.is_some_and(|places| self.central.awaited >= places) {
            self.respond(at, Some(Code::ResourceExhausted));
        } else {
            self.calls[at].stage = Stage::Waiting;
            self.central.waiting.push_back(at);
            self.central.awaited += 1;
        }
    }

    /// A server takes from the queue that all share, as far as its workers are free.
    pub(super) fn feed(&mut self, server: usize) {
        while self.oracle == Some(Oracle::OneQueue) && self.usable[server] && self.servers[server].is_free() {
            let Some(next) = self.central.waiting.pop_front() else { break };
            if self.calls[next].open {
                self.central.awaited -= 1;
                self.assign(next, server);
                self.receive(next);
            } else {
                self.calls.free(next);
            }
        }
    }

    /// The oracle looks at what changed.
    pub(super) fn look_at_servers(&mut self) {
        if self.oracle.is_some() {
            let offered = self.scenario.rate() * self.scenario.service.mean_ms / 1e3;
            self.usable = usable(&self.servers, offered);
            (0..self.servers.len()).for_each(|server| self.feed(server));
        }
    }
}
