//! A balancer by its name.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    Adaptive, Balancer, LeastRequest, Maglev, PeakEwma, PickFirst, Prequal, Probes, Random, RingHash, RoundRobin,
    WeightedRoundRobin, wrap::take_wrappers,
};
use crate::{
    error::{Error, Result},
    target::parse_duration,
};

/// How to make a balancer: a name with options, or one's own.
///
/// | text | balancer |
/// | --- | --- |
/// | `adaptive`, `adaptive,probes=false` | [`Adaptive`] |
/// | `least_request`, `least_request,choices=3` | [`LeastRequest`] |
/// | `peak_ewma`, `peak_ewma,choices=3` | [`PeakEwma`] |
/// | `prequal`, `prequal,probes=3,wait=3ms,hot_percentile=84` | [`Prequal`] |
/// | `round_robin` | [`RoundRobin`] |
/// | `weighted_round_robin`, `weighted_round_robin,blackout_period=10s,weight_expiration_period=3m,weight_update_period=1s,error_utilization_penalty=1,enable_oob_load_report=true,oob_reporting_period=10s` | [`WeightedRoundRobin`] |
/// | `random` | [`Random`] |
/// | `ring_hash`, `ring_hash,hash_header=x-user,min_ring_size=1024,max_ring_size=4096` | [`RingHash`] |
/// | `maglev`, `maglev,hash_header=x-user,table_size=65537` | [`Maglev`] |
/// | `pick_first`, `pick_first,shuffle=true` | [`PickFirst`] |
///
/// Behind each may stand what wraps it, in any order:
///
/// | options | wrapper |
/// | --- | --- |
/// | `outlier_ejection=true`, and its settings | [`OutlierEjection`](super::OutlierEjection) |
/// | `slow_start=10s`, and `slow_start_aggression`, `slow_start_min_weight` | [`SlowStart`](super::SlowStart) |
/// | `failover=true`, and `failover_threshold=50`, `failover_timeout=2s` | [`Failover`](super::Failover) |
/// | `prefer_zone=eu-1a`, `prefer_region=eu` | [`Prefer`](super::Prefer) |
/// | `panic_threshold=50` | of ejection, zone and region |
///
/// ```
/// use callsign::balance::{Policy, RoundRobin};
///
/// let by_name: Policy = "least_request,choices=3".parse()?;
/// let own = Policy::new("mine", |seed| RoundRobin::new(seed));
/// # Ok::<(), callsign::Error>(())
/// ```
#[derive(Clone)]
pub struct Policy {
    name: Arc<str>,
    make: Arc<dyn Fn(u64) -> Box<dyn Balancer> + Send + Sync>,
}

impl Policy {
    /// A policy of one's own. The function makes a balancer for each channel, from a seed that is
    /// the channel's.
    pub fn new<B: Balancer>(name: impl Into<Arc<str>>, make: impl Fn(u64) -> B + Send + Sync + 'static) -> Self {
        Self { name: name.into(), make: Arc::new(move |seed| Box::new(make(seed))) }
    }

    /// The name, with its options.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same within a wrapper, whose options stand behind its own.
    pub(super) fn wrap(
        self,
        options: &str,
        wrap: impl Fn(&Self, u64) -> Box<dyn Balancer> + Send + Sync + 'static,
    ) -> Self {
        let name = format!("{}{options}", self.name).into();
        Self { name, make: Arc::new(move |seed| wrap(&self, seed)) }
    }

    /// Makes a balancer.
    pub fn balancer(&self, seed: u64) -> Box<dyn Balancer> {
        (self.make)(seed)
    }
}

/// `adaptive`.
impl Default for Policy {
    fn default() -> Self {
        Self::new("adaptive", |_| Adaptive::new())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({})", self.name)
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, options) = text.split_once(',').unwrap_or((text, ""));
        let mut options = Options::parse(text, options)?;
        let policy = match name {
            "adaptive" => {
                let probes = options.take_switch("probes", true)?;
                Self::new(text, move |_| Adaptive::new().probes(probes))
            }
            "least_request" => {
                let choices = options.take_choices()?;
                Self::new(text, move |_| LeastRequest::new(choices))
            }
            "peak_ewma" => {
                let choices = options.take_choices()?;
                Self::new(text, move |_| PeakEwma::new(choices))
            }
            "prequal" => {
                let count = |text: &str| text.parse().ok().filter(|count| (2..=Probes::MOST).contains(count));
                let mut policy = Prequal::new(options.take("probes", "a number from 2 to 8", count)?.unwrap_or(3));
                policy = options.take_duration("wait")?.into_iter().fold(policy, Prequal::wait);
                let percent = |text: &str| text.parse().ok().filter(|percent| *percent <= 100);
                let hot = options.take("hot_percentile", "a number from 0 to 100", percent)?;
                policy = hot.into_iter().fold(policy, Prequal::hot_percentile);
                // Each channel remembers for itself.
                Self::new(text, move |_| policy.anew())
            }
            "round_robin" => Self::new(text, RoundRobin::new),
            "weighted_round_robin" => {
                let set = learning(&mut options)?;
                Self::new(text, move |seed| set(WeightedRoundRobin::new(seed)))
            }
            "random" => Self::new(text, |_| Random::new()),
            "ring_hash" => {
                let mut ring = RingHash::new();
                let size = |text: &str| text.parse().ok().filter(|size| (1..=8 << 20).contains(size));
                let smallest = options.take("min_ring_size", "a number from 1 to 8388608", size)?.unwrap_or(1024);
                let largest = options.take("max_ring_size", "a number from 1 to 8388608", size)?;
                ring = ring.ring_size(smallest, largest.unwrap_or_else(|| smallest.max(4096)));
                if let Some(header) = options.take_header()? {
                    ring = ring.by_header(header);
                }
                Self::new(text, move |_| ring.clone())
            }
            "maglev" => {
                let mut maglev = Maglev::new();
                if let Some(size) = options.take("table_size", "a number", |text| text.parse().ok())? {
                    maglev = maglev.table_size(size)?;
                }
                if let Some(header) = options.take_header()? {
                    maglev = maglev.by_header(header);
                }
                Self::new(text, move |_| maglev.clone())
            }
            "pick_first" => {
                let shuffle = options.take_switch("shuffle", false)?;
                Self::new(text, move |_| PickFirst::new(shuffle))
            }
            _ => {
                return Err(Error::invalid(format!(
                    "there is no policy {name:?}; there are adaptive, least_request, peak_ewma, prequal, round_robin, weighted_round_robin, random, \
                     ring_hash, maglev and pick_first"
                )));
            }
        };
        let wrapped = take_wrappers(policy, &mut options)?;
        options.finish()?;
        Ok(Self { name: text.into(), ..wrapped })
    }
}

/// Reads how a weighted round robin learns its weights.
fn learning(
    options: &mut Options<'_>,
) -> Result<impl Fn(WeightedRoundRobin) -> WeightedRoundRobin + Send + Sync + use<>> {
    let blackout = options.take_duration("blackout_period")?;
    let expiration = options.take_duration("weight_expiration_period")?;
    let update = options.take_duration("weight_update_period")?;
    let asked = options.take_switch("enable_oob_load_report", false)?;
    let period = options.take_duration("oob_reporting_period")?.unwrap_or(Duration::from_secs(10));
    let oob = asked.then_some(period);
    let sound = |penalty: &f32| penalty.is_finite() && *penalty >= 0.0;
    let penalty = |text: &str| text.parse().ok().filter(sound);
    let penalty = options.take("error_utilization_penalty", "a number from 0 on", penalty)?;
    Ok(move |mut policy: WeightedRoundRobin| {
        policy = blackout.into_iter().fold(policy, WeightedRoundRobin::blackout_period);
        policy = expiration.into_iter().fold(policy, WeightedRoundRobin::weight_expiration_period);
        policy = update.into_iter().fold(policy, WeightedRoundRobin::weight_update_period);
        policy = oob.into_iter().fold(policy, WeightedRoundRobin::oob_load_reports);
        penalty.into_iter().fold(policy, WeightedRoundRobin::error_utilization_penalty)
    })
}

/// What stands behind a policy's name.
pub(super) struct Options<'a> {
    policy: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    /// Whether a value can stand in a policy's text.
    pub(super) fn can_hold(value: &str) -> bool {
        !value.contains([',', '='])
    }

    fn parse(policy: &'a str, options: &'a str) -> Result<Self> {
        let pairs = options.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            pair.split_once('=').ok_or_else(|| {
                Error::invalid(format!("policy {policy:?}: options are of the form name,key=value,key=value"))
            })
        });
        Ok(Self { policy, pairs: pairs.collect::<Result<_>>()? })
    }

    pub(super) fn take<T>(&mut self, key: &str, form: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(at) = self.pairs.iter().position(|pair| pair.0 == key) else { return Ok(None) };
        let (_, value) = self.pairs.remove(at);
        parse(value)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("policy {:?}: {key} is {form}, not {value:?}", self.policy)))
    }

    fn take_choices(&mut self) -> Result<usize> {
        let choices = self.take("choices", "a number from 2 to 10", |text| {
            text.parse().ok().filter(|choices| (2..=10).contains(choices))
        })?;
        Ok(choices.unwrap_or(2))
    }

    /// `default` if it is not there.
    pub(super) fn take_switch(&mut self, key: &str, default: bool) -> Result<bool> {
        Ok(self.take(key, "true or false", |text| text.parse().ok())?.unwrap_or(default))
    }

    fn take_duration(&mut self, key: &str) -> Result<Option<Duration>> {
        self.take(key, "a time such as 10s or 500ms", parse_duration)
    }

    fn take_header(&mut self) -> Result<Option<HeaderName>> {
        self.take("hash_header", "the name of a header", |text| text.parse().ok())
    }

    /// What is wrong with these options.
    pub(super) fn wrong(&self, why: impl fmt::Display) -> Error {
        Error::invalid(format!("policy {:?}: {why}", self.policy))
    }

    fn finish(self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(Error::invalid(format!("policy {:?} has no option {key:?}", self.policy))),
        }
    }
}
