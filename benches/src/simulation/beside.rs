//! The default policy beside the others.

use super::{table::HELD, tally::Tally};

/// It may be no more than this much worse than another policy, at p99.
pub const WORSE: f64 = 1.02;

/// Another that loses so much more of the calls is not compared with.
const LOSES: f64 = 0.001;

/// The best other policy that loses no more calls: who loses more is no better for what it answers in time.
#[derive(Debug)]
pub struct Beside<'a> {
    /// Its name and options.
    pub policy: &'a str,
    /// What came of it.
    pub tally: &'a Tally,
    /// How many times longer the default one takes, at p99.
    pub ratio: f64,
}

impl<'a> Beside<'a> {
    /// Of those that may be compared with; none if all others lose more.
    #[must_use]
    pub fn of(found: &Tally, all: &'a [(String, Tally)], may: impl Fn(&str) -> bool) -> Option<Self> {
        let p99 = |tally: &Tally| tally.latency.percentile_ms(0.99);
        let compares =
            |(policy, tally): &&(String, Tally)| policy != HELD && may(policy) && tally.lost() <= found.lost() + LOSES;
        let best = all.iter().filter(compares).min_by(|a, b| p99(&a.1).total_cmp(&p99(&b.1)));
        best.map(|(policy, tally)| Self { policy, tally, ratio: p99(found) / p99(tally) })
    }
}

/// Whether one of the others loses clearly fewer calls: by more than a thousandth of all, and a twentieth of these.
#[must_use]
pub fn loses_more(found: &Tally, all: &[(String, Tally)]) -> bool {
    let others = all.iter().filter(|(policy, _)| policy != HELD);
    let least = others.map(|(_, tally)| tally.lost()).fold(f64::INFINITY, f64::min);
    found.lost() > least * 1.05 + LOSES
}
