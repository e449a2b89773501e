//! From bound listeners to a server that has drained.

use std::{
    fmt,
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::join, stream::FuturesUnordered};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tonic_health::{ServingStatus, server::HealthReporter};

#[cfg(feature = "tls")]
use crate::tls::ServerHandshake;

use super::{
    Accepted, Incoming, Listen, Registration, Server, advertise, connection::Knife, registration::RegistrationState,
    signal::shutdown_signal,
};
use crate::{
    error::{Error, Kind, Result},
    instance::{Address, Scheme, ServiceInstance},
    registry::{BoxFuture, Registry},
    util::rng::Rng,
};

/// A [`Server`] that is bound to its addresses, and not yet serving or registered.
#[must_use]
pub struct BoundServer {
    registration: Registration,
    health: Option<Health>,
    listening: Vec<Listening>,
    ready: BoxFuture<'static, ()>,
    drain: Duration,
    grace: Duration,
    register_within: Option<Duration>,
}

struct Listening {
    listen: Listen,
    listener: TcpListener,
    #[cfg(feature = "tls")]
    tls: Option<ServerHandshake>,
}

impl fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundServer").field("registration", &self.registration).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds the listeners and finds out what to register; [`BoundServer::serve`] does the rest.
    ///
    /// # Errors
    ///
    /// - [`Kind::InvalidInput`]: a name, id, address or metadata that cannot be, no listener, no
    ///   address that others could reach, or no Tokio runtime.
    /// - [`Kind::Conflict`]: an address is in use. [`Kind::PermissionDenied`]: it is not for us.
    /// - [`Kind::Unsupported`]: the registry is for asking only.
    pub async fn bind(self, registry: impl Into<Registry> + Send) -> Result<BoundServer> {
        let registry = registry.into();
        #[cfg(feature = "tls")]
        let secure = self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        let secure = false;
        let (grpc, http) = if secure { (Scheme::Grpcs, Scheme::Https) } else { (Scheme::Grpc, Scheme::Http) };
        let listens = [(grpc, self.grpc), (http, self.http)];
        let (mut listening, mut addresses) = (Vec::new(), Vec::new());
        for (scheme, listen) in listens {
            let Some(listen) = listen else { continue };
            let listener = TcpListener::bind(&listen.address).await.map_err(|error| failed(scheme, &listen, error))?;
            let bound = listener.local_addr().map_err(|error| failed(scheme, &listen, error))?;
            let host = advertise::host(bound.ip(), self.advertise.as_deref(), registry.name()).await?;
            addresses.push(Address::tcp(scheme, &host, bound.port())?);
            #[cfg(feature = "tls")]
            let tls = self.tls.clone().map(|tls| tls.prepare(scheme == Scheme::Https, self.observer.clone()));
            listening.push(Listening {
                listen,
                listener,
                #[cfg(feature = "tls")]
                tls: tls.transpose()?,
            });
        }
        let Some(port) = addresses.first().and_then(Address::port) else {
            return Err(Error::invalid(format!("server {} listens nowhere: give it Server::grpc or http", self.name)));
        };
        let id = self.id.unwrap_or_else(|| default_id(&self.name, port));
        let mut instance = ServiceInstance::builder(&self.name, id)?.version(self.version).addresses(addresses);
        for (key, value) in self.metadata {
            instance = instance.metadata(key, value);
        }
        let registration = Registration::of_load(&registry, instance.build()?, self.observer, self.load)?;
        let health = self.health.map(|health| {
            let names = [String::new(), self.name].into_iter().chain(self.health_of);
            (health, names.collect())
        });
        set_health(health.as_ref(), ServingStatus::NotServing).await;
        let Self { ready, drain, grace, register_within, .. } = self;
        Ok(BoundServer { registration, health, listening, ready, drain, grace, register_within })
    }
}

impl BoundServer {
    /// What will be registered, with the addresses as they are.
    pub fn instance(&self) -> Arc<ServiceInstance> {
        self.registration.instance()
    }

    /// The registration, which begins when this serves.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Serves and registers; when `shutdown` is over, deregisters, drains and returns.
    ///
    /// # Errors
    ///
    /// See [`Server::serve`].
    ///
    /// # Cancel safety
    ///
    /// Dropping this cuts all connections and deregisters in the background.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { registration, health, listening, ready, drain, grace, register_within } = self;
        // Dropped last of all: who is still connected then is cut off.
        let knife = Knife::default();
        let (stop, stopped) = watch::channel(false);
        let accepting = Arc::new(Accepting::new(listening.len()));
        let mut servers: FuturesUnordered<_> = listening
            .into_iter()
            .map(|listening| {
                let (accepting, knife, mut stopped) = (accepting.clone(), knife.clone(), stopped.clone());
                let incoming = Incoming::new(listening.listener, move || accepting.one());
                let connections = incoming.filter_map(move |stream| {
                    let connection = stream.ok().map(|stream| knife.connection(stream));
                    std::future::ready(connection)
                });
                let stop = Box::pin(async move { drop(stopped.wait_for(|stopped| *stopped).await) });
                let accepted = Accepted {
                    connections: Box::pin(connections),
                    #[cfg(feature = "tls")]
                    tls: listening.tls,
                };
                (listening.listen.serve)(accepted, stop)
            })
            .collect();

        let mut opened =
            pin!(open(accepting.clone(), ready, health.clone(), registration.clone(), register_within).fuse());
        let ended = {
            let mut shutdown = pin!(shutdown);
            loop {
                tokio::select! {
                    () = &mut shutdown => break Ok(()),
                    refused = &mut opened => if let Err(error) = refused { break Err(error) },
                    Some(ended) = servers.next() => break Err(ended.err().unwrap_or_else(|| {
                        Error::new(Kind::Internal, "a listener ended by itself")
                    })),
                }
            }
        };
        let crashed = ended.is_err();
        let close = async {
            set_health(health.as_ref(), ServingStatus::NotServing).await;
            let drain = if crashed { Duration::ZERO } else { drain };
            // What is accepted meanwhile is served meanwhile.
            let mut leave = pin!(join(registration.shutdown(), sleep(drain)));
            loop {
                tokio::select! {
                    _ = &mut leave => break,
                    Some(_) = servers.next() => {}
                }
            }
            stop.send_replace(true);
            // Past the grace period the rest is cut, with the knife.
            drop(timeout(grace, async { while servers.next().await.is_some() {} }).await);
        };
        tokio::select! {
            () = close => ended,
            () = shutdown_signal() => Err(Error::new(Kind::Cancelled, "a second signal ended the server at once")),
        }
    }
}

/// Waits until all listeners are served and the user is ready; says so in health, then in the
/// registry. Fails if the registry refuses the instance.
async fn open(
    accepting: Arc<Accepting>,
    ready: BoxFuture<'static, ()>,
    health: Option<Health>,
    registration: Registration,
    register_within: Option<Duration>,
) -> Result<()> {
    accepting.all().await;
    ready.await;
    set_health(health.as_ref(), ServingStatus::Serving).await;
    registration.start();
    let mut states = registration.states();
    let in_time = register_within.map(|bound| registration.registered_within(bound));
    drop(registration);
    if let Some(in_time) = in_time {
        in_time.await?;
    }
    while let Some(state) = states.next().await {
        if let RegistrationState::Refused(error) = state {
            return Err(error.context("the registry refuses this server's instance"));
        }
    }
    Ok(())
}

/// The reporter, and the names it answers for.
type Health = (HealthReporter, Vec<String>);

async fn set_health(health: Option<&Health>, status: ServingStatus) {
    let Some((reporter, names)) = health else { return };
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}

/// How many listeners are not asked for connections yet.
struct Accepting {
    left: AtomicUsize,
    all: watch::Sender<bool>,
}

impl Accepting {
    fn new(listeners: usize) -> Self {
        Self { left: AtomicUsize::new(listeners), all: watch::Sender::new(false) }
    }

    fn one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.send_replace(true);
        }
    }

    async fn all(&self) {
        // The sender lives as long as `self`.
        drop(self.all.subscribe().wait_for(|all| *all).await);
    }
}

fn failed(scheme: Scheme, listen: &Listen, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::AddrInUse => Kind::Conflict,
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        _ => Kind::InvalidInput,
    };
    let address = &listen.address;
    let mend = match kind {
        Kind::Conflict => "another program listens there; port 0 takes a free one",
        Kind::PermissionDenied => "ports below 1024 are for privileged programs",
        _ => "an address is an IP address of this machine or a name, and a port, such as 0.0.0.0:9000",
    };
    Error::with_source(kind, format!("cannot listen for {scheme} on {address}: {mend}"), source)
}

/// The same after a restart: of two servers on one host at most one has the port.
fn default_id(name: &str, port: u16) -> String {
    let set = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let host = std::env::var("POD_NAME").ok().and_then(set);
    let host = host.or_else(|| std::env::var("HOSTNAME").ok().and_then(set));
    let host = host.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok().and_then(set));
    match host {
        Some(host) => format!("{host}-{name}-{port}"),
        None => format!("{:016x}-{name}-{port}", Rng::from_entropy().next_u64()),
    }
}
