//! Scenarios made up at random: so that the default policy is tried where nobody thought of trying it.

use std::fmt::Write as _;

use super::{
    beside::{Beside, WORSE, loses_more},
    report::Report,
    rng::Rng,
    table::{HELD, POLICIES, line},
    tally::Tally,
    validate::parse,
};
use crate::table::write_text;

/// Calls of one run that are measured, about.
const CALLS: f64 = 60_000.0;

/// Before that.
const WARMUP_S: f64 = 15.0;

/// Makes up a scenario, the same for the same number, as its file would say it.
#[must_use]
pub fn made_up(number: u64) -> String {
    let mut maker = Maker { rng: Rng::new(number, 0), text: String::new(), capacity: 0.0 };
    maker.make(number);
    maker.text
}

struct Maker {
    rng: Rng,
    text: String,
    /// What all servers can do, in seconds of work a second.
    capacity: f64,
}

impl Maker {
    fn make(&mut self, number: u64) {
        let utilisation = *self.of(&[0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95]);
        let mean_ms = *self.of(&[1.0, 5.0, 10.0, 10.0, 30.0, 100.0]);
        let servers = *self.of(&[3, 5, 10, 10, 20, 40]);
        let mut groups = String::new();
        let slow = self.groups(servers, &mut groups);
        let antagonist = self.one_in(5).then(|| {
            let (burst, gap, speed) =
                (*self.of(&[0.1, 0.5, 2.0, 10.0]), *self.of(&[2.0, 4.0, 9.0]), *self.of(&[0.2, 0.4, 0.7]));
            self.capacity *= (gap + speed) / (gap + 1.0);
            format!("[antagonist]\nburst_s = {burst:?}\ngap_s = {:?}\nspeed = {speed:?}\n", burst * gap)
        });
        let rate = utilisation * self.capacity / (mean_ms / 1e3);
        let measure_s = (CALLS / rate).clamp(15.0, 120.0).round();
        self.says(&format!("name = \"made up {number}\""));
        let (clients, patience, probes) = (self.clients(rate), *self.of(&[30.0, 100.0, 100.0]), self.one_in(2));
        self.says(&format!("clients = {clients}"));
        self.says(&format!("utilisation = {utilisation:?}"));
        self.says(&format!("deadline_ms = {:?}", mean_ms * patience));
        self.says(&format!("warmup_s = {WARMUP_S:?}\nmeasure_s = {measure_s:?}"));
        self.says(&format!("policies = {POLICIES:?}"));
        self.says(&format!("reports = true\nprobes = {probes}"));
        if self.one_in(4) {
            self.says("retries = 1");
        }
        self.service(mean_ms);
        let (base_ms, jitter_ms) = (*self.of(&[0.05, 0.15, 0.15, 0.5, 2.0]), *self.of(&[0.05, 0.1, 0.1, 0.5]));
        self.says(&format!("[network]\nbase_ms = {base_ms:?}\njitter_ms = {jitter_ms:?}"));
        self.says(&groups);
        if self.one_in(3) {
            self.event(servers, slow, measure_s);
        }
        self.says(&antagonist.unwrap_or_default());
    }

    fn says(&mut self, line: &str) {
        self.text += line.trim_end();
        self.text.push('\n');
    }

    fn of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.rng.below(some.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.rng.below(count) == 0
    }

    /// No more than have a call now and then.
    fn clients(&mut self, rate: f64) -> usize {
        let most = (rate / 0.5).max(1.0) as usize;
        (*self.of(&[1, 3, 10, 20, 20, 50, 200])).min(most)
    }

    fn service(&mut self, mean_ms: f64) {
        let form = match self.rng.below(5) {
            0 => "distribution = \"fixed\"".to_owned(),
            1 => format!("distribution = \"lognormal\"\nsigma = {:?}", self.of(&[0.5, 1.0, 1.5])),
            2 => format!(
                "distribution = \"bimodal\"\nshare = {:?}\nfactor = {:?}",
                self.of(&[0.01, 0.1]),
                self.of(&[5.0, 20.0])
            ),
            _ => "distribution = \"exponential\"".to_owned(),
        };
        self.says(&format!("[service]\n{form}\nmean_ms = {mean_ms:?}"));
    }

    /// Servers of one kind, or of two; how many are of the second.
    fn groups(&mut self, servers: usize, text: &mut String) -> usize {
        let workers = *self.of(&[1, 2, 4, 4, 8, 16]);
        let mut form = if self.one_in(3) { "discipline = \"ps\"\n".to_owned() } else { String::new() };
        if self.one_in(4) {
            form += &format!("queue = {}\n", workers * self.of(&[2, 5, 20]));
        }
        let others = if self.one_in(2) { 0 } else { (servers / self.of(&[10, 4, 2])).max(1) };
        let (mut speed, mut weight, mut fails) = (1.0, 100, String::new());
        match self.rng.below(5) {
            0 => (speed, weight) = *self.of(&[(0.5, 50), (2.0, 200), (0.25, 25)]),
            1 => {
                fails = format!("fail_share = {:?}\nfail_code = \"{}\"\n", self.of(&[0.05, 0.3, 1.0]), self.of(&CODES))
            }
            _ => speed = *self.of(&[0.2, 0.5, 0.8, 1.5, 3.0]),
        }
        self.capacity = workers as f64 * ((servers - others) as f64 + others as f64 * speed);
        let _ = write!(text, "[[servers]]\ncount = {}\nworkers = {workers}\n{form}", servers - others);
        if others > 0 {
            let own = format!("speed = {speed:?}\nweight = {weight}\n{fails}");
            let _ = write!(text, "[[servers]]\ncount = {others}\nworkers = {workers}\n{form}{own}");
        }
        others
    }

    /// Something happens to the first of them, or to the first third.
    fn event(&mut self, servers: usize, slow: usize, measure_s: f64) {
        let count = if self.one_in(2) { 1 } else { (servers - slow).div_ceil(3) };
        let all: Vec<_> = (0..count).collect();
        let at_s = WARMUP_S + (measure_s * 0.3).round();
        let for_s = (measure_s * *self.of(&[0.1, 0.3])).max(1.0).round();
        let lasting = format!("for_s = {for_s:?}\n");
        let (length, kind) = match self.rng.below(7) {
            0 => (lasting, "kind = \"stall\"".to_owned()),
            1 => (lasting, format!("kind = \"speed\"\nfactor = {:?}", self.of(&[0.1, 0.5]))),
            2 => (
                lasting,
                format!("kind = \"fail\"\nshare = {:?}\ncode = \"{}\"", self.of(&[0.3, 1.0]), self.of(&CODES)),
            ),
            3 => (lasting, "kind = \"crash\"".to_owned()),
            4 => (lasting, "kind = \"leave\"".to_owned()),
            5 => (lasting, format!("kind = \"delay\"\nms = {:?}", self.of(&[5.0, 50.0]))),
            _ => (String::new(), format!("kind = \"join\"\nspeed_from = 0.1\nramp_s = {:?}", self.of(&[5.0, 20.0]))),
        };
        self.says(&format!("[[events]]\nat_s = {at_s:?}\n{length}servers = {all:?}\n{kind}"));
    }
}

const CODES: [&str; 3] = ["UNAVAILABLE", "INTERNAL", "UNKNOWN"];

/// Runs scenarios by their numbers, writes them to `target/bench/made_up`, and prints the default policy beside
/// the best other one.
///
/// # Errors
///
/// If one cannot be written.
pub fn made_up_all(numbers: impl Iterator<Item = u64>) -> Result<(), String> {
    let texts: Vec<_> = numbers.map(|number| (number, made_up(number))).collect();
    for (number, text) in &texts {
        write_text(&format!("made_up/{number}.toml"), text).map_err(|error| error.to_string())?;
    }
    let head = ["p99 ms", "lost %", "best other", "its p99 ms", "its lost %", "beside"];
    println!();
    line("made up", head.map(str::to_owned));
    line("---", head.map(|_| "---".to_owned()));
    let (mut all, mut worse) = (0, 0);
    for (number, text) in texts {
        let scenario = parse(&text, "made up").map_err(|error| format!("{error}\n{text}"))?;
        let report = Report::of(&scenario)?;
        let found = report.policies.iter().find(|(text, _)| text == HELD);
        let Some((_, found)) = found else { continue };
        all += 1;
        let beside = Beside::of(found, &report.policies, |_| true);
        let bold = |text: String, is: bool| if is { format!("**{text}**") } else { text };
        let p99 = |tally: &Tally| format!("{:.1}", tally.latency.percentile_ms(0.99));
        let (slower, loses) =
            (beside.as_ref().is_some_and(|beside| beside.ratio > WORSE), loses_more(found, &report.policies));
        let mut cells = vec![p99(found), bold(percent(found.lost()), loses)];
        match beside {
            Some(Beside { policy, tally, ratio }) => cells.extend([
                policy.to_owned(),
                p99(tally),
                percent(tally.lost()),
                bold(format!("{ratio:.2}"), slower),
            ]),
            None => cells.extend(["-"; 4].map(str::to_owned)),
        }
        line(&number.to_string(), cells);
        worse += usize::from(slower || loses);
    }
    println!(
        "\n{worse} of {all} where another policy is better by more than 2 % and loses no more calls, or loses clearly fewer; \
         the scenarios are in target/bench/made_up"
    );
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}
