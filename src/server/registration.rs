//! An instance kept in a registry for as long as a value lives.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_stream::wrappers::WatchStream;

use super::{
    incoming::Incoming,
    keep::{Keeper, Phase, Wanted},
    layer::{RegistrationLayer, State},
    metrics::Metrics,
    out_of_band::LoadReports,
};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceInstance,
    observe::{Observer, default_observer},
    registry::Registry,
    util::task,
};

/// Keeps one instance registered: registers it, renews its lease each third of the TTL, registers
/// it again when the lease is lost, and takes it out in the end.
///
/// All that goes on in a task of its own, whatever the registry does: a registry that is down, or
/// was emptied, is tried again for ever, with a backoff of 0 to 1 s at first and to 12 s in the end.
/// Clones are the same registration. Dropping the last one takes the instance out in the background;
/// [`shutdown`](Self::shutdown) waits for that.
///
/// ```
/// use callsign::{Registration, ServiceInstance, registry::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> callsign::Result<()> {
/// let instance = ServiceInstance::builder("greeter", "greeter-1")?
///     .address("grpc://10.0.0.5:9000".parse()?)
///     .build()?;
/// let registration = Registration::new(&Memory::new().into(), instance)?;
/// registration.start();
/// registration.registered().await?;
/// registration.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "the instance is taken out when this is dropped"]
#[derive(Clone)]
pub struct Registration {
    wanted: Arc<watch::Sender<Wanted>>,
    state: watch::Receiver<RegistrationState>,
    load: Arc<State>,
}

/// How a [`Registration`] is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Nobody has [started](Registration::start) it yet.
    Waiting,
    /// It is being registered, for the first time or again; with what kept the last try from success.
    Registering(Option<Error>),
    /// It is registered, and its lease is renewed.
    Registered,
    /// It is registered, but the last renewal failed; the lease may end.
    Degraded(Error),
    /// The registry cannot hold such an instance; nothing is tried before it is
    /// [updated](Registration::update).
    Refused(Error),
    /// It was taken out, or its lease left to end because the registry did not answer.
    Deregistered,
}

impl Registration {
    /// Prepares to register an instance; nothing is asked of the registry before
    /// [`start`](Self::start), or before a server accepts on [`incoming`](Self::incoming).
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the registry is for asking only, [`Kind::InvalidInput`] outside a
    /// Tokio runtime.
    pub fn new(registry: &Registry, instance: ServiceInstance) -> Result<Self> {
        Self::with_observer(registry, instance, default_observer())
    }

    /// The same, and sets who is told of what happens. Default: [`Tracing`](crate::observe::Tracing).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_observer(registry: &Registry, instance: ServiceInstance, observer: Arc<dyn Observer>) -> Result<Self> {
        Self::of_load(registry, instance, observer, Arc::default())
    }

    /// The same, of a server whose layers count already.
    pub(super) fn of_load(
        registry: &Registry,
        instance: ServiceInstance,
        observer: Arc<dyn Observer>,
        load: Arc<State>,
    ) -> Result<Self> {
        task::require_runtime("a registration")?;
        let registrar = registry.registrar()?.clone();
        let wanted = watch::Sender::new(Wanted { instance: Arc::new(instance), phase: Phase::Hold });
        let (states, state) = watch::channel(RegistrationState::Waiting);
        let keeper = Keeper::new(registrar, wanted.subscribe(), states, observer);
        // Ends when every clone of this is gone, after a bounded time to deregister.
        task::spawn_bounded(keeper.run());
        Ok(Self { wanted: Arc::new(wanted), state, load })
    }

    /// Registers in the background from now on. Starting twice is starting once.
    pub fn start(&self) {
        self.wanted.send_if_modified(|wanted| {
            let held = wanted.phase == Phase::Hold;
            if held {
                wanted.phase = Phase::Run;
            }
            held
        });
    }

    /// Changes what is registered: metadata, weight, version, addresses, status.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if it has another service or id: that would be another registration.
    pub fn update(&self, instance: ServiceInstance) -> Result<()> {
        let (service, id) = {
            let wanted = self.wanted.borrow();
            (wanted.instance.service().clone(), wanted.instance.id().clone())
        };
        if (instance.service(), instance.id()) != (&service, &id) {
            return Err(Error::invalid(format!(
                "instance {} of {} cannot become {} of {}: an update keeps the service and the id",
                id,
                service,
                instance.id(),
                instance.service()
            )));
        }
        self.wanted.send_modify(|wanted| wanted.instance = Arc::new(instance));
        Ok(())
    }

    /// What is registered, or is to be.
    pub fn instance(&self) -> Arc<ServiceInstance> {
        self.wanted.borrow().instance.clone()
    }

    /// How it is doing now.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// How it is doing now, and each later state; a slow reader misses what lay between. Ends
    /// behind [`Deregistered`](RegistrationState::Deregistered).
    pub fn states(&self) -> impl Stream<Item = RegistrationState> + Send + Unpin + use<> {
        WatchStream::new(self.state.clone())
    }

    /// Waits until it is registered.
    ///
    /// # Errors
    ///
    /// What the registry has against the instance, if it refuses it; [`Kind::Cancelled`] once it
    /// was taken out. A registry that is down is waited for: see
    /// [`registered_within`](Self::registered_within).
    pub fn registered(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let mut state = self.state.clone();
        async move {
            let settled = |state: &RegistrationState| {
                !matches!(state, RegistrationState::Waiting | RegistrationState::Registering(_))
            };
            match state.wait_for(settled).await.as_deref() {
                Ok(RegistrationState::Refused(error)) => Err(error.clone()),
                Ok(RegistrationState::Deregistered) | Err(_) => {
                    Err(Error::new(Kind::Cancelled, "the registration was shut down"))
                }
                Ok(_) => Ok(()),
            }
        }
    }

    /// Waits until it is registered, and fails if that takes longer than `bound`: for a program that
    /// would rather not start than start unknown.
    ///
    /// # Errors
    ///
    /// As [`registered`](Self::registered), and [`Kind::DeadlineExceeded`] with what kept it.
    pub fn registered_within(&self, bound: Duration) -> impl Future<Output = Result<()>> + Send + use<> {
        let (registered, state) = (self.registered(), self.state.clone());
        async move {
            if let Ok(registered) = timeout(bound, registered).await {
                return registered;
            }
            let context = format!("it was not registered within {bound:?}");
            Err(match &*state.borrow() {
                RegistrationState::Registering(Some(why)) => {
                    Error::with_source(Kind::DeadlineExceeded, context, why.clone())
                }
                _ => Error::new(Kind::DeadlineExceeded, context),
            })
        }
    }

    /// Takes the instance out, and waits until that is done: at most 5 s, and up to 10 s more if
    /// it is just being registered at a registry that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on without the caller.
    pub async fn shutdown(&self) {
        self.load.in_flight.drain();
        self.wanted.send_modify(|wanted| wanted.phase = Phase::Stop);
        let mut state = self.state.clone();
        let gone = state.wait_for(|state| matches!(state, RegistrationState::Deregistered)).await;
        // An error says that the task is gone, and with it the registration.
        drop(gone);
    }

    /// The connections of a listener, for `serve_with_incoming` and its kin. The first time that
    /// the server asks for one, this registration is [started](Self::start).
    pub fn incoming(&self, listener: TcpListener) -> Incoming {
        let registration = self.clone();
        Incoming::new(listener, move || registration.start())
    }

    /// A tower layer that counts the requests in flight and knows when the server drains; that reports the load to
    /// clients; and that sheds what is too much, if told to.
    pub fn layer(&self) -> RegistrationLayer {
        RegistrationLayer::new(self.load.clone())
    }

    /// Where the application says how busy it is, for all load reports.
    pub fn metrics(&self) -> Metrics {
        self.load.metrics.clone()
    }

    /// A gRPC service that streams load reports to those who ask, beside what the [`layer`](Self::layer) puts into
    /// responses.
    pub fn load_reports(&self) -> LoadReports {
        LoadReports::new(self.load.clone())
    }

    /// The requests in flight that passed by the [`layer`](Self::layer), to the end of their responses.
    pub fn in_flight(&self) -> usize {
        self.load.in_flight.count()
    }

    /// The requests that the [`layer`](Self::layer) shed.
    pub fn shed(&self) -> u64 {
        self.load.measure.total_shed()
    }

    /// Waits until none is in flight.
    pub async fn idle(&self) {
        self.load.in_flight.idle().await;
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = self.instance();
        f.debug_struct("Registration")
            .field("service", instance.service())
            .field("id", instance.id())
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}
