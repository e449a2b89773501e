//! A scenario with all its policies and seeds, and what is printed of it.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use serde_json::{Value, json};

use super::{
    model::{Chooser, run},
    oracle::ORACLES,
    scenario::Scenario,
    tally::Tally,
    validate::policy,
};

/// What the best of the oracles reached, each percentile on its own.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Best {
    /// 99 % of the calls took no longer.
    pub p99_ms: f64,
    /// 99.9 % of the calls.
    pub p999_ms: f64,
}

/// What came of a scenario.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    name: String,
    /// What was counted, by policy.
    pub policies: Vec<(String, Tally)>,
    /// What could be reached.
    pub oracle: Best,
}

/// Runs a list of choosers with so many seeds each, on all processors; the counts of each, together.
///
/// # Errors
///
/// As [`run`].
pub fn run_all(scenario: &Scenario, choosers: &[Chooser]) -> Result<Vec<Tally>, String> {
    let jobs: Vec<_> = (0..choosers.len()).flat_map(|at| (0..scenario.seeds).map(move |seed| (at, seed))).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(vec![None; jobs.len()]));
    let work = || {
        while let Some(&(at, seed)) = jobs.get(next.fetch_add(1, Relaxed)) {
            let result = run(scenario, &choosers[at], seed);
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results[at * scenario.seeds as usize + seed as usize] = Some(result);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut all = vec![Tally::new(scenario.each_server().count()); choosers.len()];
    for ((at, _), result) in jobs.into_iter().zip(results) {
        all[at].merge(&result.ok_or("a run is missing")??);
    }
    Ok(all)
}

impl Report {
    /// Runs a scenario's policies and the oracles.
    ///
    /// # Errors
    ///
    /// If a policy is none.
    pub fn of(scenario: &Scenario) -> Result<Self, String> {
        let mut choosers = Vec::new();
        for text in &scenario.policies {
            choosers.push(Chooser::Policy(policy(text)?));
        }
        choosers.extend(ORACLES.map(Chooser::Oracle));
        let mut tallies = run_all(scenario, &choosers)?;
        let oracles = tallies.split_off(scenario.policies.len());
        let best = |share| {
            let all = oracles.iter().map(|tally| tally.latency.percentile_ms(share));
            all.fold(f64::NAN, f64::min)
        };
        let oracle = Best { p99_ms: best(0.99), p999_ms: best(0.999) };
        let policies = scenario.policies.iter().cloned().zip(tallies).collect();
        Ok(Self { name: scenario.name.clone(), policies, oracle })
    }

    /// The ratios of a policy to the oracle, at p99 and p99.9.
    #[must_use]
    pub fn ratios(&self, tally: &Tally) -> [f64; 2] {
        [
            tally.latency.percentile_ms(0.99) / self.oracle.p99_ms,
            tally.latency.percentile_ms(0.999) / self.oracle.p999_ms,
        ]
    }

    /// One object a policy.
    #[must_use]
    pub fn rows(&self) -> Vec<Value> {
        let row = |(policy, tally): &(String, Tally)| {
            let [p99_ratio, p999_ratio] = self.ratios(tally);
            json!({
                "name": self.name,
                "policy": policy,
                "mean_ms": figure(tally.latency.mean_ms()),
                "p50_ms": figure(tally.latency.percentile_ms(0.5)),
                "p99_ms": figure(tally.latency.percentile_ms(0.99)),
                "p999_ms": figure(tally.latency.percentile_ms(0.999)),
                "failed_share": figure(tally.failed_share()),
                "shed_share": figure(tally.shed_share()),
                "attempts_per_call": figure(tally.attempts_per_call()),
                "share_by_server": tally.share_by_server().into_iter().map(figure).collect::<Vec<_>>(),
                "oracle_p99_ms": figure(self.oracle.p99_ms),
                "p99_ratio": figure(p99_ratio),
                "p999_ratio": figure(p999_ratio),
            })
        };
        self.policies.iter().map(row).collect()
    }
}

/// A number of six digits; null where there is none.
fn figure(value: f64) -> Value {
    if !value.is_finite() {
        return Value::Null;
    }
    json!(format!("{value:.5e}").parse::<f64>().unwrap_or(value))
}
