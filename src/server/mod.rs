//! The servers' side: a server that registers itself, and the parts for those who have their own.

mod advertise;
mod connection;
mod counted;
mod flight;
mod http;
mod incoming;
mod keep;
mod layer;
mod limit;
mod measure;
mod metrics;
mod out_of_band;
mod registration;
#[cfg(feature = "tls")]
mod secure;
mod serve;
mod signal;

use std::{collections::BTreeMap, convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use ::http::{Request, Response};
use futures_util::{Stream, StreamExt};
use tonic::{body::Body, service::Routes, transport::server::Router};
use tonic_health::server::HealthReporter;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "tls")]
use crate::tls::ServerTls;

use self::{connection::Connection, layer::State};
pub use self::{
    counted::{CountedBody, CountedFuture},
    incoming::Incoming,
    layer::{Counted, RegistrationLayer},
    limit::AdaptiveLimit,
    metrics::{CallMetrics, Metrics},
    out_of_band::LoadReports,
    registration::{Registration, RegistrationState},
    serve::BoundServer,
    signal::shutdown_signal,
};
use crate::{
    error::{Error, Kind, Result},
    observe::{Observer, default_observer},
    registry::{BoxFuture, Registry},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A server that registers itself: gRPC, HTTP or both, as one instance of one service.
///
/// [`serve`](Self::serve) does all in order:
///
/// 1. It binds its listeners; port 0 becomes a real port.
/// 2. It accepts, then says so in its health, then registers. A registry that is down holds
///    nothing up: it is tried again in the background, for ever.
/// 3. When told to stop it says so in its health and deregisters, and keeps accepting for a
///    [drain delay](Self::drain), so that clients learn of it before they meet a closed door.
/// 4. It tells its connections to go (GOAWAY), and waits for what is in flight for a
///    [grace period](Self::grace); then it cuts what is left.
///
/// A second signal ends it at once. If one of its listeners fails, it deregisters all the same.
///
/// The instance's addresses carry the host by which others reach this machine: what
/// [`advertise`](Self::advertise) says; else the environment variable `CALLSIGN_ADVERTISE` or
/// `POD_IP`; else the IP address it is bound to; else, if it is bound to all, the source of the route to
/// the registry or the default route's; else a fit network interface.
///
/// The standard health service (`grpc.health.v1`) is added to the gRPC router, for `""`, for the
/// service's name, and for what [`health_of`](Self::health_of) names.
#[must_use]
pub struct Server {
    name: String,
    id: Option<String>,
    version: String,
    metadata: BTreeMap<String, String>,
    grpc: Option<Listen>,
    http: Option<Listen>,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    advertise: Option<String>,
    health: Option<HealthReporter>,
    health_of: Vec<String>,
    drain: Duration,
    grace: Duration,
    register_within: Option<Duration>,
    ready: BoxFuture<'static, ()>,
    observer: Arc<dyn Observer>,
    load: Arc<State>,
}

struct Listen {
    address: String,
    serve: Serve,
}

/// Serves on connections until told to stop, then until they have finished.
type Serve = Box<dyn FnOnce(Accepted, BoxFuture<'static, ()>) -> BoxFuture<'static, Result<()>> + Send>;

/// The connections of one listener.
struct Accepted {
    connections: Pin<Box<dyn Stream<Item = Connection> + Send>>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::ServerHandshake>,
}

impl Server {
    /// A server of this service, listening nowhere yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: None,
            version: String::new(),
            metadata: BTreeMap::new(),
            grpc: None,
            http: None,
            #[cfg(feature = "tls")]
            tls: None,
            advertise: None,
            health: None,
            health_of: Vec::new(),
            drain: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            register_within: None,
            ready: Box::pin(std::future::ready(())),
            observer: default_observer(),
            load: Arc::default(),
        }
    }

    /// A layer for the router: it counts the requests in flight, tells clients how busy the server is, and sheds what
    /// is too much, if told to. See [`Registration::layer`].
    ///
    /// ```
    /// # use callsign::Server;
    /// # fn serve(service: tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>) -> Server {
    /// let server = Server::new("greeter");
    /// let router = tonic::transport::Server::builder().layer(server.layer().limit(500)).add_service(service);
    /// server.grpc("0.0.0.0:9000", router)
    /// # }
    /// ```
    pub fn layer(&self) -> RegistrationLayer {
        RegistrationLayer::new(self.load.clone())
    }

    /// Where the application says how busy it is, for all load reports. See [`Registration::metrics`].
    pub fn metrics(&self) -> Metrics {
        self.load.metrics.clone()
    }

    /// A gRPC service for the router that streams load reports to those who ask. See [`Registration::load_reports`].
    pub fn load_reports(&self) -> LoadReports {
        LoadReports::new(self.load.clone())
    }

    /// Sets the instance's id. Default: the host's name (or `POD_NAME`), the service's and the
    /// port, which a restart keeps.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the version. Default: none.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets one entry of the metadata, such as `weight` or `zone`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Serves gRPC at an address such as `0.0.0.0:9000`; port 0 takes a free one.
    pub fn grpc<L, B>(self, address: impl ToString, router: Router<L>) -> Self
    where
        L: Layer<Routes> + Send + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError> + Send + 'static,
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (health, service) = tonic_health::server::health_reporter();
        let server = self.grpc_without_health(address, router.add_service(service));
        Self { health: Some(health), ..server }
    }

    /// The same, without the health service: for a router that has its own, whose state is then
    /// its own affair too.
    #[allow(clippy::needless_pass_by_value, reason = "so that a literal needs no `&`")]
    pub fn grpc_without_health<L, B>(self, address: impl ToString, router: Router<L>) -> Self
    where
        L: Layer<Routes> + Send + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError> + Send + 'static,
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let serve: Serve = Box::new(|accepted, stop| {
            Box::pin(async {
                #[cfg(feature = "tls")]
                if let Some(tls) = accepted.tls {
                    let secure = secure::connections(accepted.connections, tls).map(Ok::<_, Infallible>);
                    let served = router.serve_with_incoming_shutdown(secure, stop).await;
                    return served
                        .map_err(|source| Error::with_source(Kind::Internal, "the gRPC server failed", source));
                }
                let connections = accepted.connections.map(Ok::<_, Infallible>);
                let served = router.serve_with_incoming_shutdown(connections, stop).await;
                served.map_err(|source| Error::with_source(Kind::Internal, "the gRPC server failed", source))
            })
        });
        Self { health: None, grpc: Some(Listen { address: address.to_string(), serve }), ..self }
    }

    /// Serves HTTP/1 and HTTP/2 at an address, such as by a router of axum.
    #[allow(clippy::needless_pass_by_value, reason = "so that a literal needs no `&`")]
    pub fn http<S, B>(mut self, address: impl ToString, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let serve: Serve = Box::new(|accepted, stop| {
            Box::pin(async {
                #[cfg(feature = "tls")]
                if let Some(tls) = accepted.tls {
                    http::serve(service, secure::connections(accepted.connections, tls), stop).await;
                    return Ok(());
                }
                http::serve(service, accepted.connections, stop).await;
                Ok(())
            })
        });
        self.http = Some(Listen { address: address.to_string(), serve });
        self
    }

    /// Serves over TLS, gRPC and HTTP alike, and registers `grpcs://` and `https://` addresses.
    /// Default: plaintext.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the host that others reach this server by. Default: see [`Server`].
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// Names one more service that the health service answers for, such as `helloworld.Greeter`.
    pub fn health_of(mut self, service: impl Into<String>) -> Self {
        self.health_of.push(service.into());
        self
    }

    /// Waits for this before it says that it is healthy, and registers. Default: nothing.
    pub fn ready_when(mut self, ready: impl Future<Output = ()> + Send + 'static) -> Self {
        self.ready = Box::pin(ready);
        self
    }

    /// Sets how long it still accepts after it began to deregister. Default 5 s.
    pub fn drain(mut self, delay: Duration) -> Self {
        self.drain = delay;
        self
    }

    /// Sets how long what is in flight may then take. Default 30 s.
    pub fn grace(mut self, period: Duration) -> Self {
        self.grace = period;
        self
    }

    /// Ends the server with an error if it is not registered this long after it was ready. Default:
    /// it serves on, and registers when it can.
    pub fn register_within(mut self, bound: Duration) -> Self {
        self.register_within = Some(bound);
        self
    }

    /// Sets who is told of what happens. Default: [`Tracing`](crate::observe::Tracing).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Binds, serves, registers; when `shutdown` is over, deregisters, drains and returns.
    ///
    /// # Errors
    ///
    /// - [`Kind::InvalidInput`], [`Kind::Conflict`], [`Kind::PermissionDenied`], …: it cannot begin
    ///   as it was told to, see [`bind`](Self::bind).
    /// - The registry refuses the instance; a registry that does not answer is no error, unless
    ///   [`register_within`](Self::register_within) makes it one.
    /// - [`Kind::Internal`]: a listener failed. It was deregistered all the same.
    /// - [`Kind::Cancelled`]: a second signal came.
    pub async fn serve(
        self,
        registry: impl Into<Registry> + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        self.bind(registry).await?.serve(shutdown).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |listen: &Option<Listen>| listen.as_ref().map(|listen| listen.address.clone());
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("grpc", &address(&self.grpc))
            .field("http", &address(&self.http))
            .finish_non_exhaustive()
    }
}
