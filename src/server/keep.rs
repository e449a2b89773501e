//! The task behind a registration: one operation after the other, so none overtakes another.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::registration::RegistrationState;
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceInstance,
    observe::{Event, Observer},
    registry::{Lease, Registrar, Renewal},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// What the owner of a registration wants.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) instance: Arc<ServiceInstance>,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Hold,
    Run,
    Stop,
}

pub(super) struct Keeper {
    registrar: Arc<dyn Registrar>,
    wanted: watch::Receiver<Wanted>,
    states: watch::Sender<RegistrationState>,
    observer: Arc<dyn Observer>,
    backoff: Backoff,
    rng: Rng,
}

/// However long a registry was away, no server tries again later than this.
const RETRY_WITHIN: Duration = Duration::from_secs(12);
const REGISTER_WITHIN: Duration = Duration::from_secs(10);
const DEREGISTER_WITHIN: Duration = Duration::from_secs(5);

impl Keeper {
    pub(super) fn new(
        registrar: Arc<dyn Registrar>,
        wanted: watch::Receiver<Wanted>,
        states: watch::Sender<RegistrationState>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let backoff = Backoff::new(BackoffConfig::spread(RETRY_WITHIN / 2));
        Self { registrar, wanted, states, observer, backoff, rng: Rng::from_entropy() }
    }

    /// Keeps the instance registered until it is to stop, or nobody holds the registration.
    pub(super) async fn run(mut self) {
        let mut held = None;
        while let Some(instance) = self.next_wanted().await {
            match self.register(&instance).await {
                Ok(lease) => {
                    self.keep(&lease).await;
                    held = Some(lease);
                }
                Err(error) => self.failed(&instance, error).await,
            }
        }
        self.deregister(held).await;
        self.states.send_replace(RegistrationState::Deregistered);
    }

    /// What is to be registered now; none when it is to stop.
    async fn next_wanted(&mut self) -> Option<Arc<ServiceInstance>> {
        if self.wanted.has_changed().is_err() {
            return None;
        }
        let wanted = self.wanted.wait_for(|wanted| wanted.phase != Phase::Hold).await.ok()?;
        (wanted.phase == Phase::Run).then(|| wanted.instance.clone())
    }

    /// One try. It is not broken off: a registry that did as it was told would keep an instance
    /// whose lease nobody has.
    async fn register(&mut self, instance: &Arc<ServiceInstance>) -> Result<Lease> {
        self.wanted.mark_unchanged();
        let error = match &*self.states.borrow() {
            RegistrationState::Registering(error) => error.clone(),
            _ => None,
        };
        self.states.send_replace(RegistrationState::Registering(error));
        within(REGISTER_WITHIN, "register", self.registrar.register(instance)).await
    }

    /// Waits before the next try, or, if none can help, until something else is wanted.
    async fn failed(&mut self, instance: &ServiceInstance, error: Error) {
        if matches!(error.kind(), Kind::InvalidInput | Kind::Unsupported) {
            self.observer.on_event(&Event::RegisterFailed { instance, error: &error, retry_in: Duration::MAX });
            self.states.send_replace(RegistrationState::Refused(error));
            // An error says that nobody is left who could want something else.
            drop(self.wanted.changed().await);
            return;
        }
        let retry_in = self.backoff.next(&mut self.rng);
        self.observer.on_event(&Event::RegisterFailed { instance, error: &error, retry_in });
        self.states.send_replace(RegistrationState::Registering(Some(error)));
        drop(timeout(retry_in, self.wanted.changed()).await);
    }

    /// Renews until the lease is lost, or something else is wanted.
    async fn keep(&mut self, lease: &Lease) {
        self.backoff.reset();
        self.observer.on_event(&Event::Registered { instance: lease.instance() });
        self.states.send_replace(RegistrationState::Registered);
        let lost = |observer: &dyn Observer, error| {
            observer.on_event(&Event::LeaseLost { service: lease.service(), id: lease.id(), error });
        };
        let interval = lease.ttl() / 3;
        let mut renewed = Instant::now();
        let mut next = renewed + interval;
        loop {
            tokio::select! {
                _ = self.wanted.changed() => return,
                () = sleep_until(next) => {}
            }
            let asked = Instant::now();
            let answer = within(interval, "renew", self.registrar.renew(lease)).await;
            let now = Instant::now();
            match answer {
                Ok(Renewal::Kept) => {
                    (renewed, next) = (asked, asked + interval);
                    self.backoff.reset();
                    if matches!(*self.states.borrow(), RegistrationState::Degraded(_)) {
                        self.states.send_replace(RegistrationState::Registered);
                    }
                }
                Ok(Renewal::Lost) => return lost(&*self.observer, None),
                Err(error) if now >= renewed + lease.ttl() => return lost(&*self.observer, Some(&error)),
                Err(error) => {
                    self.states.send_replace(RegistrationState::Degraded(error));
                    next = (now + self.backoff.next(&mut self.rng).min(interval)).min(renewed + lease.ttl()).max(now);
                }
            }
        }
    }

    async fn deregister(&self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        let instance = lease.instance();
        match within(DEREGISTER_WITHIN, "deregister", self.registrar.deregister(&lease)).await {
            Ok(()) => self.observer.on_event(&Event::Deregistered { instance }),
            Err(error) => self.observer.on_event(&Event::DeregisterFailed { instance, error: &error }),
        }
    }
}

async fn within<T>(bound: Duration, what: &str, done: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(bound, done).await.unwrap_or_else(|_| {
        let context = format!("the registry did not {what} within {bound:?}");
        Err(Error::new(Kind::DeadlineExceeded, context))
    })
}
