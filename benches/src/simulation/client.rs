//! A client: a balancer of the crate, its load cells, and its connections, as a channel keeps them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use callsign::{
    Address, Endpoint, ServiceInstance,
    balance::{Balancer, ConnectMode, Fleet, Node, Pick, PickInfo, Picker, Policy, Probed, Standing},
    load::{BriefReport, CallGuard, LoadCell, Outcome},
};
use http::HeaderMap;

use super::{
    probing::Asking,
    queue::{NEVER, Nanos},
    rng::Rng,
    scenario::Code,
};

/// What a client's calls share.
pub struct Client {
    balancer: Box<dyn Balancer>,
    picker: Option<Box<dyn Picker>>,
    links: Vec<Link>,
    /// Those that the picker knows, by position.
    ready: Vec<u32>,
    /// Where the last call went, of this picker.
    recent: Option<usize>,
    /// In which order one is chosen, of a policy that connects to one.
    order: Option<Vec<u32>>,
    chosen: Option<u32>,
    /// When its balancer is to look at its servers again.
    pub sweep_at: Nanos,
    /// Whether it ever knew a server: before, that there is none may just be early.
    populated: bool,
    /// Calls that wait for a picker, with their numbers.
    pub waiting: VecDeque<(u32, u64)>,
    budget: Budget,
    random: Rng,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.balancer.name())
    }
}

#[derive(Debug, Default)]
struct Link {
    state: Linked,
    node: Option<Node>,
    /// Dials that failed, one after the other.
    failed: i32,
}

/// How far a client is connected to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Linked {
    /// It does not know the server.
    #[default]
    Unknown,
    /// It dials.
    Dialling,
    /// It sends calls.
    Ready,
    /// Its last dial failed; it dials again later.
    Failing,
}

/// What a look for a server finds.
#[derive(Debug)]
pub enum Found {
    /// One, with the call counted in.
    Server(u32, CallGuard),
    /// Servers to ask before.
    Ask(Asking),
    /// None yet.
    Wait,
    /// None, and no hope.
    Fail,
}

/// Tells calls whether they may be tried again: a fifth of all calls may, and 10 a second.
#[derive(Debug, Default)]
struct Budget {
    left: f64,
    at: Nanos,
}

impl Budget {
    const SHARE: f64 = 0.2;
    const A_SECOND: f64 = 10.0;
    const MOST: f64 = 100.0;

    fn deposit(&mut self, more: f64) {
        self.left = (self.left + more).min(Self::MOST);
    }

    fn withdraw(&mut self, now: Nanos) -> bool {
        self.deposit((now - self.at) as f64 / 1e9 * Self::A_SECOND);
        self.at = now;
        let enough = self.left >= 1.0;
        self.left -= if enough { 1.0 } else { 0.0 };
        enough
    }
}

/// The endpoints of the servers, by their weights.
///
/// # Errors
///
/// If the crate finds one wrong.
pub fn endpoints(weights: impl Iterator<Item = u32>) -> Result<Vec<Endpoint>, String> {
    let endpoint = |(at, weight): (usize, u32)| {
        let address: Address = format!("grpc://10.{}.{}.{}:9000", at >> 16, (at >> 8) & 255, at & 255).parse()?;
        let builder = ServiceInstance::builder("simulated", format!("s{at}"))?.address(address.clone());
        Ok(Endpoint::new(address.into(), builder.weight(weight).build()?))
    };
    weights.enumerate().map(endpoint).collect::<callsign::Result<_>>().map_err(|error| error.to_string())
}

impl Client {
    /// A client that knows no server yet.
    #[must_use]
    pub fn new(policy: &Policy, servers: usize, mut random: Rng) -> Self {
        let balancer = policy.balancer(random.next_u64());
        let order = match balancer.connect_mode() {
            ConnectMode::First { shuffle, .. } => {
                let mut order: Vec<_> = (0..servers as u32).collect();
                if shuffle {
                    (1..servers).rev().for_each(|at| order.swap(at, random.below(at + 1)));
                }
                Some(order)
            }
            _ => None,
        };
        Self {
            balancer,
            picker: None,
            links: (0..servers).map(|_| Link::default()).collect(),
            ready: Vec::new(),
            recent: None,
            order,
            chosen: None,
            sweep_at: NEVER,
            populated: false,
            waiting: VecDeque::new(),
            budget: Budget { left: Budget::A_SECOND, at: 0 },
            random,
        }
    }

    /// How far it is connected to a server.
    #[must_use]
    pub fn linked(&self, server: u32) -> Linked {
        self.links[server as usize].state
    }

    /// It dials a server, which it may not have known before: its load begins at nothing then.
    pub fn dial(&mut self, server: u32, endpoint: &Endpoint) {
        let link = &mut self.links[server as usize];
        link.state = Linked::Dialling;
        self.populated = true;
        link.node.get_or_insert_with(|| Node::new(endpoint.clone(), Arc::default()));
    }

    /// A dial succeeded.
    pub fn connected(&mut self, server: u32) {
        let link = &mut self.links[server as usize];
        (link.state, link.failed) = (Linked::Ready, 0);
        link.node.iter().for_each(|node| node.load().forget_reports());
    }

    /// A dial failed: how long to wait before the next (gRPC's backoff, as the channel has it).
    pub fn refused(&mut self, server: u32) -> Nanos {
        let link = &mut self.links[server as usize];
        let wait = 1.6_f64.powi(link.failed).min(120.0) * (0.8 + 0.4 * self.random.unit());
        (link.state, link.failed) = (Linked::Failing, link.failed + 1);
        (wait * 1e9) as Nanos
    }

    /// A server is not in the registry any more.
    pub fn forget(&mut self, server: u32) {
        self.links[server as usize] = Link::default();
    }

    /// Its balancer looks at the servers it knows: whether it wants another picker, and when to look again.
    pub fn sweep(&mut self, base: Instant, now: Nanos) -> (bool, Nanos) {
        let (links, one) = (&self.links, self.order.is_some());
        let each = |visit: &mut dyn FnMut(&Node, Standing)| {
            for (at, link) in links.iter().enumerate() {
                let standing = match link.state {
                    Linked::Ready if one && self.chosen != Some(at as u32) => Standing::Idle,
                    Linked::Ready => Standing::Ready,
                    Linked::Dialling if link.failed == 0 => Standing::Connecting,
                    _ => Standing::Failed,
                };
                link.node.iter().for_each(|node| visit(node, standing));
            }
        };
        let sweep = self.balancer.sweep(&Fleet::new(clock(base, now), &each));
        let next = sweep.next.map_or(NEVER, |next| (next - base).as_nanos() as Nanos);
        (sweep.changed, next.max(now + 1))
    }

    /// Makes a picker of those that are ready now.
    pub fn rebuild(&mut self) {
        let is_ready = |at: &u32| self.links[*at as usize].state == Linked::Ready;
        self.ready = match &self.order {
            None => (0..self.links.len() as u32).filter(is_ready).collect(),
            Some(order) => {
                self.chosen = self.chosen.filter(is_ready).or_else(|| order.iter().copied().find(is_ready));
                self.chosen.into_iter().collect()
            }
        };
        let nodes: Vec<_> = self.ready.iter().filter_map(|at| self.links[*at as usize].node.clone()).collect();
        self.recent = None;
        self.picker = (!nodes.is_empty()).then(|| self.balancer.rebuild(&nodes));
    }

    /// Looks for a server, as the channel does, but for those that failed this call already.
    pub fn pick(
        &mut self,
        failed: &[u32],
        asking: Option<&Asking>,
        headers: &HeaderMap,
        base: Instant,
        now: Nanos,
    ) -> Found {
        let Some(picker) = &self.picker else {
            let known = self.links.iter().filter(|link| link.state != Linked::Unknown);
            let hopeless = self.populated && known.into_iter().all(|link| link.failed > 0);
            return if hopeless { Found::Fail } else { Found::Wait };
        };
        let places = |servers: &[u32]| -> Vec<_> {
            servers.iter().filter_map(|at| self.ready.iter().position(|ready| ready == at)).collect()
        };
        let mut tried = places(failed);
        if tried.len() >= self.ready.len() {
            tried.clear();
        }
        let random = asking.map_or_else(|| self.random.next_u64(), |asking| asking.random);
        let mut info = PickInfo::new("/simulated/Call", headers, clock(base, now), random);
        let (asked, answered);
        if let Some(asking) = asking {
            (asked, answered) = (places(&asking.asked), places(&asking.answered));
            let [first, waited] = [asking.first.unwrap_or(now), now].map(|at| Duration::from_nanos(at - asking.begun));
            info.probed = Some(Probed::new(&asked, &answered, first).waited(waited));
        }
        (info.tried, info.recent) = (&tried, self.recent);
        match picker.pick(&info) {
            Pick::At(at) if at < self.ready.len() => {
                self.recent = Some(at);
                let node = self.links[self.ready[at] as usize].node.as_ref();
                node.map_or(Found::Fail, |node| Found::Server(self.ready[at], node.load().start(clock(base, now))))
            }
            Pick::Probe(probes) if asking.is_none() => {
                let asked = probes.at().iter().filter_map(|at| self.ready.get(*at).copied()).collect();
                Found::Ask(Asking::new(asked, &probes, random, now))
            }
            Pick::Fail(_) | Pick::Drop(_) => Found::Fail,
            _ => Found::Wait,
        }
    }

    /// What it knows of the load of a server, if it knows the server.
    #[must_use]
    pub fn load(&self, server: u32) -> Option<&LoadCell> {
        self.links[server as usize].node.as_ref().map(|node| &**node.load())
    }

    /// Calls that its load cells count.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let nodes = self.links.iter().filter_map(|link| link.node.as_ref());
        nodes.map(|node| u64::from(node.load().in_flight())).sum()
    }

    /// A call begins: it pays into the budget of retries.
    pub fn began(&mut self) {
        self.budget.deposit(Budget::SHARE);
    }

    /// Whether the budget has one more attempt.
    pub fn may_retry(&mut self, now: Nanos) -> bool {
        self.budget.withdraw(now)
    }
}

/// The client hears how an attempt ended, and what its server says of its load.
pub fn heard(guard: CallGuard, answer: Option<Code>, report: Option<BriefReport>, now: Instant) {
    report.into_iter().for_each(|report| guard.report(&report, now));
    guard.finish(outcome(answer), now);
}

/// Whom to blame: as the channel judges a response's status.
#[must_use]
pub fn outcome(answer: Option<Code>) -> Outcome {
    match answer {
        Some(Code::Unavailable) => Outcome::Failure,
        Some(Code::Internal | Code::Unknown | Code::DataLoss) => Outcome::Fault,
        Some(Code::ResourceExhausted) => Outcome::Overload,
        Some(Code::DeadlineExceeded) => Outcome::Late,
        _ => Outcome::Success,
    }
}

/// When all runs begin, by the crate's clock, to the microsecond: the same seeds make the same choices only if times are
/// rounded alike.
#[must_use]
pub fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(|| {
        let now = Instant::now();
        // The crate's clock counts from what it is asked first.
        LoadCell::default().peak_latency(now);
        now
    })
}

/// The crate's clock at so many nanoseconds.
#[must_use]
pub fn clock(base: Instant, now: Nanos) -> Instant {
    base + Duration::from_nanos(now)
}
