//! The table: the crate's policies side by side, and what the default one is held to.

use serde_json::{Value, json};

use super::{
    model::Chooser,
    report::{Report, run_all},
    scenario::Scenario,
    tally::Tally,
    targets::{TARGETS, Target},
    validate::{parse, policy},
};

/// The policy that the targets are for.
const HELD: &str = "adaptive";

/// Those that make sense without a key of the call, whether the crate has them or will.
const POLICIES: [&str; 8] = [
    HELD,
    "prequal",
    "peak_ewma",
    "weighted_round_robin",
    "least_request",
    "round_robin",
    "random",
    "pick_first?shuffle=true",
];

/// What the servers bring, by level.
const LEVELS: [&str; 3] = ["L0", "L1", "L2"];

/// With reports it may be no more than this much worse than another policy, at p99.
const WORSE: f64 = 1.02;

/// Runs all targets' scenarios, prints the table, and makes the rows of the file.
///
/// # Errors
///
/// If a scenario is none.
pub fn table(brief: bool) -> Result<Vec<Value>, String> {
    let (there, missing): (Vec<_>, Vec<_>) = POLICIES.into_iter().partition(|text| policy(text).is_ok());
    println!("\np99/p99.9 as ratios to the oracle's; ! calls that were lost, in %\n");
    let name = |text: &&str| text.split('?').next().unwrap_or_default().to_owned();
    println!("{:<32}{}", "", there.iter().map(|text| format!("{:>20}", name(text))).collect::<String>());
    let (mut rows, mut marks) = (Vec::new(), Vec::new());
    for target in &TARGETS {
        let scenario = scenario(target, &there, brief)?;
        let report = Report::of(&scenario)?;
        let cells = report.policies.iter().map(|(_, tally)| format!("{:>20}", cell(&report, tally)));
        println!("{:<32}{}", target.name, cells.collect::<String>());
        rows.extend(report.rows());
        for level in 0..LEVELS.len() {
            marks.push(mark(target, &scenario, &report, level)?);
        }
    }
    missing.iter().for_each(|text| println!("{text}: missing"));
    println!("\n{HELD}, at most:");
    marks.iter().for_each(Mark::print);
    rows.extend(marks.iter().map(Mark::row));
    Ok(rows)
}

fn scenario(target: &Target, policies: &[&str], brief: bool) -> Result<Scenario, String> {
    let mut scenario = parse(&format!("{}\n{}", target.keys, target.tables), target.name)?;
    scenario.policies = policies.iter().map(|text| (*text).to_owned()).collect();
    if brief {
        // The same in little time, which says whether it works, and not much more.
        (scenario.seeds, scenario.warmup_s, scenario.measure_s) = (1, 0.75, 1.5);
        for event in &mut scenario.events {
            event.at_s /= 40.0;
            event.for_s = event.for_s.map(|length| length / 40.0);
            event.ramp_s = event.ramp_s.map(|ramp| ramp / 40.0);
        }
    }
    Ok(scenario)
}

fn cell(report: &Report, tally: &Tally) -> String {
    let ([p99, p999], lost) = (report.ratios(tally), lost(tally) * 100.0);
    let lost = if lost > 0.0 { format!(" !{lost:.2}") } else { String::new() };
    format!("{p99:.2}/{p999:.2}{lost}")
}

fn lost(tally: &Tally) -> f64 {
    tally.failed_share() + tally.shed_share()
}

/// A target at one level, and what came of it.
struct Mark {
    target: Target,
    level: usize,
    /// Both ratios, the calls lost, and p99 beside the best other policy; none if the crate has
    /// not what it takes.
    found: Option<[f64; 4]>,
}

fn mark(target: &Target, scenario: &Scenario, report: &Report, level: usize) -> Result<Mark, String> {
    let mut scenario = scenario.clone();
    (scenario.reports, scenario.probes) = (level >= 1, level >= 2);
    let mut mark = Mark { target: *target, level, found: None };
    let Ok(held) = policy(HELD) else { return Ok(mark) };
    if scenario.check().is_err() {
        return Ok(mark);
    }
    let tally = &run_all(&scenario, &[Chooser::Policy(held)])?[0];
    let [p99, p999] = report.ratios(tally);
    let others = report.policies.iter().filter(|(text, _)| text != HELD);
    let best = others.map(|(_, tally)| report.ratios(tally)[0]).fold(f64::INFINITY, f64::min);
    mark.found = Some([p99, p999, lost(tally), p99 / best]);
    Ok(mark)
}

impl Mark {
    fn passes(&self) -> bool {
        let (ratios, most) = (self.target.ratios[self.level], self.target.lost[self.level]);
        self.found.is_some_and(|[p99, p999, lost, beside]| {
            p99 <= ratios.0 && p999 <= ratios.1 && lost <= most && (self.level == 0 || beside <= WORSE)
        })
    }

    fn verdict(&self) -> &'static str {
        match self.found {
            None => "missing",
            Some(_) if self.passes() => "pass",
            Some(_) => "MISSED",
        }
    }

    fn print(&self) {
        let ((p99, p999), most) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let bound = |value: f64| if value.is_finite() { format!("{value:.2}") } else { "-".to_owned() };
        let lost = |share: f64| if share.is_finite() { format!("{:.2} %", share * 100.0) } else { "-".to_owned() };
        let must = format!("{}/{} lost {}", bound(p99), bound(p999), lost(most));
        let found = self.found.map_or_else(String::new, |[p99, p999, share, beside]| {
            format!("{p99:.2}/{p999:.2} lost {}, {beside:.2} of the best other's p99", lost(share))
        });
        let (name, level) = (self.target.name, LEVELS[self.level]);
        println!("{name:<32}{level:<4}{must:<26}{:<9}{found}", self.verdict());
    }

    fn row(&self) -> Value {
        let ((p99, p999), most) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let bound = |value: f64| value.is_finite().then_some(value);
        json!({
            "target": self.target.name,
            "policy": HELD,
            "level": LEVELS[self.level],
            "must": { "p99_ratio": bound(p99), "p999_ratio": bound(p999), "lost_share": bound(most) },
            "found": self.found.map(|[p99, p999, lost, beside]| json!({
                "p99_ratio": p99, "p999_ratio": p999, "lost_share": lost, "p99_beside_best_other": beside,
            })),
            "verdict": self.verdict(),
        })
    }
}
