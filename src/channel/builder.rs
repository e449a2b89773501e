//! How a channel is made.

use std::{
    convert::Infallible,
    fmt::{self, Display},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use futures_util::stream;
use tower::discover::{Change, Discover};

#[cfg(feature = "tls")]
use crate::tls::ClientTls;

use super::{
    connect::{Connector, TcpConnector},
    source::{Discovered, Source},
    transport::Keepalive,
};
use crate::{
    balance::Policy,
    endpoint::Endpoint,
    observe::{self, Observer},
    registry::{Registry, Schemes, default_schemes},
    util::backoff::BackoffConfig,
};

/// Builds a [`Channel`](super::Channel).
///
/// What the [target](crate::Target) itself says of policy, filters and timeouts goes before what is set
/// here: it can be changed without building the program anew.
#[derive(Debug)]
#[must_use]
pub struct ChannelBuilder {
    pub(super) target: String,
    pub(super) from: From,
    pub(super) policy: Policy,
    pub(super) connector: Arc<dyn Connector>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
    pub(super) connect_timeout: Duration,
    pub(super) ready_timeout: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) patience: Duration,
    pub(super) wait_for_ready: bool,
    pub(super) report_endpoint: bool,
    pub(super) user_agent: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) backoff: BackoffConfig,
    pub(super) max_dials: usize,
    pub(super) connections_per_endpoint: usize,
    pub(super) idle_timeout: Duration,
    pub(super) keepalive: Keepalive,
    pub(super) max_stream_window: u32,
    pub(super) max_metadata: u32,
    pub(super) seed: Option<u64>,
}

/// Where the endpoints come from.
pub(super) enum From {
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
            connector: Arc::new(TcpConnector::new()),
            #[cfg(feature = "tls")]
            tls: None,
            connect_timeout: Duration::from_secs(5),
            ready_timeout: Duration::from_secs(10),
            timeout: None,
            patience: Duration::from_secs(3),
            wait_for_ready: false,
            report_endpoint: false,
            user_agent: None,
            authority: None,
            observer: observe::default_observer(),
            backoff: BackoffConfig::default(),
            max_dials: 32,
            connections_per_endpoint: 4,
            idle_timeout: Duration::from_secs(30 * 60),
            keepalive: Keepalive::default(),
            max_stream_window: 16 << 20,
            max_metadata: 64 << 10,
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

    /// Calls over TLS: at the `grpcs://` addresses of an instance, or where it has none at its others.
    /// Default: plaintext, at addresses that are not `grpcs://`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
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

    /// Sets whether the extensions of a response carry the [`Endpoint`] that served it. Default: no;
    /// it costs a call some allocations. Errors name the endpoint always.
    pub fn report_endpoint(mut self, report: bool) -> Self {
        self.report_endpoint = report;
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

    /// Sets how many connections to one endpoint there may be, at least 1. Default 4.
    ///
    /// There is one, until as many calls are open on it as the server lets a connection carry
    /// (MAX_CONCURRENT_STREAMS); then another is made. A call that finds all of them full goes to
    /// another endpoint, and where these are full too it waits its turn.
    pub fn connections_per_endpoint(mut self, connections: usize) -> Self {
        self.connections_per_endpoint = connections.max(1);
        self
    }

    /// Sets after how long without a call the channel lets its connections go, until the next call;
    /// zero for never. Default 30 min.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how a server that says nothing is asked whether it is there. Default: see [`Keepalive`].
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Sets how many bytes of one response may wait unread in this process, at most. Default 16 MiB.
    ///
    /// A stream begins with 2 MiB; the window grows to twice what is under way between server and
    /// client, so that a stream over a long way is as fast as the way is wide.
    pub fn max_stream_window(mut self, bytes: u32) -> Self {
        self.max_stream_window = bytes.clamp(1 << 16, i32::MAX as u32);
        self
    }

    /// Sets how many bytes a response's metadata may have, at its beginning and at its end, 32 more
    /// for each entry counted in. Default 64 KiB. A response with more fails.
    pub fn max_metadata(mut self, bytes: u32) -> Self {
        self.max_metadata = bytes;
        self
    }

    /// Sets what the channel's random choices come from, so that they can be repeated. Default:
    /// the operating system's randomness.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}
