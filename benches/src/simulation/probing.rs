//! Probes: a client asks servers how busy they are before it sends a call.

use std::{collections::HashMap, time::Duration};

use callsign::{balance::Probes, load::BriefReport};

use super::{
    calls::Stage,
    client::clock,
    model::World,
    queue::{Kind, Nanos},
};

/// What a call waits for before it is sent.
#[derive(Debug)]
pub struct Asking {
    /// The servers that were asked.
    pub asked: Vec<u32>,
    /// Those that said something.
    pub answered: Vec<u32>,
    /// When the first of them did.
    pub first: Option<Nanos>,
    /// Those that will not any more.
    failed: usize,
    /// The picker is asked with the same random number again.
    pub random: u64,
    /// When they were asked.
    pub begun: Nanos,
    /// Until when they are waited for.
    until: Nanos,
    /// In how long each server that is asked is told that the call comes.
    announced: Duration,
}

impl Asking {
    /// These servers are asked by such probes.
    #[must_use]
    pub fn new(asked: Vec<u32>, probes: &Probes, random: u64, now: Nanos) -> Self {
        let (until, announced) = (now + probes.wait().as_nanos() as Nanos, probes.announced());
        Self { asked, answered: Vec::new(), first: None, failed: 0, random, begun: now, until, announced }
    }
}

/// All probes that are under way, at most one of each client to each server.
#[derive(Debug, Default)]
pub(super) struct Probing {
    all: Vec<Probe>,
    free: Vec<u32>,
    open: HashMap<(u32, u32), u32>,
}

#[derive(Debug)]
struct Probe {
    client: u32,
    server: u32,
    announced: Duration,
    says: Says,
    /// The calls that wait for it, with their numbers.
    waiting: Vec<(u32, u64)>,
}

/// What a server makes of a probe.
#[derive(Debug, Clone, Copy)]
enum Says {
    Report(BriefReport),
    /// It knows of no such method.
    Unimplemented,
    /// It is gone.
    Nothing,
}

/// A probe of a server that stalls stays there.
const LOOK_AGAIN: Nanos = 100_000_000;

impl Probing {
    /// The probe of a client to a server, and whether it is new.
    fn open(&mut self, client: u32, server: u32, announced: Duration) -> (u32, bool) {
        if let Some(at) = self.open.get(&(client, server)) {
            return (*at, false);
        }
        let probe = Probe { client, server, announced, says: Says::Nothing, waiting: Vec::new() };
        let at = self.free.pop().unwrap_or(self.all.len() as u32);
        if at as usize == self.all.len() {
            self.all.push(probe);
        } else {
            self.all[at as usize] = probe;
        }
        self.open.insert((client, server), at);
        (at, true)
    }

    fn close(&mut self, at: u32) -> (u32, Says, Vec<(u32, u64)>) {
        let probe = &mut self.all[at as usize];
        self.open.remove(&(probe.client, probe.server));
        self.free.push(at);
        (probe.server, probe.says, std::mem::take(&mut probe.waiting))
    }
}

impl World<'_> {
    /// A call's client asks servers, and the call waits.
    pub(super) fn ask(&mut self, call: u32, asking: Asking) {
        let (client, number) = (self.calls[call].client, self.calls[call].number);
        for server in &asking.asked {
            let (probe, new) = self.probing.open(client, *server, asking.announced);
            self.probing.all[probe as usize].waiting.push((call, number));
            if new {
                let arrives = self.now + self.hop();
                self.queue.push(arrives, Kind::Asked, probe as usize);
            }
        }
        self.queue.push(asking.until, Kind::Waited, call as usize);
        self.calls[call].asking = Some(asking);
    }

    /// An event of these kinds happens.
    pub(super) fn probes(&mut self, kind: Kind, subject: usize) {
        match kind {
            Kind::Asked => self.asked(subject as u32),
            Kind::Told => self.told(subject as u32),
            _ => {
                let call = &self.calls[subject as u32];
                let waits = call.open && call.stage == Stage::Pending;
                if waits && call.asking.as_ref().is_some_and(|asking| asking.until == self.now) {
                    self.choose(subject as u32);
                }
            }
        }
    }

    /// A probe reaches its server.
    fn asked(&mut self, at: u32) {
        let probe = &mut self.probing.all[at as usize];
        let server = &mut self.servers[probe.server as usize];
        if server.condition.stalled && !server.condition.down {
            return self.queue.push(self.now + LOOK_AGAIN, Kind::Asked, at as usize);
        }
        probe.says = if server.condition.down {
            Says::Nothing
        } else if self.scenario.probes {
            Says::Report(server.asked(probe.announced, self.now))
        } else {
            Says::Unimplemented
        };
        let arrives = self.now + server.condition.delay + self.hop();
        self.queue.push(arrives, Kind::Told, at as usize);
    }

    /// Its answer reaches the client.
    fn told(&mut self, at: u32) {
        let client = self.probing.all[at as usize].client as usize;
        let (server, says, waiting) = self.probing.close(at);
        if let Some(load) = self.clients[client].load(server) {
            match says {
                Says::Report(report) => load.report(&report, clock(self.base, self.now)),
                Says::Unimplemented => load.refuse_probes(),
                Says::Nothing => {}
            }
        }
        for (call, number) in waiting {
            let waits = &mut self.calls[call];
            if waits.number != number || !waits.open || waits.stage != Stage::Pending {
                continue;
            }
            let Some(asking) = &mut waits.asking else { continue };
            if let Says::Report(_) = says {
                asking.answered.push(server);
                asking.first.get_or_insert(self.now);
            } else {
                asking.failed += 1;
            }
            if asking.answered.len() + asking.failed == asking.asked.len() {
                self.choose(call);
            }
        }
    }
}
