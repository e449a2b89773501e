//! The table: the crate's policies side by side, and what the default one is held to.

use serde_json::{Value, json};

use super::{
    model::Chooser,
    picture::Picture,
    report::{Report, run_all},
    scenario::Scenario,
    tally::Tally,
    targets::{TARGETS, Target},
    validate::{parse, policy},
};

/// The policy that the targets are for.
const HELD: &str = "adaptive";

/// Needs probes for all that it does.
const PROBING: &str = "prequal";

/// Those that make sense without a key of the call. All servers report and answer probes.
const POLICIES: [&str; 8] = [
    HELD,
    PROBING,
    "peak_ewma",
    "weighted_round_robin",
    "least_request",
    "round_robin",
    "random",
    "pick_first?shuffle=true",
];

/// What the servers bring, by level.
const LEVELS: [&str; 3] = ["L0", "L1", "L2"];
const LEVELS_DRAWN: [&str; 3] = [HELD, "adaptive, reports", "adaptive, probes"];

/// With reports it may be no more than this much worse than another policy, at p99.
const WORSE: f64 = 1.02;

/// Runs all targets' scenarios, prints the table, and makes the rows of the file and the picture.
///
/// # Errors
///
/// If a scenario is none.
pub fn table(brief: bool) -> Result<(Vec<Value>, Picture), String> {
    println!("\np99/p99.9 as ratios to the oracle's; ! calls that were lost, in %\n");
    let name = |text: &&str| text.split('?').next().unwrap_or_default().to_owned();
    println!("{:<32}{}", "", POLICIES.iter().map(|text| format!("{:>20}", name(text))).collect::<String>());
    let (mut rows, mut marks, mut picture) = (Vec::new(), Vec::new(), Picture::default());
    for target in &TARGETS {
        let scenario = scenario(target, brief)?;
        let report = Report::of(&scenario)?;
        let cells = report.policies.iter().map(|(_, tally)| format!("{:>20}", cell(&report, tally)));
        println!("{:<32}{}", target.name, cells.collect::<String>());
        rows.extend(report.rows());
        picture.scenario(target.name);
        for (text, tally) in report.policies.iter().filter(|(text, _)| text != HELD) {
            picture.point(&name(&text.as_str()), report.ratios(tally)[0]);
        }
        for (level, held) in LEVELS_DRAWN.into_iter().enumerate() {
            let mark = mark(target, &scenario, &report, level)?;
            picture.point(held, mark.p99);
            marks.push(mark);
        }
    }
    println!("\n{HELD}, at most:");
    marks.iter().for_each(Mark::print);
    rows.extend(marks.iter().map(Mark::row));
    Ok((rows, picture))
}

fn scenario(target: &Target, brief: bool) -> Result<Scenario, String> {
    let mut scenario = parse(&format!("{}\n{}", target.keys, target.tables), target.name)?;
    scenario.policies = POLICIES.map(str::to_owned).into();
    (scenario.reports, scenario.probes) = (true, true);
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
    p99: f64,
    p999: f64,
    lost: f64,
    /// p99 beside the best other policy's.
    beside: f64,
}

fn mark(target: &Target, scenario: &Scenario, report: &Report, level: usize) -> Result<Mark, String> {
    let mut scenario = scenario.clone();
    (scenario.reports, scenario.probes) = (level >= 1, level >= 2);
    let tally = &run_all(&scenario, &[Chooser::Policy(policy(HELD)?)])?[0];
    let [p99, p999] = report.ratios(tally);
    let others = report.policies.iter().filter(|(text, _)| text != HELD && (level == 2 || text != PROBING));
    let best = others.map(|(_, tally)| report.ratios(tally)[0]).fold(f64::INFINITY, f64::min);
    Ok(Mark { target: *target, level, p99, p999, lost: lost(tally), beside: p99 / best })
}

impl Mark {
    fn passes(&self) -> bool {
        let (ratios, most) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let near = self.p99 <= ratios.0 && self.p999 <= ratios.1;
        near && self.lost <= most && (self.level == 0 || self.beside <= WORSE)
    }

    fn verdict(&self) -> &'static str {
        if self.passes() { "pass" } else { "MISSED" }
    }

    fn print(&self) {
        let ((p99, p999), most) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let bound = |value: f64| if value.is_finite() { format!("{value:.2}") } else { "-".to_owned() };
        let lost = |share: f64| if share.is_finite() { format!("{:.2} %", share * 100.0) } else { "-".to_owned() };
        let must = format!("{}/{} lost {}", bound(p99), bound(p999), lost(most));
        let (name, level, verdict) = (self.target.name, LEVELS[self.level], self.verdict());
        let found = format!("{:.2}/{:.2} lost {}", self.p99, self.p999, lost(self.lost));
        println!("{name:<32}{level:<4}{must:<26}{verdict:<9}{found}, {:.2} of the best other's p99", self.beside);
    }

    fn row(&self) -> Value {
        let ((p99, p999), most) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let bound = |value: f64| value.is_finite().then_some(value);
        json!({
            "target": self.target.name,
            "policy": HELD,
            "level": LEVELS[self.level],
            "must": { "p99_ratio": bound(p99), "p999_ratio": bound(p999), "lost_share": bound(most) },
            "found": {
                "p99_ratio": self.p99,
                "p999_ratio": self.p999,
                "lost_share": self.lost,
                "p99_beside_best_other": self.beside,
            },
            "verdict": self.verdict(),
        })
    }
}
