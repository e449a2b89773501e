//! The model against queueing theory, and against itself.

use std::{thread, time::Instant};

use super::{
    histogram::Histogram,
    model::{Chooser, run},
    oracle::Oracle,
    picture::Picture,
    report::Report,
    scenario::Scenario,
    tally::Tally,
    validate::{parse, policy},
};

/// A queue whose mean is known.
struct Known {
    what: &'static str,
    /// What differs from ten servers of four workers, first in, first out.
    text: &'static str,
    oracle: Option<Oracle>,
    /// The mean time in the network and in the system.
    mean_ms: f64,
}

/// In the network, both ways.
const NETWORK_MS: f64 = 0.5;

/// The mean time in an M/M/c queue (Erlang's C), by its utilisation and mean service time.
fn erlang(workers: u32, utilisation: f64, service_ms: f64) -> f64 {
    let (c, offered) = (f64::from(workers), f64::from(workers) * utilisation);
    // Erlang's B by its recursion, then C of B.
    let blocked = (1..=workers).fold(1.0, |blocked, n| offered * blocked / (f64::from(n) + offered * blocked));
    let waits = blocked / (1.0 - utilisation * (1.0 - blocked));
    service_ms + waits * service_ms / (c * (1.0 - utilisation))
}

/// Random choice makes ten M/M/c queues of ten servers; and sharing is M/G/1-PS, whose mean depends
/// on the mean of the service time alone.
fn all() -> Vec<Known> {
    let m = |what, text, mean_ms| Known { what, text, oracle: None, mean_ms: mean_ms + NETWORK_MS };
    let shared = 10.0 / (1.0 - 0.7);
    vec![
        m("M/M/4, 50 %", "utilisation = 0.5\nmeasure_s = 200", erlang(4, 0.5, 10.0)),
        m("M/M/4, 70 %", "utilisation = 0.7\nmeasure_s = 300", erlang(4, 0.7, 10.0)),
        m("M/M/4, 90 %", "utilisation = 0.9\nmeasure_s = 1500", erlang(4, 0.9, 10.0)),
        m(
            "M/M/1-PS, 70 %",
            "utilisation = 0.7\nmeasure_s = 800\n[[servers]]\ncount = 10\nworkers = 1\ndiscipline = 'ps'",
            shared,
        ),
        m(
            "M/G/1-PS, 70 %, bimodal",
            "utilisation = 0.7\nmeasure_s = 1500\n[service]\ndistribution = 'bimodal'\nshare = 0.1\nfactor = 10\n\
             [[servers]]\ncount = 10\nworkers = 1\ndiscipline = 'ps'",
            shared,
        ),
        m(
            "M/M/4-PS, 70 %",
            "utilisation = 0.7\nmeasure_s = 300\n[[servers]]\ncount = 10\ndiscipline = 'ps'",
            erlang(4, 0.7, 10.0),
        ),
        m(
            "M/D/1, 70 %",
            "utilisation = 0.7\nmeasure_s = 400\n[service]\ndistribution = 'fixed'\n[[servers]]\ncount = 10\nworkers = 1",
            10.0 + 10.0 * 0.7 / (2.0 * (1.0 - 0.7)),
        ),
        Known {
            what: "M/M/40, 90 %, one queue",
            text: "utilisation = 0.9\nmeasure_s = 200",
            oracle: Some(Oracle::OneQueue),
            mean_ms: erlang(40, 0.9, 10.0) + NETWORK_MS,
        },
    ]
}

/// So far a mean may be off.
const OFF: f64 = 0.02;

/// A scenario in which everything happens at once, in little time.
const EVERYTHING: &str = include_str!("../../scenarios/everything.toml");

/// One of two servers comes, goes, and comes again.
const JOINS_TWICE: &str = "
    utilisation = 0.3\nwarmup_s = 0\nmeasure_s = 80\npolicies = ['round_robin']\n[[servers]]\ncount = 2\n
    [[events]]\nat_s = 20\nfor_s = 20\nservers = [1]\nkind = 'join'\n
    [[events]]\nat_s = 60\nservers = [1]\nkind = 'join'";

/// Checks the model; prints a line for each check.
///
/// # Errors
///
/// If it is not what theory says, or not the same twice.
pub fn check() -> Result<(), String> {
    Histogram::check()?;
    Picture::check()?;
    let mut wrong = Vec::new();
    let (known, begun) = (all(), Instant::now());
    let tallies = thread::scope(|scope| {
        let running: Vec<_> = known.iter().map(|known| scope.spawn(|| measure(known))).collect();
        let ended = running.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a run panicked".to_owned())));
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    let (calls, took) = (tallies.iter().map(|tally| tally.simulated).sum::<u64>(), begun.elapsed().as_secs_f64());
    for (known, tally) in known.iter().zip(&tallies) {
        let (mean, theory) = (tally.latency.mean_ms(), known.mean_ms);
        let off = mean / theory - 1.0;
        println!("{:<26} mean {mean:>7.2} ms, theory {theory:>7.2} ms: {:+.1} %", known.what, off * 100.0);
        if off.abs() > OFF || tally.failed > 0 {
            wrong.push(known.what);
        }
    }
    println!("{:.1} million calls simulated in {took:.1} s", calls as f64 / 1e6);
    let everything = parse(EVERYTHING, "everything")?;
    let twice = [rows(&everything)?, rows(&everything)?];
    if !include_str!("../../../docs/simulation.md").contains(include_str!("../../scenarios/two_slow.toml")) {
        wrong.push("docs/simulation.md shows benches/scenarios/two_slow.toml");
    }
    if twice[0] != twice[1] {
        wrong.push("the same seeds, the same figures");
    }
    let shares = Report::of(&parse(JOINS_TWICE, "joins")?)?.policies[0].1.share_by_server();
    if (shares[1] - 0.25).abs() > 0.02 {
        wrong.push("one of two that is there half of the time gets half of its share");
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("wrong: {}", wrong.join("; "))) }
}

fn measure(known: &Known) -> Result<Tally, String> {
    let text = format!("deadline_ms = 60000\nwarmup_s = 20\n{}", known.text);
    let chooser = match known.oracle {
        Some(oracle) => Chooser::Oracle(oracle),
        None => Chooser::Policy(policy("random")?),
    };
    run(&parse(&text, known.what)?, &chooser, 0)
}

fn rows(scenario: &Scenario) -> Result<String, String> {
    Ok(Report::of(scenario)?.rows().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
