//! A fleet of real processes in which much is wrong, and what comes of it under a policy.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

use std::{thread::sleep, time::Duration};

use super::{
    dir::TempDir,
    process::{Client, Report, Server},
};

/// Those with which nothing is wrong, and what they can do: two calls at once, 20 ms each.
pub const EVEN: [&str; 6] = ["even-0", "even-1", "even-2", "even-3", "even-4", "even-5"];
const WELL: [&str; 4] = ["--delay", "20", "--workers", "2"];
/// Five times slower.
pub const SLOW: &str = "slow";
/// Fails each call at once.
pub const FAILING: &str = "failing";
/// Stopped (SIGSTOP) for the middle third of a run, and not out of the registry by then.
pub const STALLED: &str = "stalled";
/// Comes after a third of a run, a tenth as fast as it will be.
pub const COLD: &str = "cold";

/// A little more than half of what those can do with which nothing is wrong: a second's calls.
pub const RATE: u64 = 400;

/// Ten servers but for the one that starts cold, which comes and goes with each run.
#[derive(Debug)]
pub struct Fleet {
    // Before the directory, which they would make anew.
    servers: Vec<Server>,
    stalled: Server,
    registry: String,
    target: String,
    _dir: TempDir,
}

impl Fleet {
    pub fn start() -> Self {
        let dir = TempDir::new();
        let target = format!("file://{}/registry", dir.path().display());
        let registry = format!("{target}?ttl=5m");
        let start = |id: &str, flags: &[&str]| Server::start(&registry, id, &[flags, &["--drain", "100"]].concat());
        let mut servers: Vec<_> = EVEN.iter().map(|id| start(id, &WELL)).collect();
        servers.push(start(SLOW, &["--delay", "100", "--workers", "2"]));
        servers.push(start(FAILING, &["--fail", "1"]));
        let stalled = start(STALLED, &WELL);
        Self { servers, stalled, target: format!("{target}/helloworld"), registry, _dir: dir }
    }

    /// One client's calls under a policy, for so long.
    pub fn run(&self, policy: &str, length: Duration) -> Outcome {
        let target = format!("{}?policy={policy}", self.target);
        let (rate, seconds) = (RATE.to_string(), length.as_secs_f64().to_string());
        let client = Client::start(&target, &["--rate", &rate, "--seconds", &seconds, "--timeout", "1000"]);
        sleep(length / 3);
        self.stalled.signal("STOP");
        let warm_up = (length / 3).as_millis().to_string();
        let flags = [&WELL[..], &["--warm-up", &warm_up, "--drain", "100"]].concat();
        let mut cold = Server::start(&self.registry, COLD, &flags);
        sleep(length / 3);
        self.stalled.signal("CONT");
        let report = client.report();
        cold.stop();
        Outcome(report)
    }
}

/// What a client saw.
#[derive(Debug)]
pub struct Outcome(Report);

impl Outcome {
    pub fn calls(&self) -> u64 {
        self.0.count("ok") + self.0.count("failed")
    }

    /// The share of the calls that failed.
    pub fn failed(&self) -> f64 {
        self.0.count("failed") as f64 / self.calls() as f64
    }

    /// The share of the calls that a server failed at once, which are those of the failing one.
    pub fn failed_at_once(&self) -> f64 {
        let errors = self.0.json["errors"].as_object().unwrap().iter();
        let failed = errors.filter(|(error, _)| error.starts_with("UNAVAILABLE") && error.contains("--fail"));
        failed.map(|(_, times)| times.as_u64().unwrap()).sum::<u64>() as f64 / self.calls() as f64
    }

    /// The share of the calls that a server answered.
    pub fn share(&self, id: &str) -> f64 {
        self.0.served_by(id) as f64 / self.calls() as f64
    }

    /// Milliseconds within which so much was answered or had failed.
    pub fn p99_ms(&self) -> f64 {
        self.0.count("p99_us") as f64 / 1e3
    }

    pub fn p50_ms(&self) -> f64 {
        self.0.count("p50_us") as f64 / 1e3
    }
}
