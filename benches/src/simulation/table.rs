//! The table: the crate's policies side by side, and what the default one is held to.

use serde_json::{Value, json};

use super::{
    beside::{Beside, WORSE},
    model::Chooser,
    picture::Picture,
    report::{Report, run_all},
    scenario::Scenario,
    targets::{TARGETS, Target},
    validate::{parse, policy},
};

/// The policy that the targets are for.
pub(super) const HELD: &str = "adaptive";

/// Needs probes for all that it does.
const PROBING: &str = "prequal";

/// Those that make sense without a key of the call. All servers report and answer probes.
pub(super) const POLICIES: [&str; 8] = [
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

/// Runs all targets' scenarios, prints the table as `docs/which_policy.md` has it, and makes the rows of the file and the
/// picture.
///
/// # Errors
///
/// If a scenario is none.
pub fn table(brief: bool) -> Result<(Vec<Value>, Picture), String> {
    let name = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
    println!("\np99/p99.9 as ratios to the oracle's; ! calls that were lost, in %\n");
    line("", POLICIES.map(name));
    line("---", POLICIES.map(|_| "---".to_owned()));
    let (mut rows, mut held, mut picture) = (Vec::new(), Vec::new(), Picture::default());
    for target in &TARGETS {
        let scenario = scenario(target, brief)?;
        let report = Report::of(&scenario)?;
        line(target.name, report.policies.iter().map(|(_, tally)| cell(report.ratios(tally), tally.lost())));
        rows.extend(report.rows());
        picture.scenario(target.name);
        for (text, tally) in report.policies.iter().filter(|(text, _)| text != HELD) {
            picture.point(&name(text), report.ratios(tally)[0]);
        }
        let mut marks = Vec::new();
        for (level, drawn) in LEVELS_DRAWN.into_iter().enumerate() {
            let mark = mark(target, &scenario, &report, level)?;
            picture.point(drawn, mark.ratios[0]);
            marks.push(mark);
        }
        held.push(marks);
    }
    println!(
        "\n{HELD}, what it must not exceed, and its p99 beside the best other policy's that loses no more calls\n"
    );
    line("", LEVELS.iter().flat_map(|level| [(*level).to_owned(), "at most".to_owned(), "beside".to_owned()]));
    line("---", [(); 3 * LEVELS.len()].map(|()| "---".to_owned()));
    for marks in &held {
        line(marks[0].target.name, marks.iter().flat_map(Mark::cells));
    }
    rows.extend(held.iter().flatten().map(Mark::row));
    Ok((rows, picture))
}

/// A line of a table.
pub(super) fn line(name: &str, cells: impl IntoIterator<Item = String>) {
    let cells: String = cells.into_iter().map(|cell| format!(" {cell} |")).collect();
    println!("| {name} |{cells}");
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

/// Ratios, and the share of calls that were lost, where there is one.
fn cell(ratios: [f64; 2], lost: f64) -> String {
    let lost = if lost > 0.0 { format!(" !{:.2}", lost * 100.0) } else { String::new() };
    format!("{:.2}/{:.2}{lost}", ratios[0], ratios[1])
}

/// A target at one level, and what came of it.
struct Mark {
    target: Target,
    level: usize,
    ratios: [f64; 2],
    lost: f64,
    /// p99 beside the best other policy's; none if all others lose more.
    beside: Option<f64>,
}

fn mark(target: &Target, scenario: &Scenario, report: &Report, level: usize) -> Result<Mark, String> {
    let mut scenario = scenario.clone();
    (scenario.reports, scenario.probes) = (level >= 1, level >= 2);
    let tally = &run_all(&scenario, &[Chooser::Policy(policy(HELD)?)])?[0];
    let beside = Beside::of(tally, &report.policies, |policy| level == 2 || policy != PROBING);
    let ratios = report.ratios(tally);
    Ok(Mark { target: *target, level, ratios, lost: tally.lost(), beside: beside.map(|beside| beside.ratio) })
}

impl Mark {
    fn passes(&self) -> bool {
        let (most, lost) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let near = self.ratios[0] <= most.0 && self.ratios[1] <= most.1;
        near && self.lost <= lost && (self.level == 0 || self.beside.is_none_or(|beside| beside <= WORSE))
    }

    /// What was found, in bold if it is too much; what must be; and how the best other policy does.
    fn cells(&self) -> [String; 3] {
        let found = cell(self.ratios, self.lost);
        let found = if self.passes() { found } else { format!("**{found}**") };
        let (ratios, lost) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let bound = |value: f64, digits: usize| {
            if value.is_finite() { format!("{value:.digits$}") } else { "any".to_owned() }
        };
        let lost = if lost > 0.0 { format!(" !{}", bound(lost * 100.0, 1)) } else { String::new() };
        let most = format!("{}/{}{lost}", bound(ratios.0, 2), bound(ratios.1, 2));
        let beside = self.beside.map_or_else(|| "-".to_owned(), |beside| format!("{beside:.2}"));
        [found, most, beside]
    }

    fn row(&self) -> Value {
        let (ratios, lost) = (self.target.ratios[self.level], self.target.lost[self.level]);
        let bound = |value: f64| value.is_finite().then_some(value);
        json!({
            "target": self.target.name,
            "policy": HELD,
            "level": LEVELS[self.level],
            "must": { "p99_ratio": bound(ratios.0), "p999_ratio": bound(ratios.1), "lost_share": bound(lost) },
            "found": {
                "p99_ratio": self.ratios[0],
                "p999_ratio": self.ratios[1],
                "lost_share": self.lost,
                "p99_beside_best_other": self.beside,
            },
            "verdict": if self.passes() { "pass" } else { "MISSED" },
        })
    }
}
