//! The one task of a channel: takes in what is discovered and what connections tell, and publishes
//! what calls pick from.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    hash::{DefaultHasher, Hash, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::yield_now,
    time::{Instant, Sleep, sleep_until},
};
use tower::discover::Change;

use super::{
    call::Calls,
    published::Published,
    source::Source,
    subchannel::Subchannel,
    transport::{ConnectionEvent, Dialer},
};
use crate::{
    balance::{Balancer, ConnectMode, Node},
    endpoint::{Endpoint, EndpointKey},
    error::Error,
    observe::{Event, Observer},
    util::{backoff::BackoffConfig, rng::Rng, task},
};

/// All that a channel's task owns.
pub(super) struct Pool {
    calls: Arc<Calls>,
    source: Box<dyn Source>,
    balancer: Box<dyn Balancer>,
    dialer: Dialer,
    dials: Arc<Semaphore>,
    backoff: BackoffConfig,
    observer: Arc<dyn Observer>,
    rng: Rng,
    seed: u64,

    subchannels: BTreeMap<EndpointKey, Subchannel>,
    retries: BTreeSet<(Instant, EndpointKey)>,
    /// Whether there ever was an endpoint: before, an empty set may just be an early one.
    populated: bool,
    /// Whether what calls pick from differs from what is published.
    dirty: bool,
    /// Why there was nothing when it was last published.
    missing: String,
    timer: Pin<Box<Sleep>>,
    // Bounded by nature: each subchannel's dial and connection tell three things at most.
    tell: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
}

/// What a dial or a connection tells, and which.
struct Told {
    key: EndpointKey,
    generation: u64,
    event: ConnectionEvent,
}

/// How a pool is made.
pub(super) struct PoolConfig {
    pub(super) calls: Arc<Calls>,
    pub(super) source: Box<dyn Source>,
    pub(super) balancer: Box<dyn Balancer>,
    pub(super) dialer: Dialer,
    pub(super) max_dials: usize,
    pub(super) backoff: BackoffConfig,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) seed: u64,
}

/// So much is taken in before calls see any of it, and other tasks run again.
const BATCH: usize = 4096;

/// So many endpoints are named in an error.
const NAMED: usize = 5;

impl Pool {
    pub(super) fn new(config: PoolConfig) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            calls: config.calls,
            source: config.source,
            balancer: config.balancer,
            dialer: config.dialer,
            dials: Arc::new(Semaphore::new(config.max_dials)),
            backoff: config.backoff,
            observer: config.observer,
            rng: Rng::seeded(config.seed),
            seed: config.seed,
            subchannels: BTreeMap::new(),
            retries: BTreeSet::new(),
            populated: false,
            dirty: false,
            missing: String::new(),
            timer: Box::pin(sleep_until(Instant::now())),
            tell,
            told,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let taken = poll_fn(|cx| self.poll_take(cx)).await;
            self.connect();
            self.publish();
            if taken == BATCH {
                yield_now().await;
            }
        }
    }

    /// Takes in all that is at hand; pending if that is nothing.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut taken = 0;
        while taken < BATCH {
            if let Poll::Ready(change) = self.source.poll_change(cx) {
                self.change(change);
            } else if let Poll::Ready(Some(told)) = self.told.poll_recv(cx) {
                self.told(told);
            } else if self.poll_retry(cx).is_pending() {
                break;
            }
            taken += 1;
        }
        let news =
            taken > 0 || (self.subchannels.is_empty() && format!("{:#}", self.source.missing().1) != self.missing);
        if news { Poll::Ready(taken) } else { Poll::Pending }
    }

    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        match self.retries.first() {
            None => Poll::Pending,
            Some((at, _)) if *at > now => {
                self.timer.as_mut().reset(*at);
                self.timer.as_mut().poll(cx)
            }
            Some(_) => {
                let due = self.retries.pop_first();
                if let Some(subchannel) = due.and_then(|(_, key)| self.subchannels.get_mut(&key)) {
                    subchannel.retry(now);
                }
                Poll::Ready(())
            }
        }
    }

    fn change(&mut self, change: Change<EndpointKey, Endpoint>) {
        match change {
            Change::Insert(key, endpoint) => {
                self.populated = true;
                match self.subchannels.get_mut(&key) {
                    Some(subchannel) => {
                        self.dirty |= subchannel.connection().is_some() && *subchannel.endpoint() != endpoint;
                        subchannel.describe(endpoint);
                    }
                    None => drop(self.subchannels.insert(key, Subchannel::new(endpoint, self.backoff))),
                }
            }
            // What is open on its connection goes on to its end.
            Change::Remove(key) => {
                let gone = self.subchannels.remove(&key);
                self.dirty |= gone.is_some_and(|gone| gone.connection().is_some());
            }
        }
    }

    fn told(&mut self, Told { key, generation, event }: Told) {
        let now = Instant::now();
        let Some(subchannel) = self.subchannels.get_mut(&key).filter(|one| one.is_current(generation)) else { return };
        let endpoint = &subchannel.endpoint().clone();
        let service = &self.calls.service;
        self.dirty |= subchannel.connection().is_some();
        let retry_at = match event {
            ConnectionEvent::Ready(connection, took) => {
                self.dirty = true;
                subchannel.connected(connection, now);
                self.observer.on_event(&Event::Connected { service, endpoint, took });
                None
            }
            ConnectionEvent::Failed(error) => {
                let retry_at = subchannel.connect_failed(error.clone(), now, &mut self.rng);
                let retry_in = retry_at - now;
                self.observer.on_event(&Event::ConnectFailed { service, endpoint, error: &error, retry_in });
                Some(retry_at)
            }
            ConnectionEvent::GoingAway => {
                self.observer.on_event(&Event::GoingAway { service, endpoint });
                subchannel.going_away(now, &mut self.rng)
            }
            ConnectionEvent::Closed(error) => {
                self.observer.on_event(&Event::Disconnected { service, endpoint, error: error.as_ref() });
                subchannel.disconnected(error, now, &mut self.rng)
            }
        };
        self.retries.extend(retry_at.map(|at| (at, key)));
    }

    /// Dials what the policy wants connected and is not.
    fn connect(&mut self) {
        let wanted: Vec<_> = match self.balancer.connect_mode() {
            ConnectMode::All => self.idle().cloned().collect(),
            ConnectMode::First { .. } if self.subchannels.values().any(Subchannel::is_chosen) => return,
            ConnectMode::First { shuffle: false } => self.idle().next().cloned().into_iter().collect(),
            ConnectMode::First { shuffle: true } => {
                self.idle().min_by_key(|key| place(self.seed, key)).cloned().into_iter().collect()
            }
        };
        for key in wanted {
            self.dial(key);
        }
    }

    fn idle(&self) -> impl Iterator<Item = &EndpointKey> {
        self.subchannels.iter().filter(|(_, subchannel)| subchannel.is_idle()).map(|(key, _)| key)
    }

    fn dial(&mut self, key: EndpointKey) {
        let Some(subchannel) = self.subchannels.get_mut(&key) else { return };
        self.observer.on_event(&Event::Connecting {
            service: &self.calls.service,
            endpoint: subchannel.endpoint(),
            attempt: subchannel.attempt(),
        });
        let (tell, dials, dialer) = (self.tell.clone(), self.dials.clone(), self.dialer.clone());
        subchannel.connect(|generation| {
            let told = key.clone();
            let tell = move |event| drop(tell.send(Told { key: told.clone(), generation, event }));
            task::spawn(dialer.dial_and_drive(dials, key, tell))
        });
    }

    /// Shows calls what is ready now, or why nothing is.
    fn publish(&mut self) {
        let ready = || self.subchannels.values().filter_map(|one| Some((one, one.connection()?)));
        let nodes: Box<[Node]> =
            ready().map(|(one, _)| Node::new(one.endpoint().clone(), one.load().clone())).collect();
        if nodes.is_empty() {
            let published = self.nothing_ready();
            self.calls.cell.publish(published);
        } else if self.dirty {
            let connections = ready().map(|(_, connection)| connection.clone()).collect();
            self.observer.on_event(&Event::PickSet {
                service: &self.calls.service,
                policy: self.balancer.name(),
                ready: nodes.len(),
                known: self.subchannels.len(),
            });
            let picker = self.balancer.rebuild(&nodes);
            self.calls.cell.publish(Published::Ready { picker, nodes, connections });
        }
        self.dirty = false;
    }

    fn nothing_ready(&mut self) -> Published {
        if self.subchannels.is_empty() {
            let (certain, why) = self.source.missing();
            self.missing = format!("{why:#}");
            return if certain && self.populated { Published::Failing(why) } else { Published::Waiting(why) };
        }
        let all = self.subchannels.len();
        let mut why = format!("none of {all} endpoints is connected");
        for subchannel in self.subchannels.values().take(NAMED) {
            let state = subchannel.failure().map_or_else(|| "connecting".to_owned(), |error| format!("{error:#}"));
            why += &format!("; {}: {state}", subchannel.endpoint().instance().id());
        }
        if all > NAMED {
            why += &format!("; and {} more", all - NAMED);
        }
        let why = Error::unavailable(why);
        // A failure stays until a try succeeds (gRFC A62): trying again is not being ready.
        let failed = self.subchannels.values().all(|subchannel| subchannel.failure().is_some());
        if failed { Published::Failing(why) } else { Published::Waiting(why) }
    }
}

/// Where an endpoint stands in the order of one's own that a seed makes.
fn place(seed: u64, key: &EndpointKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, key).hash(&mut hasher);
    hasher.finish()
}
