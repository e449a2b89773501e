//! What changes in a run: servers by the scenario's events, and clients' connections by that.

use super::{
    calls::Stage,
    client::Linked,
    model::World,
    queue::{Kind, Nanos},
    scenario::Code,
};

/// A dial of a server that stalls: the system takes the connection, the process says nothing.
const ASK_AGAIN: Nanos = 100_000_000;

impl World<'_> {
    /// At the beginning each client is connected to all servers that there are.
    pub(super) fn connect_all(&mut self) {
        for client in 0..self.clients.len() {
            for (at, server) in self.servers.iter().enumerate() {
                if server.condition.listed {
                    self.clients[client].dial(at as u32, &self.endpoints[at]);
                    self.clients[client].connected(at as u32);
                }
            }
            self.publish(client);
        }
    }

    /// An event of these kinds happens.
    pub(super) fn changes(&mut self, kind: Kind, subject: usize) {
        if kind == Kind::Sweep {
            return self.due(subject);
        }
        let (client, server) = (subject / self.servers.len(), subject % self.servers.len());
        match kind {
            Kind::Change => {
                let server = self.conditions.apply(subject);
                self.refresh(server);
            }
            Kind::Burst => {
                self.conditions.burst(subject, self.now, &mut self.queue);
                self.refresh(subject);
            }
            Kind::News => self.news(client, server),
            Kind::Dialled => self.dialled(client, server),
            Kind::Redial if self.clients[client].linked(server as u32) == Linked::Failing => self.dial(client, server),
            _ => {}
        }
    }

    /// A server fares otherwise than before.
    fn refresh(&mut self, server: usize) {
        let new = self.conditions.of(server);
        let old = std::mem::replace(&mut self.servers[server].condition, new.clone());
        if old == new {
            return;
        }
        if (old.down, old.listed) != (new.down, new.listed) {
            let heard = self.now + self.shortest();
            for client in 0..self.clients.len() {
                self.queue.push(heard, Kind::News, client * self.servers.len() + server);
            }
        }
        if new.down && !old.down {
            for call in self.servers[server].crash(&mut self.calls) {
                if self.calls[call].open {
                    self.respond(call, Some(Code::Unavailable));
                } else if self.calls[call].stage == Stage::Gone {
                    self.calls.free(call);
                } else {
                    self.gone(call);
                }
            }
        }
        self.servers[server].set_speed(new.speed, self.now, &mut self.calls, &mut self.queue);
        if old.stalled && !new.stalled {
            for call in std::mem::take(&mut self.servers[server].unseen) {
                if self.calls[call].open {
                    self.receive(call);
                } else {
                    self.gone(call);
                }
            }
        }
        self.look_at_servers();
    }

    /// A client hears of a server: from the registry, or from a connection that breaks.
    fn news(&mut self, client: usize, server: usize) {
        let condition = &self.servers[server].condition;
        let (listed, down) = (condition.listed, condition.down);
        let linked = self.clients[client].linked(server as u32);
        match linked {
            Linked::Unknown if listed => self.dial(client, server),
            Linked::Unknown => {}
            _ if !listed => self.clients[client].forget(server as u32),
            Linked::Ready if down => self.dial(client, server),
            _ => {}
        }
        if self.clients[client].linked(server as u32) != linked {
            self.publish(client);
        }
    }

    /// A connection takes a handshake and the server's first word, each a round trip.
    fn dial(&mut self, client: usize, server: usize) {
        self.clients[client].dial(server as u32, &self.endpoints[server]);
        let takes: Nanos = (0..4).map(|_| self.hop()).sum();
        self.queue.push(self.now + takes, Kind::Dialled, client * self.servers.len() + server);
    }

    fn dialled(&mut self, client: usize, server: usize) {
        if self.clients[client].linked(server as u32) != Linked::Dialling {
            return;
        }
        let (condition, subject) = (&self.servers[server].condition, client * self.servers.len() + server);
        if condition.down {
            let wait = self.clients[client].refused(server as u32);
            self.queue.push(self.now + wait, Kind::Redial, subject);
        } else if condition.stalled {
            return self.queue.push(self.now + ASK_AGAIN, Kind::Dialled, subject);
        } else {
            self.clients[client].connected(server as u32);
        }
        self.publish(client);
    }

    /// A client's balancer wanted to look again now, unless it did in the meantime.
    fn due(&mut self, client: usize) {
        if self.clients[client].sweep_at == self.now && self.sweep(client) {
            self.take_picker(client);
        }
    }

    fn sweep(&mut self, client: usize) -> bool {
        let (changed, next) = self.clients[client].sweep(self.base, self.now);
        if self.clients[client].sweep_at != next {
            self.clients[client].sweep_at = next;
            self.queue.push(next, Kind::Sweep, client);
        }
        changed
    }

    fn publish(&mut self, client: usize) {
        self.sweep(client);
        self.take_picker(client);
    }

    /// A client makes a picker anew, and what waits for one looks again.
    fn take_picker(&mut self, client: usize) {
        self.clients[client].rebuild();
        for (call, number) in std::mem::take(&mut self.clients[client].waiting) {
            let waits = &self.calls[call];
            if waits.number == number && waits.open && waits.stage == Stage::Pending {
                self.choose(call);
            }
        }
    }
}
