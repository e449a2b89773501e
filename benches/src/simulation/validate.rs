//! Whether a scenario makes sense, and what is wrong if not.

use std::{collections::HashSet, fs, path::Path};

use callsign::balance::Policy;

use super::{
    queue::SUBJECTS,
    scenario::{Distribution, Event, EventKind, Scenario, Service},
};

/// Reads a scenario from its file.
///
/// # Errors
///
/// Names the file, the key, and what may stand there.
pub fn read(path: &Path) -> Result<Scenario, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&text, &name).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads a scenario from its text; `name` is for one that says none.
///
/// # Errors
///
/// Names the key, and what may stand there.
pub fn parse(text: &str, name: &str) -> Result<Scenario, String> {
    let mut scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    if scenario.name.is_empty() {
        name.clone_into(&mut scenario.name);
    }
    scenario.check()?;
    Ok(scenario)
}

/// A policy, written as in a target: `least_request?choices=3`.
///
/// # Errors
///
/// If there is none such; says which there are.
pub fn policy(text: &str) -> Result<Policy, String> {
    let text = match text.split_once('?') {
        Some((name, options)) => format!("{name},{}", options.replace('&', ",")),
        None => text.to_owned(),
    };
    text.parse().map_err(|error| format!("{error:#}"))
}

/// What a number may be.
fn number(key: &str, value: f64, allowed: &str, is: impl Fn(f64) -> bool) -> Result<(), String> {
    if value.is_finite() && is(value) { Ok(()) } else { Err(format!("{key} is {allowed}, not {value}")) }
}

fn positive(key: &str, value: f64) -> Result<(), String> {
    number(key, value, "a number above 0", |value| value > 0.0)
}

fn not_negative(key: &str, value: f64) -> Result<(), String> {
    number(key, value, "a number from 0 on", |value| value >= 0.0)
}

/// No time is longer, in seconds: eleven days.
const LONGEST: f64 = 1e6;

fn time(key: &str, value: f64, unit: f64) -> Result<(), String> {
    let most = LONGEST * unit;
    number(key, value, &format!("a number from 0 to {most}"), |value| (0.0..=most).contains(&value))
}

fn share(key: &str, value: f64) -> Result<(), String> {
    number(key, value, "a share from 0 to 1", |value| (0.0..=1.0).contains(&value))
}

fn within(key: &str, value: usize, most: usize) -> Result<(), String> {
    let is = (1..=most).contains(&value);
    if is { Ok(()) } else { Err(format!("{key} is a number from 1 to {most}, not {value}")) }
}

/// Keys that belong to what was chosen must be there, and others must not.
fn belongs(of: &str, keys: &[(&str, bool, bool)]) -> Result<(), String> {
    for (key, there, wanted) in keys {
        match (there, wanted) {
            (true, false) => return Err(format!("{of} has no key {key}")),
            (false, true) => return Err(format!("{of} needs the key {key}")),
            _ => {}
        }
    }
    Ok(())
}

impl Scenario {
    /// Whether all that is said makes sense together.
    ///
    /// # Errors
    ///
    /// Names the key, and what may stand there.
    pub fn check(&self) -> Result<(), String> {
        within("seeds", self.seeds as usize, 10_000)?;
        within("clients", self.clients, 1_000_000)?;
        match (self.utilisation, self.rate_per_client) {
            (Some(_), Some(_)) => return Err("give utilisation or rate_per_client, not both".to_owned()),
            (Some(utilisation), None) => positive("utilisation", utilisation)?,
            (None, Some(rate)) => positive("rate_per_client", rate)?,
            (None, None) => {}
        }
        positive("deadline_ms", self.deadline_ms)?;
        time("deadline_ms", self.deadline_ms, 1e3)?;
        time("warmup_s", self.warmup_s, 1.0)?;
        time("measure_s", self.measure_s, 1.0)?;
        positive("measure_s", self.measure_s)?;
        if self.policies.is_empty() {
            return Err("policies names one policy at least".to_owned());
        }
        for text in &self.policies {
            policy(text).map_err(|error| format!("policies: {text:?}: {error}"))?;
        }
        self.service.check()?;
        time("network.base_ms", self.network.base_ms, 1e3)?;
        time("network.jitter_ms", self.network.jitter_ms, 1e3)?;
        let servers = self.check_servers()?;
        for (at, event) in self.events.iter().enumerate() {
            event.check(servers).map_err(|error| format!("events[{at}]: {error}"))?;
        }
        if let Some(antagonist) = &self.antagonist {
            for (key, value) in [("antagonist.burst_s", antagonist.burst_s), ("antagonist.gap_s", antagonist.gap_s)] {
                number(key, value, "a number from 0.001 to 1000000", |value| (0.001..=LONGEST).contains(&value))?;
            }
            not_negative("antagonist.speed", antagonist.speed)?;
        }
        number("calls a second, by utilisation or rate_per_client,", self.rate(), "at most 1e9", |rate| rate <= 1e9)
    }

    fn check_servers(&self) -> Result<usize, String> {
        if self.servers.is_empty() {
            return Err("servers has one entry at least".to_owned());
        }
        for (at, group) in self.servers.iter().enumerate() {
            let of = |key: &str| format!("servers[{at}].{key}");
            within(&of("count"), group.count, 1_000_000)?;
            within(&of("workers"), group.workers, 1_000_000)?;
            positive(&of("speed"), group.speed)?;
            within(&of("weight"), group.weight as usize, callsign::ServiceInstance::MAX_WEIGHT as usize)?;
            share(&of("fail_share"), group.fail_share)?;
        }
        let servers: usize = self.servers.iter().map(|group| group.count).sum();
        if servers.saturating_mul(self.clients) >= SUBJECTS {
            return Err(format!("{servers} servers and {} clients are too many together", self.clients));
        }
        Ok(servers)
    }
}

impl Service {
    fn check(&self) -> Result<(), String> {
        positive("service.mean_ms", self.mean_ms)?;
        time("service.mean_ms", self.mean_ms, 1e3)?;
        let (lognormal, bimodal) =
            (self.distribution == Distribution::Lognormal, self.distribution == Distribution::Bimodal);
        let keys = [
            ("sigma", self.sigma.is_some(), lognormal),
            ("share", self.share.is_some(), bimodal),
            ("factor", self.factor.is_some(), bimodal),
        ];
        let name = format!("{:?}", self.distribution).to_lowercase();
        belongs(&format!("service: distribution {name}"), &keys)?;
        self.sigma.map_or(Ok(()), |sigma| not_negative("service.sigma", sigma))?;
        self.share.map_or(Ok(()), |part| share("service.share", part))?;
        self.factor.map_or(Ok(()), |factor| positive("service.factor", factor))
    }
}

impl Event {
    fn check(&self, servers: usize) -> Result<(), String> {
        use EventKind::{Delay, Fail, Join, Speed};
        time("at_s", self.at_s, 1.0)?;
        self.for_s.map_or(Ok(()), |length| positive("for_s", length).and_then(|()| time("for_s", length, 1.0)))?;
        if self.servers.is_empty() {
            return Err("servers names one server at least".to_owned());
        }
        if let Some(at) = self.servers.iter().find(|at| **at >= servers) {
            return Err(format!("servers are numbers from 0 to {}, not {at}", servers - 1));
        }
        let mut named = HashSet::new();
        if let Some(at) = self.servers.iter().find(|at| !named.insert(**at)) {
            return Err(format!("servers names {at} twice"));
        }
        let cold = self.kind == Join && (self.speed_from.is_some() || self.ramp_s.is_some());
        let keys = [
            ("factor", self.factor.is_some(), self.kind == Speed),
            ("share", self.share.is_some(), self.kind == Fail),
            ("code", self.code.is_some(), self.kind == Fail && self.code.is_some()),
            ("ms", self.ms.is_some(), self.kind == Delay),
            ("speed_from", self.speed_from.is_some(), cold),
            ("ramp_s", self.ramp_s.is_some(), cold),
        ];
        belongs(&format!("kind {}", self.kind), &keys)?;
        self.factor.map_or(Ok(()), |factor| not_negative("factor", factor))?;
        self.share.map_or(Ok(()), |part| share("share", part))?;
        self.ms.map_or(Ok(()), |ms| time("ms", ms, 1e3))?;
        self.speed_from.map_or(Ok(()), |from| not_negative("speed_from", from))?;
        self.ramp_s.map_or(Ok(()), |ramp| time("ramp_s", ramp, 1.0))
    }
}
