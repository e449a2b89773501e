//! Measuring clients in turns, and what is printed and written of it.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    clients::{Call, Client, Job},
    counter::{Allocations, cpu},
    raw::{BoxError, Shape},
};

/// What is measured of each client in turn.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Workload {
    /// Its name in the table.
    pub name: &'static str,
    /// What a call is.
    pub shape: Shape,
    /// Calls in flight.
    pub concurrency: usize,
    /// Threads of the client.
    pub workers: usize,
    /// Calls of a round.
    pub calls: usize,
}

impl Workload {
    /// A workload on one thread.
    #[must_use]
    pub fn new(name: &'static str, shape: Shape, concurrency: usize, calls: usize) -> Self {
        Self { name, shape, concurrency, workers: 1, calls }
    }
}

/// What was measured of one round of one client.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Round {
    /// Calls a second.
    pub rps: f64,
    /// Microseconds of CPU a call, all threads together.
    pub cpu_us: f64,
    /// Microseconds within which half of the calls were answered.
    pub p50_us: f64,
    /// And 99 %.
    pub p99_us: f64,
    /// And 99.9 %.
    pub p999_us: f64,
}

/// All rounds of each client of one workload.
#[derive(Debug)]
pub struct Measured {
    workload: Workload,
    rounds: Vec<(&'static str, Vec<Round>)>,
    /// Allocations a call, and bytes allocated.
    allocations: Vec<[f64; 2]>,
}

/// Lets the clients take turns, so often; a round before the first warms up.
///
/// # Errors
///
/// If a call fails, or a reply is not what was sent.
pub async fn measure(clients: &[Client], workload: Workload, rounds: usize) -> Result<Measured, Box<dyn Error>> {
    let mut all: Vec<_> = clients.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for round in 0..=rounds {
        // Another one begins each time, so that none always follows the same one.
        for turn in 0..clients.len() {
            let at = (turn + round) % clients.len();
            let (name, call) = &clients[at];
            let one = run(call, workload).await.map_err(|error| format!("{name}: {error}"))?;
            if round > 0 {
                all[at].1.push(one);
            }
        }
    }
    // Counted apart from what is timed: counting takes time.
    let mut allocations = Vec::new();
    for (_, call) in clients {
        let counted = Allocations::count();
        run(call, workload).await.map_err(|error| error.to_string())?;
        let (count, bytes) = counted.so_far();
        allocations.push([count, bytes].map(|all| all as f64 / workload.calls as f64));
    }
    Ok(Measured { workload, rounds: all, allocations })
}

async fn run(call: &Call, workload: Workload) -> Result<Round, BoxError> {
    let Workload { shape, concurrency, calls, .. } = workload;
    let messages = shape.messages();
    let (begun, before) = (Instant::now(), cpu());
    let callers = (0..concurrency).map(|caller| {
        let (call, calls, messages) = (call.clone(), calls / concurrency, messages.clone());
        tokio::spawn(call(shape, Job::new(messages, caller * calls..(caller + 1) * calls)))
    });
    let mut took: Vec<Duration> = Vec::with_capacity(calls);
    for caller in join_all(callers).await {
        took.extend(caller??);
    }
    let cpu_us = (cpu() - before).as_secs_f64() * 1e6 / took.len() as f64;
    let rps = took.len() as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok(Round { rps, cpu_us, p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) })
}

/// The middle one.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

/// The one that such a share of them does not exceed; they are sorted by then. No number if there are none.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().saturating_sub(1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

impl Measured {
    /// The middle of a client's rounds.
    #[must_use]
    pub fn median(&self, client: &str, value: impl Fn(&Round) -> f64) -> f64 {
        let rounds = self.rounds.iter().find(|(name, _)| *name == client);
        median(rounds.map_or_else(Vec::new, |(_, rounds)| rounds.iter().map(value).collect()))
    }

    /// Allocations of a client's call, and their bytes.
    #[must_use]
    pub fn allocations(&self, client: &str) -> [f64; 2] {
        let at = self.rounds.iter().position(|(name, _)| *name == client);
        at.and_then(|at| self.allocations.get(at).copied()).unwrap_or([f64::NAN; 2])
    }

    /// One client beside another: the middle of the rounds' ratios, as they ran side by side.
    #[must_use]
    pub fn ratio(&self, client: &str, other: &str, value: impl Fn(&Round) -> f64) -> f64 {
        let rounds = |name: &str| self.rounds.iter().find(|(client, _)| *client == name).map(|(_, rounds)| rounds);
        let (Some(ours), Some(theirs)) = (rounds(client), rounds(other)) else { return f64::NAN };
        median(ours.iter().zip(theirs).map(|(ours, theirs)| value(ours) / value(theirs)).collect())
    }

    /// Prints the table.
    pub fn print(&self) {
        let Workload { name, concurrency, workers, calls, .. } = self.workload;
        let rounds = self.rounds.first().map_or(0, |(_, rounds)| rounds.len());
        let threads = if workers == 1 { "1 thread".to_owned() } else { format!("{workers} workers") };
        println!("\n{name}, {concurrency} in flight, {threads}: medians of {rounds} rounds of {calls} calls");
        println!(
            "{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}{:>11}",
            "", "RPC/s", "CPU µs", "p50 µs", "p99 µs", "p99.9 µs", "allocs", "bytes"
        );
        for ((client, _), [allocs, bytes]) in self.rounds.iter().zip(&self.allocations) {
            let of = |value: fn(&Round) -> f64| self.median(client, value);
            println!(
                "{client:<26}{:>10.0}{:>10.1}{:>10.0}{:>10.0}{:>10.0}{:>9.1}{:>11.0}",
                of(|round| round.rps),
                of(|round| round.cpu_us),
                of(|round| round.p50_us),
                of(|round| round.p99_us),
                of(|round| round.p999_us),
                allocs,
                bytes,
            );
        }
    }

    /// The rows of the file.
    #[must_use]
    pub fn rows(&self) -> Vec<Value> {
        let row = |(client, [allocs, bytes]): (&'static str, [f64; 2])| {
            let of = |value: fn(&Round) -> f64| self.median(client, value);
            json!({
                "client": client,
                "workload": self.workload.name,
                "concurrency": self.workload.concurrency,
                "workers": self.workload.workers,
                "rps": of(|round| round.rps),
                "cpu_us": of(|round| round.cpu_us),
                "p50_us": of(|round| round.p50_us),
                "p99_us": of(|round| round.p99_us),
                "p999_us": of(|round| round.p999_us),
                "allocs": allocs,
                "alloc_bytes": bytes,
            })
        };
        self.rounds.iter().map(|(client, _)| *client).zip(self.allocations.iter().copied()).map(row).collect()
    }
}

/// Figures held against their marks.
#[derive(Debug, Default)]
pub struct Marks(BTreeMap<String, Value>);

impl Marks {
    /// Notes a figure that must be at most, or at least, something; and what would be better still.
    pub fn note(&mut self, what: &str, value: f64, must: Bound, stretch: Option<Bound>) {
        let holds = |bound: Bound| match bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        };
        let pass = holds(must);
        let better = stretch.is_some_and(holds);
        let mark = if better {
            "stretch"
        } else if pass {
            "pass"
        } else {
            "MISSED"
        };
        println!(
            "{what:<58}{value:>8.2}   must {must}{:<16} {mark}",
            stretch.map_or_else(String::new, |s| format!(", better {s}"))
        );
        let entry = json!({
            "ratio": what, "value": value, "must": must.to_string(),
            "stretch": stretch.map(|stretch| stretch.to_string()), "pass": pass, "stretch_pass": better,
        });
        self.0.insert(what.to_owned(), entry);
    }

    /// The entries of the file.
    #[must_use]
    pub fn rows(self) -> Vec<Value> {
        self.0.into_values().collect()
    }
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Bound {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

/// Writes the rows where the README says.
///
/// # Errors
///
/// If it cannot.
pub fn write(name: &str, rows: &[Value]) -> Result<(), Box<dyn Error>> {
    write_text(name, &serde_json::to_string_pretty(rows)?)?;
    println!("\nwritten to target/bench/{name}");
    Ok(())
}

/// Writes a text into `target/bench`.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_text(name: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench").join(name);
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    Ok(fs::write(file, text)?)
}
