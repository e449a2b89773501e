//! How a channel is made.

use std::{
    convert::Infallible,
    fmt::{self, Display},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use futures_util::stream;
use http::{HeaderValue, uri::Authority};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{runtime::RuntimeFlavor, time::timeout};
use tower::discover::{Change, Discover};

use super::{
    Channel,
    call::Calls,
    connect::{Connector, TcpConnector},
    pool::{Pool, PoolConfig},
    published::{PickerCell, Published},
    source::{Discovered, Source},
    transport::Dialer,
};
use crate::{
    balance::Policy,
    endpoint::Endpoint,
    error::{Error, Kind, Result},
    filter::Filters,
    instance::ServiceName,
    observe::{self, Observer},
    registry::{Registry, Schemes, default_schemes},
    resolver::Resolver,
    target::Target,
    util::{
        backoff::BackoffConfig,
        rng::{Draws, Rng},
        task,
    },
};

/// Builds a [`Channel`].
///
/// What the [target](Target) itself says of policy, filters and timeouts goes before what is set
/// here: it can be changed without building the program anew.
#[derive(Debug)]
#[must_use]
pub struct ChannelBuilder {
    target: String,
    from: From,
    policy: Policy,
    connector: Arc<dyn Connector>,
    connect_timeout: Duration,
    ready_timeout: Duration,
    timeout: Option<Duration>,
    patience: Duration,
    wait_for_ready: bool,
    user_agent: Option<String>,
    authority: Option<String>,
    observer: Arc<dyn Observer>,
    backoff: BackoffConfig,
    max_dials: usize,
    seed: Option<u64>,
}

/// Where the endpoints come from.
enum From {
    Target(Schemes),
    Registry(Registry),
    Discover(Box<dyn Source>),
}

impl fmt::Debug for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(schemes) => schemes.fmt(f),
            Self::Registry(registry) => f.write_str(registry.name()),
            Self::Discover(_) => f.write_str("a Discover"),
        }
    }
}

impl ChannelBuilder {
    pub(super) fn new(target: String) -> Self {
        Self {
            target,
            from: From::Target(default_schemes().clone()),
            policy: Policy::default(),
            connector: Arc::new(TcpConnector),
            connect_timeout: Duration::from_secs(5),
            ready_timeout: Duration::from_secs(10),
            timeout: None,
            patience: Duration::from_secs(3),
            wait_for_ready: false,
            user_agent: None,
            authority: None,
            observer: observe::default_observer(),
            backoff: BackoffConfig::default(),
            max_dials: 32,
            seed: None,
        }
    }

    /// Sets which scheme of a target means which registry. Default: those that
    /// [`registry`](crate::registry()) opens.
    pub fn schemes(mut self, schemes: Schemes) -> Self {
        self.from = From::Target(schemes);
        self
    }

    /// Takes the endpoints from this registry; the target then needs to be no more than the
    /// service's name, as in `greeter` or `greeter?policy=round_robin`.
    pub fn registry(mut self, registry: impl Into<Registry>) -> Self {
        self.from = From::Registry(registry.into());
        self
    }

    /// Takes the endpoints from a `Discover` of one's own; the target then needs to be no more
    /// than the service's name, and filters in it have no effect.
    ///
    /// An error of it is taken for a passing one, its end for the end of changes, and a removal
    /// lets the calls finish that are in flight.
    pub fn discover<D>(mut self, discover: D) -> Self
    where
        D: Discover<Service = Endpoint> + Send + 'static,
        D::Key: Hash + Eq + Clone + Send,
        D::Error: Display,
    {
        self.from = From::Discover(Box::new(Discovered::new(discover)));
        self
    }

    /// Calls these endpoints and no others; the target then needs to be no more than a name.
    pub fn endpoints(self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let inserts = endpoints.into_iter().map(|endpoint| Change::Insert(endpoint.key().clone(), endpoint));
        let inserts: Vec<_> = inserts.map(Ok::<_, Infallible>).collect();
        self.discover(stream::iter(inserts))
    }

    /// Sets how to balance. Default: [`LeastRequest`](crate::balance::LeastRequest) of two choices.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how endpoints are reached. Default: [`TcpConnector`].
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Sets how long one try to connect may take, HTTP/2's handshake included. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long [`connect`](Self::connect) waits for a first ready endpoint. Default 10 s.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Sets how long a call may take that sets no deadline itself. Default: no bound.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long a call that does not [wait for readiness](Self::wait_for_ready) may all the
    /// same wait while endpoints are being found and connected. Default 3 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets whether calls wait for a ready endpoint up to their deadline, unless they
    /// [say otherwise](super::CallOptions::wait_for_ready). Default: no.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Puts the application's name before this crate's in `user-agent`. Default: none.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = Some(name.into());
        self
    }

    /// Sets the `:authority` that servers see. Default: the service's name, as Kratos sends it.
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Sets who is told of what happens. Default: [`Tracing`](crate::observe::Tracing).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the waits between tries to connect to one endpoint. Default: gRPC's, 1 s to 120 s.
    pub fn backoff(mut self, backoff: BackoffConfig) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how many endpoints are dialled at once, at least 1. Default 32.
    pub fn max_dials(mut self, dials: usize) -> Self {
        self.max_dials = dials.max(1);
        self
    }

    /// Sets what the channel's random choices come from, so that they can be repeated. Default:
    /// the operating system's randomness.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the channel and waits for a first ready endpoint.
    ///
    /// # Errors
    ///
    /// See [`Channel::connect`].
    pub async fn connect(self) -> Result<Channel> {
        let (bound, wait) = (self.ready_timeout, self.connect_lazy()?);
        let ready = wait.calls.cell.wait_for(|state| matches!(**state, Published::Ready { .. }).then_some(()));
        if timeout(bound, ready).await.is_ok() {
            return Ok(wait);
        }
        let context = format!("{}: waited {bound:.1?} for a first ready endpoint", wait.calls.service);
        Err(match &**wait.calls.cell.load() {
            Published::Ready { .. } => return Ok(wait.clone()),
            Published::Waiting(why) | Published::Failing(why) => {
                Error::with_source(Kind::Unavailable, context, why.clone())
            }
        })
    }

    /// Makes the channel, which connects in the background.
    ///
    /// # Errors
    ///
    /// See [`Channel::connect_lazy`].
    pub fn connect_lazy(self) -> Result<Channel> {
        let runtime = task::require_runtime("a channel")?;
        let seed = self.seed.unwrap_or_else(|| Rng::from_entropy().next_u64());
        let target = parse(&self.target, &self.from)?;
        let service = target.service().clone();
        let filters = Filters::from(&target);
        let resolve = |registry: Registry| -> Box<dyn Source> {
            let connector = self.connector.clone();
            let resolver = Resolver::new(service.clone(), registry.discovery().watch(&service))
                .with_filters(filters)
                .with_carrier(move |address| connector.carries(address))
                .with_observer(self.observer.clone())
                .with_seed(seed);
            Box::new(resolver)
        };
        let policy = target.policy().map_or(Ok(self.policy), str::parse)?;
        let source = match self.from {
            From::Target(schemes) => resolve(schemes.open(target.registry())?),
            From::Registry(registry) => resolve(registry.resilient_telling(self.observer.clone())),
            From::Discover(source) => source,
        };
        let calls = Arc::new(Calls {
            authority: authority(self.authority.as_deref(), &service)?,
            user_agent: user_agent(self.user_agent.as_deref())?,
            timeout: target.timeout().or(self.timeout),
            patience: self.patience,
            wait_for_ready: self.wait_for_ready,
            draws: Draws::new(self.seed),
            cell: PickerCell::new(Published::Waiting(Error::unavailable("the channel has just begun"))),
            service,
        });
        let pool = Pool::new(PoolConfig {
            calls: calls.clone(),
            source,
            balancer: policy.balancer(seed),
            dialer: Dialer {
                connector: self.connector,
                timeout: target.connect_timeout().unwrap_or(self.connect_timeout),
                coalesce: runtime.runtime_flavor() == RuntimeFlavor::MultiThread,
            },
            max_dials: self.max_dials,
            backoff: self.backoff,
            observer: self.observer,
            seed,
        });
        Ok(Channel { calls, _pool: task::spawn(pool.run()) })
    }
}

/// Reads what is called; where the registry is known, its service's name is enough.
fn parse(target: &str, from: &From) -> Result<Target> {
    if matches!(from, From::Target(_)) || target.contains("://") {
        return target.parse();
    }
    let target: Target = format!("registry:///{target}").parse()?;
    target.registry().expect_params(&[])?;
    Ok(target)
}

fn authority(set: Option<&str>, service: &ServiceName) -> Result<Authority> {
    match set {
        Some(set) => set.parse().map_err(|source| {
            Error::with_source(Kind::InvalidInput, format!("{set:?} cannot be an :authority"), source)
        }),
        None => service.as_str().parse().or_else(|_| {
            let encoded = utf8_percent_encode(service.as_str(), NON_ALPHANUMERIC).to_string();
            encoded.parse().map_err(|source| {
                Error::with_source(Kind::InvalidInput, format!("{service} cannot be an :authority; set one"), source)
            })
        }),
    }
}

/// The application's name, then the library's, as gRPC orders them.
fn user_agent(application: Option<&str>) -> Result<HeaderValue> {
    const OWN: &str = concat!("grpc-rust-callsign/", env!("CARGO_PKG_VERSION"));
    let Some(application) = application else { return Ok(HeaderValue::from_static(OWN)) };
    HeaderValue::try_from(format!("{application} {OWN}")).map_err(|source| {
        Error::with_source(Kind::InvalidInput, format!("{application:?} cannot be a user agent"), source)
    })
}
