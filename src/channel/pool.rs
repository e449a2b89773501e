//! The one task of a channel: takes in what is discovered and what connections tell, and publishes
//! what calls pick from.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::yield_now,
    time::{Instant, Sleep, sleep_until},
};
use tower::discover::Change;

use super::{
    call::Calls,
    connections::More,
    direct::Direct,
    idle::Idleness,
    published::{Published, Ready, Recent},
    served::Served,
    source::Source,
    subchannel::{Lost, Subchannel},
    sweeps::Sweeps,
    transport::{ConnectionEvent, Dialer},
};
use crate::{
    balance::{Balancer, ConnectMode, Fleet, Node, Standing},
    endpoint::{Endpoint, EndpointKey},
    error::Error,
    observe::{Event, Observer},
    util::{backoff::BackoffConfig, rank::rank, rng::Rng, task},
};

/// All that a channel's task owns.
pub(super) struct Pool {
    calls: Arc<Calls>,
    source: Box<dyn Source>,
    balancer: Box<dyn Balancer>,
    dialer: Dialer,
    dials: Arc<Semaphore>,
    /// Numbers the dials: of an endpoint that is back, those from before go on to their end.
    generation: u64,
    connections_per_endpoint: usize,
    backoff: Arc<BackoffConfig>,
    observer: Arc<dyn Observer>,
    rng: Rng,
    seed: u64,

    // Boxed, as a tree's nodes are half empty.
    subchannels: BTreeMap<EndpointKey, Box<Subchannel>>,
    retries: BTreeSet<(Instant, EndpointKey)>,
    sweeps: Sweeps,
    idleness: Idleness,
    /// Whether it has let its connections go, until a call comes.
    resting: bool,
    woken: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether there ever was an endpoint: before, an empty set may just be an early one.
    populated: bool,
    /// Whether what calls pick from differs from what is published.
    dirty: bool,
    /// How many were ready, and known, when that was last told.
    counted: (usize, usize),
    /// Why there was nothing when it was last published.
    missing: String,
    timer: Pin<Box<Sleep>>,
    // Bounded by nature: each connection tells three things at most, and calls ask once for each.
    tell: mpsc::UnboundedSender<(EndpointKey, News)>,
    told: mpsc::UnboundedReceiver<(EndpointKey, News)>,
}

/// What is heard of an endpoint.
enum News {
    /// From a dial or a connection, by its number.
    Connection(u64, ConnectionEvent),
    /// From a call: every stream of every connection is taken.
    Full,
}

/// How a pool is made.
pub(super) struct PoolConfig {
    pub(super) calls: Arc<Calls>,
    pub(super) source: Box<dyn Source>,
    pub(super) balancer: Box<dyn Balancer>,
    pub(super) dialer: Dialer,
    pub(super) max_dials: usize,
    pub(super) connections_per_endpoint: usize,
    pub(super) idle_timeout: Duration,
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
            woken: woken(&config.calls),
            calls: config.calls,
            source: config.source,
            balancer: config.balancer,
            dialer: config.dialer,
            dials: Arc::new(Semaphore::new(config.max_dials)),
            generation: 0,
            connections_per_endpoint: config.connections_per_endpoint,
            backoff: config.backoff.into(),
            observer: config.observer,
            rng: Rng::seeded(config.seed),
            seed: config.seed,
            subchannels: BTreeMap::new(),
            retries: BTreeSet::new(),
            sweeps: Sweeps::default(),
            idleness: Idleness::new(config.idle_timeout),
            resting: false,
            populated: false,
            dirty: false,
            counted: (0, 0),
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
            self.sweep();
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
            } else if let Poll::Ready(Some((key, news))) = self.told.poll_recv(cx) {
                self.told(key, news);
            } else if [Self::poll_rest, Self::poll_retry, Self::poll_sweep]
                .iter()
                .all(|poll| poll(self, cx).is_pending())
            {
                break;
            }
            taken += 1;
        }
        let news =
            taken > 0 || (self.subchannels.is_empty() && format!("{:#}", self.source.missing().1) != self.missing);
        if news { Poll::Ready(taken) } else { Poll::Pending }
    }

    /// Ready when it has just gone to rest, or left it.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.resting {
            ready!(self.woken.as_mut().poll(cx));
            self.woken = woken(&self.calls);
            self.resting = false;
            return Poll::Ready(());
        }
        let in_flight = || is_calling(&self.subchannels);
        ready!(self.idleness.poll(cx, &self.calls.used, in_flight));
        self.observer.on_event(&Event::Idle { service: &self.calls.service });
        self.subchannels.values_mut().for_each(|one| one.rest());
        self.dirty = true;
        self.retries.clear();
        self.resting = true;
        Poll::Ready(())
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

    fn poll_sweep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sweeps.poll(cx, &self.calls, || is_calling(&self.subchannels))
    }

    fn change(&mut self, change: Change<EndpointKey, Endpoint>) {
        match change {
            Change::Insert(key, endpoint) => {
                self.populated = true;
                match self.subchannels.get_mut(&key) {
                    Some(subchannel) => {
                        if *subchannel.endpoint() != endpoint {
                            self.dirty |= subchannel.connections().is_some();
                            subchannel.describe(endpoint);
                        }
                    }
                    None => {
                        let served = Served::new(self.calls.service.clone(), endpoint);
                        self.subchannels.insert(key, Box::new(Subchannel::new(served, self.backoff.clone())));
                    }
                }
            }
            // What is open on its connection goes on to its end.
            Change::Remove(key) => {
                let gone = self.subchannels.remove(&key);
                self.dirty |= gone.is_some_and(|gone| gone.connections().is_some());
            }
        }
    }

    fn told(&mut self, key: EndpointKey, news: News) {
        let now = Instant::now();
        let Some(subchannel) = self.subchannels.get_mut(&key) else { return };
        let News::Connection(generation, event) = news else {
            if subchannel.wants_another(self.connections_per_endpoint) {
                self.dial(key);
            }
            return;
        };
        let endpoint = &subchannel.endpoint().clone();
        let service = &self.calls.service;
        let lost = match event {
            ConnectionEvent::Ready(connection, took) => {
                let (tell, most) = (self.tell.clone(), self.connections_per_endpoint);
                let more = || More::new(move || drop(tell.send((key.clone(), News::Full))));
                let follow = self.balancer.load_reports().map(|every| (every, connection.clone()));
                if subchannel.connected(generation, connection, most, more, now) {
                    self.dirty = true;
                    if let Some((every, connection)) = follow {
                        let (calls, served) = (self.calls.clone(), subchannel.served().clone());
                        let direct = Direct { calls, served, connection };
                        let reports = direct.follow(every, self.backoff.clone(), self.rng.next_u64());
                        subchannel.keep(generation, task::spawn(reports));
                    }
                    self.observer.on_event(&Event::Connected { service, endpoint, took });
                }
                return;
            }
            ConnectionEvent::Failed(error) => {
                if let Some(retry_at) = subchannel.connect_failed(generation, &error, now, &mut self.rng) {
                    let retry_in = retry_at - now;
                    self.observer.on_event(&Event::ConnectFailed { service, endpoint, error: &error, retry_in });
                    self.retries.insert((retry_at, key));
                }
                return;
            }
            ConnectionEvent::GoingAway => {
                let lost = subchannel.going_away(generation, now, &mut self.rng);
                if lost != Lost::Unknown {
                    self.observer.on_event(&Event::GoingAway { service, endpoint });
                }
                lost
            }
            ConnectionEvent::Closed(error) => {
                let lost = subchannel.disconnected(generation, error.clone(), now, &mut self.rng);
                if lost != Lost::Unknown {
                    self.observer.on_event(&Event::Disconnected { service, endpoint, error: error.as_ref() });
                }
                lost
            }
        };
        if let Lost::Known { retry_at } = lost {
            self.dirty = true;
            self.retries.extend(retry_at.map(|at| (at, key)));
        }
    }

    /// Dials what the policy wants connected and is not.
    fn connect(&mut self) {
        if self.resting {
            return;
        }
        let wanted: Vec<_> = match self.balancer.connect_mode() {
            ConnectMode::All => self.idle().cloned().collect(),
            ConnectMode::First { .. } if self.subchannels.values().any(|one| one.is_chosen()) => return,
            ConnectMode::First { shuffle: false } => self.idle().next().cloned().into_iter().collect(),
            ConnectMode::First { shuffle: true } => {
                self.idle().min_by_key(|key| rank(self.seed, key)).cloned().into_iter().collect()
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
        self.generation += 1;
        let (generation, told) = (self.generation, key.clone());
        let tell = move |event| drop(tell.send((told.clone(), News::Connection(generation, event))));
        subchannel.connect(generation, task::spawn(dialer.dial_and_drive(dials, key, tell)));
    }

    /// Lets the balancer look at all that there is.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.resting {
            return self.sweeps.set(None, now);
        }
        let all = self.balancer.connect_mode() == ConnectMode::All;
        let each = |visit: &mut dyn FnMut(&Node, Standing)| {
            self.subchannels.values().for_each(|known| visit(known.node(), known.standing(all)));
        };
        let sweep = self.balancer.sweep(&Fleet::new(now.into_std(), &each));
        self.dirty |= sweep.changed;
        self.sweeps.set(sweep.next.map(Instant::from_std), now);
    }

    /// Shows calls what is ready now, or why nothing is.
    fn publish(&mut self) {
        let ready = || self.subchannels.values().filter_map(|one| Some((one, one.connections()?)));
        let nodes: Option<Box<[Node]>> = self.dirty.then(|| ready().map(|(one, _)| one.node().clone()).collect());
        let counted @ (count, known) =
            (nodes.as_ref().map_or(self.counted.0, |nodes| nodes.len()), self.subchannels.len());
        if self.dirty || counted != self.counted {
            let (service, policy) = (&self.calls.service, self.balancer.name());
            self.observer.on_event(&Event::PickSet { service, policy, ready: count, known });
        }
        if self.resting {
            self.calls.cell.publish(Published::Idle);
        } else if count == 0 {
            let published = self.nothing_ready();
            self.calls.cell.publish(published);
        } else if let Some(nodes) = nodes {
            let connections = ready().map(|(_, connections)| connections.clone()).collect();
            let (picker, recent) = (self.balancer.rebuild(&nodes), Recent::default());
            self.calls.cell.publish(Published::Ready(Ready { picker, connections, recent }));
        }
        (self.dirty, self.counted) = (false, counted);
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

fn woken(calls: &Arc<Calls>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let calls = calls.clone();
    Box::pin(async move { calls.used.woken().await })
}

/// Whether any call is open.
fn is_calling(subchannels: &BTreeMap<EndpointKey, Box<Subchannel>>) -> bool {
    subchannels.values().any(|one| one.load().in_flight() > 0)
}
