//! Balancing: which endpoint takes a call.
//!
//! A [`Balancer`] lives as long as its channel and is told each time the set of ready endpoints
//! changes; it answers with a [`Picker`], an immutable plan that any number of calls ask at once.
//! Neither does I/O, reads a clock or draws random numbers of its own: what they need of these
//! comes in [`PickInfo`] and in the seed they are built with.

mod adaptive;
mod due;
mod fleet;
mod hash;
mod least_request;
mod maglev;
mod number;
mod peak_ewma;
mod pick_first;
mod policy;
mod prequal;
mod probe;
mod random;
mod ring_hash;
mod round_robin;
mod service_config;
mod weighted_round_robin;
mod weights;
mod wrap;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Extensions, HeaderMap};

pub use self::{
    adaptive::Adaptive,
    fleet::{Fleet, Standing, Sweep},
    hash::HashKey,
    least_request::LeastRequest,
    maglev::Maglev,
    peak_ewma::PeakEwma,
    pick_first::PickFirst,
    policy::Policy,
    prequal::Prequal,
    probe::{Probed, Probes},
    random::Random,
    ring_hash::RingHash,
    round_robin::RoundRobin,
    weighted_round_robin::WeightedRoundRobin,
    wrap::{Failover, OutlierEjection, Prefer, SlowStart},
};
pub(crate) use crate::util::mix::mix;
use crate::{endpoint::Endpoint, error::Error, load::LoadCell};

/// Makes a picker for each set of ready endpoints, and may carry over what it learned.
///
/// ```
/// use callsign::balance::{Balancer, Node, Pick, PickInfo, Picker};
///
/// /// Always the heaviest.
/// #[derive(Debug)]
/// struct Heaviest;
///
/// impl Balancer for Heaviest {
///     fn name(&self) -> &str {
///         "heaviest"
///     }
///
///     fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
///         let heaviest = (0..ready.len()).max_by_key(|&at| ready[at].weight());
///         Box::new(move |_: &PickInfo<'_>| heaviest.map_or(Pick::Queue, Pick::At))
///     }
/// }
/// ```
pub trait Balancer: fmt::Debug + Send + 'static {
    /// The name of the policy, for logs.
    fn name(&self) -> &str;

    /// Which endpoints the channel connects to. Default: all.
    fn connect_mode(&self) -> ConnectMode {
        ConnectMode::All
    }

    /// How often servers are to say how busy they are, beside what they say in responses
    /// ([out of band](crate::Channel::load_reports)); asked for each connection. Default: they are not asked.
    fn load_reports(&self) -> Option<Duration> {
        None
    }

    /// Makes the picker for these endpoints, at least one; called again whenever an endpoint comes,
    /// goes, or changes its weight.
    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker>;

    /// Looks at the whole fleet; for policies that go by time or by who is not ready. Asked for before
    /// each picker, when anything happens to an endpoint, and when what it said last is due; not while
    /// the channel rests. Default: nothing.
    fn sweep(&mut self, _fleet: &Fleet<'_>) -> Sweep {
        Sweep::default()
    }
}

/// A plan to choose among the endpoints that its balancer saw.
///
/// On the path of each call and on all threads at once: no lock, no wait. A closure is one too.
pub trait Picker: Send + Sync + 'static {
    /// Chooses an endpoint.
    fn pick(&self, info: &PickInfo<'_>) -> Pick;

    /// The hash of what this call is sent by, if calls that are alike are to go to one endpoint: who wraps
    /// the policy then decides alike for them. Default: none.
    fn affinity(&self, _info: &PickInfo<'_>) -> Option<u64> {
        None
    }
}

impl<F: Fn(&PickInfo<'_>) -> Pick + Send + Sync + 'static> Picker for F {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        self(info)
    }
}

impl fmt::Debug for dyn Picker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Picker")
    }
}

/// Which endpoints a channel connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectMode {
    /// All of them, at once.
    All,
    /// One: the first that can be reached, in the order of the resolver.
    #[non_exhaustive]
    First {
        /// Whether to try in a random order, which is this channel's own.
        shuffle: bool,
    },
}

/// A ready endpoint, as a balancer sees it. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Node(Arc<Known>);

#[derive(Debug)]
struct Known {
    endpoint: Endpoint,
    load: Arc<LoadCell>,
    weight: u32,
}

impl Node {
    /// A node of an endpoint and its load.
    pub fn new(endpoint: Endpoint, load: Arc<LoadCell>) -> Self {
        let weight = endpoint.instance().weight().get();
        Self(Arc::new(Known { endpoint, load, weight }))
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Its load; the same cell for as long as the channel knows the endpoint.
    pub fn load(&self) -> &Arc<LoadCell> {
        &self.0.load
    }

    /// Its weight.
    pub fn weight(&self) -> u32 {
        self.0.weight
    }

    /// What it is called where endpoints are hashed: its first address, without the scheme.
    fn hash_name(&self) -> String {
        let addresses = self.endpoint().key().addresses();
        addresses.first().map_or_else(String::new, |address| address.authority().to_string())
    }
}

/// Of no more endpoints is one chosen by drawing some, as gRPC bounds it.
const MAX_CHOICES: usize = 10;

/// What is known of a call when its endpoint is chosen.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PickInfo<'a> {
    /// The method: `/package.Service/Method`.
    pub method: &'a str,
    /// The headers, as the application set them.
    pub headers: &'a HeaderMap,
    /// The request's extensions, where an application puts hints such as a [`HashKey`].
    pub extensions: Option<&'a Extensions>,
    /// The time, of the channel's clock.
    pub now: Instant,
    /// A random number of this call's own, evenly from all that there are.
    pub random: u64,
    /// The position that this thread's call before was sent to, in this very picker.
    pub recent: Option<usize>,
    /// Positions that this call was refused at already, in this very picker.
    pub tried: &'a [usize],
    /// What came of the [probes](Pick::Probe) that the picker wanted for this call.
    pub probed: Option<Probed<'a>>,
}

impl<'a> PickInfo<'a> {
    /// A call of a method.
    pub fn new(method: &'a str, headers: &'a HeaderMap, now: Instant, random: u64) -> Self {
        Self { method, headers, extensions: None, now, random, recent: None, tried: &[], probed: None }
    }

    /// Of so many places in a circle, each some endpoint's, the first that was not tried, from one on.
    fn around(&self, places: usize, first: usize, at: impl Fn(usize) -> usize) -> Pick {
        let mut all = (first..places).chain(0..first.min(places)).map(at);
        all.find(|at| !self.tried.contains(at)).map_or(Pick::Queue, Pick::At)
    }

    /// Draws one of `count` positions evenly by `random`, none that was tried; none if all were.
    pub fn draw(&self, random: u64, count: usize) -> Option<usize> {
        self.draw_another(random, count, &[])
    }

    /// The same, and none of these.
    pub(crate) fn draw_another(&self, random: u64, count: usize, drawn: &[usize]) -> Option<usize> {
        if count == 0 {
            return None;
        }
        // Lemire's reduction: the high half of the product is even in 0..count.
        let at = ((u128::from(random) * count as u128) >> 64) as usize;
        (at..count).chain(0..at).find(|at| !self.tried.contains(at) && !drawn.contains(at))
    }
}

#[cfg(test)]
mod tests;

/// A choice.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Pick {
    /// The endpoint at this position of what the balancer saw.
    At(usize),
    /// The call fails for good: it is not tried elsewhere, and does not wait even if it said it would.
    Drop(Error),
    /// The call fails, unless it waits for readiness.
    Fail(Error),
    /// The call waits for the next picker.
    Queue,
    /// These are asked how busy they are; then the picker is asked again, with the same random number and
    /// [`PickInfo::probed`], and chooses. Only servers with this crate's [layer](crate::server::RegistrationLayer)
    /// answer: those that [say so](LoadCell::answers_probes). One that is asked already is not asked twice at once.
    Probe(Probes),
}
