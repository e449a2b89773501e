//! Policies on ten real processes of which one is slow, one fails at once, one stalls and one starts cold.
//!
//! `cargo bench -p callsign-bench --bench live`: the policies take turns on one fleet, and the figures are medians of
//! the rounds. Processes are `examples/server.rs` and `examples/client.rs`. With `-- --brief` one short round, as debug
//! builds. That `adaptive` does better than round robin is checked.

#[path = "../../tests/support/dir.rs"]
mod dir;
#[path = "../../tests/support/live.rs"]
mod live;
#[allow(unexpected_cfgs, reason = "features of the crate's own tests")]
#[path = "../../tests/support/process.rs"]
mod process;

use std::{error::Error, time::Duration};

use callsign_bench::table::{median, write};
use live::{COLD, EVEN, Fleet, Outcome, RATE, SLOW, STALLED};
use serde_json::{Map, json};

const POLICIES: [&str; 6] = ["adaptive", "peak_ewma", "least_request", "weighted_round_robin", "round_robin", "random"];

/// A figure of a run, and how it is printed.
type Figure = (&'static str, fn(&Outcome) -> f64);

const FIGURES: [Figure; 8] = [
    ("p50 ms", Outcome::p50_ms),
    ("p99 ms", Outcome::p99_ms),
    ("failed %", |outcome| outcome.failed() * 100.0),
    ("at once %", |outcome| outcome.failed_at_once() * 100.0),
    ("even %", |outcome| EVEN.iter().map(|id| outcome.share(id)).sum::<f64>() / EVEN.len() as f64 * 100.0),
    ("slow %", |outcome| outcome.share(SLOW) * 100.0),
    ("stalled %", |outcome| outcome.share(STALLED) * 100.0),
    ("cold %", |outcome| outcome.share(COLD) * 100.0),
];

fn main() -> Result<(), Box<dyn Error>> {
    let brief = std::env::args().any(|arg| arg == "--brief");
    let (rounds, length) = if brief { (1, Duration::from_secs(6)) } else { (5, Duration::from_secs(12)) };
    let policies: Vec<_> =
        POLICIES.into_iter().filter(|policy| !brief || ["adaptive", "round_robin"].contains(policy)).collect();
    process::use_release(!brief);
    let fleet = Fleet::start();
    let mut outcomes: Vec<Vec<Outcome>> = policies.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..policies.len() {
            let at = (turn + round) % policies.len();
            outcomes[at].push(fleet.run(policies[at], length));
        }
    }
    println!(
        "{RATE} calls a second for {length:?}, medians of {rounds} rounds; shares of calls that one such server answered"
    );
    println!("{:<22}{}", "", FIGURES.map(|(name, _)| format!("{name:>11}")).concat());
    let mut rows = Vec::new();
    let of = |at: usize, figure: fn(&Outcome) -> f64| median(outcomes[at].iter().map(figure).collect());
    for (at, policy) in policies.iter().enumerate() {
        println!("{policy:<22}{}", FIGURES.map(|(_, figure)| format!("{:>11.1}", of(at, figure))).concat());
        let mut row: Map<_, _> =
            FIGURES.iter().map(|(name, figure)| ((*name).to_owned(), json!(of(at, *figure)))).collect();
        row.insert("policy".to_owned(), json!(policy));
        rows.push(row.into());
    }
    write("live.json", &rows)?;
    let robin = policies.iter().position(|policy| *policy == "round_robin").ok_or("no round robin")?;
    let better = |figure: fn(&Outcome) -> f64| of(0, figure) < of(robin, figure) / 2.0;
    if better(Outcome::p99_ms) && better(Outcome::failed) {
        Ok(())
    } else {
        Err("adaptive is no better than half of round robin".into())
    }
}
