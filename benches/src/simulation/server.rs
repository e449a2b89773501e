//! One server: who waits, and whom it works on.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use callsign::load::BriefReport;

use super::{
    calls::{Calls, Stage},
    condition::Condition,
    meter::Meter,
    queue::{Kind, NEVER, Nanos, Queue},
    scenario::{Discipline, Servers},
};

/// A server.
#[derive(Debug)]
pub struct Server {
    at: usize,
    /// Calls that it works on at once.
    pub workers: usize,
    /// Waiting places.
    pub places: Option<usize>,
    /// How it fares.
    pub condition: Condition,
    /// Attempts that were sent to it and have not left it.
    pub assigned: usize,
    /// Calls that reached it while it was stalled, and that it has not seen.
    pub unseen: Vec<u32>,
    speed: f64,
    /// In the order that they came; those whose callers went away stay, and do not count.
    waiting: VecDeque<u32>,
    awaited: usize,
    running: Vec<u32>,
    shared: Option<Shared>,
    meter: Meter,
}

/// What a server that works on all calls at once has.
#[derive(Debug, Default)]
struct Shared {
    /// By the work that each call will have got when it is done.
    calls: BinaryHeap<Reverse<Goal>>,
    /// How many of these count.
    live: usize,
    /// The work that a call has got that was there from the beginning, until `since`.
    got: f64,
    since: Nanos,
    due: Nanos,
}

#[derive(Debug, PartialEq)]
struct Goal {
    work: f64,
    call: u32,
}

impl Eq for Goal {}

impl Ord for Goal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.work.total_cmp(&other.work).then(self.call.cmp(&other.call))
    }
}

impl PartialOrd for Goal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What becomes of a call that reached a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// The server has it.
    Taken,
    /// It has no place for it.
    Full,
}

/// Nanoseconds for this much work at this speed.
fn takes(work: f64, speed: f64) -> Nanos {
    if speed > 0.0 { (work / speed * 1e9).max(0.0).ceil() as Nanos } else { NEVER }
}

impl Server {
    /// A server with nothing to do. `at` is its position among all.
    #[must_use]
    pub fn new(at: usize, group: &Servers, condition: Condition) -> Self {
        Self {
            at,
            workers: group.workers,
            places: group.queue,
            speed: condition.speed,
            condition,
            assigned: 0,
            unseen: Vec::new(),
            waiting: VecDeque::new(),
            awaited: 0,
            running: Vec::new(),
            shared: (group.discipline == Discipline::Ps).then(Shared::default),
            meter: Meter::default(),
        }
    }

    /// Whether a worker has nothing to do.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.busy() < self.workers
    }

    fn busy(&self) -> usize {
        self.shared.as_ref().map_or(self.running.len(), |shared| shared.live)
    }

    /// Calls that it has, waiting or not.
    fn present(&self) -> usize {
        self.busy() + self.awaited
    }

    /// What it says of its load.
    pub fn report(&mut self, now: Nanos) -> BriefReport {
        self.watch(now);
        self.meter.report(self.present())
    }

    /// What it says to a probe that announces a call in so long, if it does.
    pub fn asked(&mut self, announced: Duration, now: Nanos) -> BriefReport {
        let mut report = self.report(now);
        report.in_flight = report.in_flight.map(|count| count + self.meter.announced(announced));
        report
    }

    /// It answers a call, which it may have failed at once.
    pub fn answers(&mut self, at: u32, failed: bool, now: Nanos, calls: &Calls) {
        self.watch(now);
        self.meter.answered(calls[at].found as usize, now - calls[at].came, failed);
    }

    /// Measures how busy it was until now.
    fn watch(&mut self, now: Nanos) {
        let busy = self.busy().min(self.workers);
        self.meter.advance(now, busy as f64 / self.workers as f64);
    }

    /// Whether it would have no place for one more, were all here that are on their way.
    #[must_use]
    pub fn will_be_full(&self) -> bool {
        self.places.is_some_and(|places| self.assigned >= self.workers + places)
    }

    /// Takes a call in, if there is a place.
    pub fn admit(&mut self, at: u32, now: Nanos, calls: &mut Calls, queue: &mut Queue) -> Admitted {
        self.watch(now);
        (calls[at].came, calls[at].found) = (now, self.present() as u32 + 1);
        if let Some(shared) = &mut self.shared {
            if self.places.is_some_and(|places| shared.live >= self.workers + places) {
                return Admitted::Full;
            }
            shared.advance(now, self.speed, self.workers);
            shared.calls.push(Reverse(Goal { work: shared.got + calls[at].work, call: at }));
            shared.live += 1;
            calls[at].stage = Stage::Running;
            shared.plan(self.at, self.speed, self.workers, calls, queue);
            return Admitted::Taken;
        }
        if self.is_free() {
            calls[at].left = calls[at].work;
            self.start(at, now, calls, queue);
            return Admitted::Taken;
        }
        if self.places.is_some_and(|places| self.awaited >= places) {
            return Admitted::Full;
        }
        calls[at].stage = Stage::Waiting;
        self.waiting.push_back(at);
        self.awaited += 1;
        Admitted::Taken
    }

    fn start(&mut self, at: u32, now: Nanos, calls: &mut Calls, queue: &mut Queue) {
        let call = &mut calls[at];
        call.stage = Stage::Running;
        call.place = self.running.len() as u32;
        self.running.push(at);
        self.work_on(at, now, calls, queue);
    }

    /// Says when a worker will be done with what is left of a call.
    fn work_on(&self, at: u32, now: Nanos, calls: &mut Calls, queue: &mut Queue) {
        let call = &mut calls[at];
        call.since = now;
        call.due = now.saturating_add(takes(call.left, self.speed));
        queue.push(call.due, Kind::Done, at as usize);
    }

    /// A worker is done with a call, and takes the next that still has a caller.
    pub fn done(&mut self, at: u32, now: Nanos, calls: &mut Calls, queue: &mut Queue) {
        self.watch(now);
        let place = calls[at].place as usize;
        calls[at].due = NEVER;
        self.running.swap_remove(place);
        if let Some(moved) = self.running.get(place) {
            calls[*moved].place = place as u32;
        }
        while let Some(next) = self.waiting.pop_front() {
            if calls[next].open {
                self.awaited -= 1;
                calls[next].left = calls[next].work;
                self.start(next, now, calls, queue);
                break;
            }
            calls.free(next);
        }
    }

    /// A server that works on all calls at once is done with one; none if the plan has changed.
    pub fn shared_done(&mut self, now: Nanos, calls: &mut Calls, queue: &mut Queue) -> Option<u32> {
        self.watch(now);
        let shared = self.shared.as_mut().filter(|shared| shared.due == now)?;
        shared.advance(now, self.speed, self.workers);
        let Reverse(Goal { work, call }) = shared.calls.pop()?;
        shared.got = shared.got.max(work);
        shared.live -= 1;
        shared.plan(self.at, self.speed, self.workers, calls, queue);
        Some(call)
    }

    /// The caller of a call that is here went away: it gives its place up, unless a worker has it,
    /// who goes on.
    pub fn abandon(&mut self, at: u32, now: Nanos, calls: &mut Calls, queue: &mut Queue) {
        self.watch(now);
        match (&mut self.shared, calls[at].stage) {
            (None, Stage::Waiting) => {
                calls[at].stage = Stage::Gone;
                self.awaited -= 1;
            }
            (Some(shared), Stage::Running) => {
                calls[at].stage = Stage::Gone;
                shared.advance(now, self.speed, self.workers);
                shared.live -= 1;
                shared.plan(self.at, self.speed, self.workers, calls, queue);
            }
            _ => return,
        }
        self.assigned -= 1;
    }

    /// It is faster or slower from now on.
    pub fn set_speed(&mut self, speed: f64, now: Nanos, calls: &mut Calls, queue: &mut Queue) {
        if speed == self.speed {
            return;
        }
        let before = std::mem::replace(&mut self.speed, speed);
        if let Some(shared) = &mut self.shared {
            shared.advance(now, before, self.workers);
            shared.plan(self.at, speed, self.workers, calls, queue);
        }
        for &at in &self.running {
            let call = &mut calls[at];
            call.left = (call.left - (now - call.since) as f64 / 1e9 * before).max(0.0);
            self.work_on(at, now, calls, queue);
        }
    }

    /// Its process ends: all that it held.
    pub fn crash(&mut self, calls: &mut Calls) -> Vec<u32> {
        let mut held: Vec<_> = self.running.drain(..).chain(self.waiting.drain(..)).collect();
        held.append(&mut self.unseen);
        if let Some(shared) = &mut self.shared {
            held.extend(shared.calls.drain().map(|Reverse(goal)| goal.call));
            *shared = Shared::default();
        }
        self.awaited = 0;
        self.meter = Meter::default();
        held.iter().for_each(|at| calls[*at].due = NEVER);
        held
    }
}

impl Shared {
    fn rate(&self, speed: f64, workers: usize) -> f64 {
        speed * (workers as f64 / self.live as f64).min(1.0)
    }

    fn advance(&mut self, now: Nanos, speed: f64, workers: usize) {
        if self.live > 0 {
            self.got += (now - self.since) as f64 / 1e9 * self.rate(speed, workers);
        }
        self.since = now;
    }

    /// Says when the next call will be done.
    fn plan(&mut self, server: usize, speed: f64, workers: usize, calls: &mut Calls, queue: &mut Queue) {
        while let Some(Reverse(next)) = self.calls.peek() {
            if calls[next.call].open {
                break;
            }
            let gone = self.calls.pop();
            gone.into_iter().for_each(|Reverse(goal)| calls.free(goal.call));
        }
        self.due = match self.calls.peek() {
            Some(Reverse(next)) => self.since.saturating_add(takes(next.work - self.got, self.rate(speed, workers))),
            None => NEVER,
        };
        queue.push(self.due, Kind::Shared, server);
    }
}
