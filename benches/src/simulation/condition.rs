//! How each server fares as the scenario's events begin and end.

use super::{
    queue::{Kind, NEVER, Nanos, Queue, seconds},
    rng::Rng,
    scenario::{Antagonist, Code, EventKind, Scenario, Servers},
};

/// How a server fares now.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// How fast each of its workers is; 0 while it stalls or is down.
    pub speed: f64,
    /// Whether it does and answers nothing.
    pub stalled: bool,
    /// Whether its process is gone.
    pub down: bool,
    /// Whether it is in the registry.
    pub listed: bool,
    /// By how much its answers are late.
    pub delay: Nanos,
    /// Shares of calls that fail at once, one after the other, and with what.
    pub fails: Vec<(f64, Code)>,
}

impl Condition {
    /// The share of calls that it fails at once.
    #[must_use]
    pub fn fail_share(&self) -> f64 {
        1.0 - self.fails.iter().map(|(share, _)| 1.0 - share).product::<f64>()
    }

    /// Whether calls that reach it get done.
    #[must_use]
    pub fn works(&self) -> bool {
        self.listed && !self.down && self.speed > 0.0
    }
}

/// A point in time at which something changes for a server.
#[derive(Debug, Clone, Copy)]
struct Change {
    server: usize,
    event: usize,
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    /// One that starts cold has come so far from its first speed to its own.
    Warmer(f64),
    End,
}

/// An event that has begun at a server and not ended.
#[derive(Debug, Clone, Copy)]
struct Active {
    event: usize,
    /// So far has one that starts cold come from its first speed to its own.
    warm: f64,
}

#[derive(Debug)]
struct State {
    active: Vec<Active>,
    burst: bool,
    /// Whether it is there only once it has joined.
    joins: bool,
    rng: Rng,
}

/// All servers' conditions.
#[derive(Debug)]
pub struct Conditions {
    scenario: Scenario,
    groups: Vec<Servers>,
    states: Vec<State>,
    changes: Vec<Change>,
}

/// A cold start is made of so many steps.
const STEPS: u32 = 100;

impl Conditions {
    /// Puts all that will happen into the queue.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64, queue: &mut Queue) -> Self {
        let groups: Vec<_> = scenario.each_server().cloned().collect();
        let state = |server: usize| State {
            active: Vec::new(),
            burst: false,
            joins: false,
            rng: Rng::new(seed, 1_000 + server as u64),
        };
        let states = (0..groups.len()).map(state).collect();
        let mut all = Self { scenario: scenario.clone(), groups, states, changes: Vec::new() };
        for (at, event) in scenario.events.iter().enumerate() {
            let (begin, end) = (seconds(event.at_s), event.for_s.map_or(NEVER, |length| seconds(event.at_s + length)));
            for &server in &event.servers {
                all.states[server].joins |= event.kind == EventKind::Join;
                all.change(queue, begin, server, at, Step::Begin);
                all.change(queue, end, server, at, Step::End);
                if let Some(ramp) = event.ramp_s {
                    for step in 1..=STEPS {
                        let share = f64::from(step) / f64::from(STEPS);
                        all.change(queue, begin + seconds(ramp * share), server, at, Step::Warmer(share));
                    }
                }
            }
        }
        if let Some(antagonist) = &scenario.antagonist {
            for server in 0..all.states.len() {
                // It begins as it would be found at any time.
                let state = &mut all.states[server];
                state.burst = state.rng.unit() < antagonist.burst_s / (antagonist.burst_s + antagonist.gap_s);
                queue.push(state.until(antagonist, 0), Kind::Burst, server);
            }
        }
        all
    }

    fn change(&mut self, queue: &mut Queue, at: Nanos, server: usize, event: usize, step: Step) {
        queue.push(at, Kind::Change, self.changes.len());
        self.changes.push(Change { server, event, step });
    }

    /// A change of the queue comes about; at which server.
    pub fn apply(&mut self, change: usize) -> usize {
        let Change { server, event, step } = self.changes[change];
        let active = &mut self.states[server].active;
        match step {
            Step::Begin => active.push(Active { event, warm: 0.0 }),
            Step::Warmer(warm) => active.iter_mut().filter(|one| one.event == event).for_each(|one| one.warm = warm),
            Step::End => active.retain(|one| one.event != event),
        }
        server
    }

    /// A server's antagonist begins or ends a burst.
    pub fn burst(&mut self, server: usize, now: Nanos, queue: &mut Queue) {
        let (state, Some(antagonist)) = (&mut self.states[server], &self.scenario.antagonist) else { return };
        state.burst = !state.burst;
        queue.push(state.until(antagonist, now), Kind::Burst, server);
    }

    /// How a server fares now.
    #[must_use]
    pub fn of(&self, server: usize) -> Condition {
        let (group, state) = (&self.groups[server], &self.states[server]);
        let active = || state.active.iter().map(|one| (&self.scenario.events[one.event], one.warm));
        let own = (group.fail_share > 0.0).then_some((group.fail_share, group.fail_code));
        let mut now = Condition {
            speed: group.speed,
            stalled: false,
            down: false,
            listed: !state.joins || active().any(|(event, _)| event.kind == EventKind::Join),
            delay: 0,
            fails: own.into_iter().collect(),
        };
        if let (true, Some(antagonist)) = (state.burst, &self.scenario.antagonist) {
            now.speed *= antagonist.speed;
        }
        for (event, warm) in active() {
            match event.kind {
                EventKind::Stall => now.stalled = true,
                EventKind::Speed => now.speed *= event.factor.unwrap_or(1.0),
                EventKind::Fail => {
                    now.fails.push((event.share.unwrap_or(1.0), event.code.unwrap_or(Code::Unavailable)));
                }
                EventKind::Crash => now.down = true,
                EventKind::Leave => now.listed = false,
                EventKind::Join => {
                    let from = event.speed_from.map_or(1.0, |from| from / group.speed);
                    now.speed *= from + (1.0 - from) * warm;
                }
                EventKind::Delay => now.delay += seconds(event.ms.unwrap_or(0.0) / 1e3),
            }
        }
        if now.stalled || now.down {
            now.speed = 0.0;
        }
        now
    }
}

impl State {
    /// When the present burst or gap ends.
    fn until(&mut self, antagonist: &Antagonist, now: Nanos) -> Nanos {
        let mean = if self.burst { antagonist.burst_s } else { antagonist.gap_s };
        now + seconds(mean * self.rng.exponential()).max(1)
    }
}
