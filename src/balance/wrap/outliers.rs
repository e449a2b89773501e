//! Who fares far worse than the others: gRPC's outlier detection, as settings and arithmetic.

use std::time::Duration;

/// Sets endpoints aside that fail far more calls than the others
/// ([gRFC A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md)), for any
/// [`Policy`](super::super::Policy).
///
/// Each `interval` it compares what the endpoints answered since the one before, by two rules: the *success rate*
/// (less than the mean of all by so many standard deviations) and the *failure percentage* (more than
/// so much). A call failed if the server, or the way to it, is to blame ([`Outcome`](crate::load::Outcome): all but a
/// success and who was cancelled), and not where the application said no.
/// Who is set aside comes back at the end of an interval, after `base_ejection_time` times as often as it was
/// set aside lately.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct OutlierEjection {
    pub(super) interval: Duration,
    pub(super) base: Duration,
    pub(super) longest: Duration,
    pub(super) most_percent: u32,
    pub(super) success_rate: Rule,
    pub(super) failure_percentage: Rule,
    pub(super) panic_percent: u32,
}

/// One of the two rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rule {
    /// Thousandths of a standard deviation, or percent of failures.
    pub(super) bound: u32,
    /// In percent: how likely it is that an outlier is set aside.
    pub(super) enforcement: u32,
    /// With fewer endpoints of enough calls the rule says nothing.
    pub(super) minimum_hosts: u32,
    /// Fewer calls in an interval are not enough.
    pub(super) request_volume: u32,
}

impl Default for OutlierEjection {
    fn default() -> Self {
        let rule = |bound, request_volume| Rule { bound, enforcement: 100, minimum_hosts: 5, request_volume };
        Self {
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            most_percent: 10,
            success_rate: rule(1900, 100),
            failure_percentage: rule(85, 50),
            panic_percent: super::PANIC,
        }
    }
}

/// No interval is shorter, and no time longer than a month, whatever is asked for.
const SHORTEST: Duration = Duration::from_millis(1);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

impl OutlierEjection {
    /// gRPC's settings, both rules on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how often endpoints are compared. Default 10 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(SHORTEST, MONTH);
        self
    }

    /// Sets for how long an endpoint is set aside at first, and at most. Default 30 s and 300 s.
    pub fn ejection_time(mut self, base: Duration, longest: Duration) -> Self {
        self.base = base.min(MONTH);
        self.longest = longest.min(MONTH);
        self
    }

    /// Sets how many percent of the known endpoints may be aside before no more are set aside; one may
    /// always be. Default 10.
    pub fn max_ejection_percent(mut self, percent: u32) -> Self {
        self.most_percent = percent.min(100);
        self
    }

    /// Sets when an endpoint's success rate is too low: below the mean by so many thousandths of a
    /// standard deviation, among at least `minimum_hosts` endpoints of at least `request_volume` calls in an
    /// interval; and in how many percent of cases that is enforced. Default 1900, 100, 5 and 100.
    pub fn success_rate(
        mut self,
        stdev_factor: u32,
        enforcement: u32,
        minimum_hosts: u32,
        request_volume: u32,
    ) -> Self {
        self.success_rate = Rule { bound: stdev_factor, enforcement, minimum_hosts, request_volume };
        self
    }

    /// Sets how many percent of failures are too many, and the rest as for the success rate. Default 85,
    /// 100, 5 and 50.
    pub fn failure_percentage(
        mut self,
        threshold: u32,
        enforcement: u32,
        minimum_hosts: u32,
        request_volume: u32,
    ) -> Self {
        self.failure_percentage = Rule { bound: threshold, enforcement, minimum_hosts, request_volume };
        self
    }

    /// Sets the share in percent of the known endpoints that must be left: while fewer are ready and not
    /// aside, those that are aside take calls as well, as the rest would break under the load
    /// ([Envoy's panic threshold](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold)).
    /// Default 50; 0 for as long as one is left.
    pub fn panic_threshold(mut self, percent: u32) -> Self {
        self.panic_percent = percent.min(100);
        self
    }
}

/// What an endpoint answered in an interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
}

impl Answers {
    fn all(self) -> u64 {
        self.succeeded.saturating_add(self.failed)
    }

    fn rate(self) -> f64 {
        self.succeeded as f64 / self.all() as f64
    }
}

impl Rule {
    fn enough<'a>(&'a self, answers: &'a [Answers]) -> Option<impl Iterator<Item = (usize, Answers)> + Clone + 'a> {
        let least = u64::from(self.request_volume.max(1));
        let enough = answers.iter().copied().enumerate().filter(move |(_, answers)| answers.all() >= least);
        let count = enough.clone().count();
        (self.enforcement > 0 && count > 0 && count >= self.minimum_hosts as usize).then_some(enough)
    }

    /// Whose success rate is too low.
    pub(super) fn below_the_mean(&self, answers: &[Answers]) -> Vec<usize> {
        let Some(enough) = self.enough(answers) else { return Vec::new() };
        let count = enough.clone().count() as f64;
        let mean = enough.clone().map(|(_, answers)| answers.rate()).sum::<f64>() / count;
        let variance = enough.clone().map(|(_, answers)| (answers.rate() - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(self.bound) / 1000.0;
        enough.filter(|(_, answers)| answers.rate() < least).map(|(at, _)| at).collect()
    }

    /// Who failed too many.
    pub(super) fn above_the_bound(&self, answers: &[Answers]) -> Vec<usize> {
        let Some(enough) = self.enough(answers) else { return Vec::new() };
        let percent = |answers: Answers| 100.0 * answers.failed as f64 / answers.all() as f64;
        enough.filter(|(_, answers)| percent(*answers) > f64::from(self.bound)).map(|(at, _)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rates: &[(u64, u64)]) -> Vec<Answers> {
        rates.iter().map(|(succeeded, failed)| Answers { succeeded: *succeeded, failed: *failed }).collect()
    }

    #[test]
    fn the_rules_are_those_of_a50() {
        let detection = OutlierEjection::new();
        // Nine at 100 %, one at 70 %: mean 97 %, deviation 9 %, so below 79.9 % is an outlier.
        let mut answers = of(&[(100, 0); 10]);
        answers[3] = Answers { succeeded: 70, failed: 30 };
        assert_eq!(detection.success_rate.below_the_mean(&answers), [3]);
        assert_eq!(detection.failure_percentage.above_the_bound(&answers), [0; 0]);
        answers[3] = Answers { succeeded: 15, failed: 85 };
        assert_eq!(detection.failure_percentage.above_the_bound(&answers), [0; 0], "85 % is not above 85 %");
        answers[3] = Answers { succeeded: 14, failed: 86 };
        assert_eq!(detection.failure_percentage.above_the_bound(&answers), [3]);
        // Equal rates have no outlier, and too few calls or endpoints say nothing.
        assert_eq!(detection.success_rate.below_the_mean(&of(&[(50, 50); 10])), [0; 0]);
        assert_eq!(detection.success_rate.below_the_mean(&of(&[(100, 0), (100, 0), (100, 0), (0, 100)])), [0; 0]);
        assert_eq!(detection.failure_percentage.above_the_bound(&of(&[(0, 49); 9])), [0; 0]);
        assert_eq!(detection.failure_percentage.above_the_bound(&[]), [0; 0]);
    }
}
