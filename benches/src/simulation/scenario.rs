//! A scenario as its file says it. What each key means and may be is in docs/simulation.md.

use std::fmt;

use serde::Deserialize;

/// A fleet, its clients, and what happens to them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Scenario {
    /// Its name; the file's, if it says none.
    pub name: String,
    /// How often it runs, each time with other random numbers.
    pub seeds: u64,
    /// Clients, each with a channel of its own.
    pub clients: usize,
    /// Work that is offered, as a share of the fleet's mean capacity.
    pub utilisation: Option<f64>,
    /// Or calls a second of each client.
    pub rate_per_client: Option<f64>,
    /// After so long a caller gives up.
    pub deadline_ms: f64,
    /// What begins sooner is not measured.
    pub warmup_s: f64,
    /// And what begins later than so long after.
    pub measure_s: f64,
    /// The policies to try, as in a target.
    pub policies: Vec<String>,
    /// Whether servers put load reports in trailers.
    pub reports: bool,
    /// Whether servers answer probes.
    pub probes: bool,
    /// Further attempts after UNAVAILABLE.
    pub retries: u32,
    /// What a call is.
    pub service: Service,
    /// The way to the servers.
    pub network: Network,
    /// The servers, in groups of equal ones.
    pub servers: Vec<Servers>,
    /// What happens to single ones.
    pub events: Vec<Event>,
    /// What happens to each of them again and again.
    pub antagonist: Option<Antagonist>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            seeds: 3,
            clients: 20,
            utilisation: None,
            rate_per_client: None,
            deadline_ms: 1e3,
            warmup_s: 30.0,
            measure_s: 60.0,
            policies: vec!["adaptive".to_owned()],
            reports: false,
            probes: false,
            retries: 0,
            service: Service::default(),
            network: Network::default(),
            servers: vec![Servers { count: 10, ..Servers::default() }],
            events: Vec::new(),
            antagonist: None,
        }
    }
}

/// How much work a call is, in the time that a worker of speed 1 takes for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Service {
    /// The form of the distribution.
    pub distribution: Distribution,
    /// Its mean.
    pub mean_ms: f64,
    /// Of `lognormal`: the deviation of the logarithm.
    pub sigma: Option<f64>,
    /// Of `bimodal`: the share of long calls.
    pub share: Option<f64>,
    /// Of `bimodal`: how many times longer these are.
    pub factor: Option<f64>,
}

impl Default for Service {
    fn default() -> Self {
        Self { distribution: Distribution::Exponential, mean_ms: 10.0, sigma: None, share: None, factor: None }
    }
}

/// The form of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Distribution {
    /// All alike.
    Fixed,
    /// Exponential.
    Exponential,
    /// The logarithm is normal.
    Lognormal,
    /// Short ones and long ones.
    Bimodal,
}

/// One way through the network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Network {
    /// What it takes at least.
    pub base_ms: f64,
    /// The mean of an exponential part.
    pub jitter_ms: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self { base_ms: 0.15, jitter_ms: 0.1 }
    }
}

/// Servers that are alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Servers {
    /// How many.
    pub count: usize,
    /// Calls that one works on at once; or its processors.
    pub workers: usize,
    /// In which order.
    pub discipline: Discipline,
    /// Waiting places; as many as it takes if absent.
    pub queue: Option<usize>,
    /// The speed of each worker.
    pub speed: f64,
    /// The weight that the registry tells.
    pub weight: u32,
    /// The share of calls that fail at once.
    pub fail_share: f64,
    /// And with what.
    pub fail_code: Code,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            count: 1,
            workers: 4,
            discipline: Discipline::Fifo,
            queue: None,
            speed: 1.0,
            weight: 100,
            fail_share: 0.0,
            fail_code: Code::Unavailable,
        }
    }
}

/// How a server shares its workers out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Discipline {
    /// First in, first out: each worker has one call at a time, the others wait.
    Fifo,
    /// Processor sharing: it works on all at once, each at the same speed.
    Ps,
}

/// Something that happens to some servers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Event {
    /// When it begins.
    pub at_s: f64,
    /// How long it lasts; to the end if absent.
    pub for_s: Option<f64>,
    /// To which, counted from 0 in the order of the file.
    pub servers: Vec<usize>,
    /// What.
    pub kind: EventKind,
    /// Of `speed`: what their speed is multiplied by.
    pub factor: Option<f64>,
    /// Of `fail`: the share of calls that fail at once.
    pub share: Option<f64>,
    /// Of `fail`: with what.
    pub code: Option<Code>,
    /// Of `delay`: by how much each answer is late.
    pub ms: Option<f64>,
    /// Of `join`: their speed at first.
    pub speed_from: Option<f64>,
    /// Of `join`: how long it takes to grow to their own.
    pub ramp_s: Option<f64>,
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// It does nothing, and answers nothing.
    Stall,
    /// It is faster or slower.
    Speed,
    /// It fails calls at once.
    Fail,
    /// Its process ends, and a new one begins.
    Crash,
    /// It leaves the registry, and comes back.
    Leave,
    /// It is absent until then.
    Join,
    /// Its answers are late.
    Delay,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

/// Something that takes part of each server's capacity in bursts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Antagonist {
    /// The mean length of a burst.
    pub burst_s: f64,
    /// The mean time between two.
    pub gap_s: f64,
    /// What the server's speed is multiplied by meanwhile.
    pub speed: f64,
}

impl Antagonist {
    /// What is left of a server's capacity in the mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        (self.gap_s + self.burst_s * self.speed) / (self.gap_s + self.burst_s)
    }
}

/// A status that is not OK, as gRPC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are gRPC's")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Scenario {
    /// The servers, one by one.
    pub fn each_server(&self) -> impl Iterator<Item = &Servers> {
        self.servers.iter().flat_map(|group| std::iter::repeat_n(group, group.count))
    }

    /// What the fleet can do in the mean, in seconds of work a second: antagonists counted, events not.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let all: f64 = self.servers.iter().map(|group| (group.count * group.workers) as f64 * group.speed).sum();
        all * self.antagonist.as_ref().map_or(1.0, Antagonist::mean)
    }

    /// Calls a second of all clients together.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match self.rate_per_client {
            Some(rate) => rate * self.clients as f64,
            None => self.utilisation.unwrap_or(0.7) * self.capacity() / (self.service.mean_ms / 1e3),
        }
    }
}
