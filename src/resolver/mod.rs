//! From what a registry says to what a balancer is fed: endpoints that come and go.

mod diff;

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use tower::discover::Change;

use self::diff::Held;
use crate::{
    endpoint::{Endpoint, EndpointKey},
    error::Error,
    filter::Filters,
    instance::{Address, Scheme, ServiceName},
    observe::{self, Event, Observer},
    registry::{View, Watch},
};

/// Follows a service, and streams which of its endpoints come, change and go.
///
/// By tower's blanket implementation it is a
/// [`Discover`](tower::discover::Discover)`<Key = EndpointKey, Service = Endpoint, Error = Infallible>`.
///
/// A new weight or new metadata is an `Insert` under the key that is held, so nobody reconnects.
/// Within one change of the set inserts come before removes. An outage of the registry removes
/// nothing, nor does the end of its watch; the stream never ends.
///
/// # Cancel safety
///
/// Cancel safe: a change that was not returned is returned the next time.
pub struct Resolver {
    service: ServiceName,
    watch: Option<Watch>,
    filters: Filters,
    carries: Arc<dyn Fn(&Address) -> bool + Send + Sync>,
    observer: Arc<dyn Observer>,
    seed: u64,
    held: Held,
    state: ResolverState,
}

/// What a resolver knows beside its endpoints.
#[derive(Debug, Clone, Default)]
pub struct ResolverState {
    resolved: bool,
    not_found: bool,
    instances: usize,
    passed: usize,
    endpoints: usize,
    outage: Option<Error>,
}

impl Resolver {
    /// Follows a service by a watch of it: all instances that have an address for plaintext gRPC.
    pub fn new(service: ServiceName, watch: Watch) -> Self {
        Self {
            service,
            watch: Some(watch),
            filters: Filters::new(),
            carries: Arc::new(|address| matches!(address.scheme(), Scheme::Grpc | Scheme::Unix)),
            observer: observe::default_observer(),
            seed: 0,
            held: Held::default(),
            state: ResolverState::default(),
        }
    }

    /// Sets which instances are used. Default: all.
    #[must_use]
    pub fn with_filters(mut self, filters: Filters) -> Self {
        self.filters = filters;
        self
    }

    /// Sets which addresses can be dialled; see [`Endpoint::of`]. Default: plaintext gRPC.
    #[must_use]
    pub fn with_carrier(mut self, carries: impl Fn(&Address) -> bool + Send + Sync + 'static) -> Self {
        self.carries = Arc::new(carries);
        self
    }

    /// Sets who is told. Default: [`Tracing`](crate::observe::Tracing).
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets what a subset is drawn by. Default 0: give each client its own.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The service that is followed.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// What is known now: after the stream was polled, also of what was no change of endpoints.
    pub fn state(&self) -> &ResolverState {
        &self.state
    }

    fn take(&mut self, view: &View) {
        self.state.outage = view.outage().map(|outage| outage.error().clone());
        let Some(snapshot) = view.snapshot() else { return };
        let passed = self.filters.apply(snapshot.instances(), self.seed);
        self.state.resolved = true;
        self.state.not_found = view.is_not_found();
        self.state.instances = snapshot.instances().len();
        self.state.passed = passed.len();
        let carries = &*self.carries;
        self.held.replace(passed, |instance| Endpoint::of(instance, carries));
        self.state.endpoints = self.held.len();
    }

    fn tell(&self, change: &diff::Changed) {
        let service = &self.service;
        self.observer.on_event(&match change {
            diff::Changed::Inserted(endpoint) => Event::EndpointInserted { service, endpoint },
            diff::Changed::Updated(endpoint) => Event::EndpointUpdated { service, endpoint },
            diff::Changed::Removed(endpoint) => Event::EndpointRemoved { service, endpoint },
        });
    }
}

impl Stream for Resolver {
    type Item = Result<Change<EndpointKey, Endpoint>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(changed) = self.held.next() {
                self.tell(&changed);
                return Poll::Ready(Some(Ok(changed.into())));
            }
            let Some(watch) = &mut self.watch else { return Poll::Pending };
            match Pin::new(watch).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(view)) => self.take(&view),
                Poll::Ready(None) => {
                    self.watch = None;
                    self.state.outage = Some(Error::unavailable("the registry ended its watch"));
                }
            }
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("service", &self.service).field("state", &self.state).finish_non_exhaustive()
    }
}

impl ResolverState {
    /// Whether the registry has answered at all.
    pub fn is_resolved(&self) -> bool {
        self.resolved
    }

    /// How many instances the registry has.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// How many endpoints were made of them.
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Why the registry does not answer; none while it does.
    pub fn outage(&self) -> Option<&Error> {
        self.outage.as_ref()
    }

    /// Why there are no endpoints, as a sentence; of little use where there are some.
    pub(crate) fn missing(&self) -> Error {
        let instances = |count| if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") };
        let why = match self {
            Self { resolved: false, outage: None, .. } => "the registry has not answered yet".to_owned(),
            Self { resolved: false, .. } => "the registry does not answer".to_owned(),
            Self { not_found: true, .. } => "the registry knows no such service".to_owned(),
            Self { instances: 0, .. } => "the registry has no instance of it".to_owned(),
            Self { passed: 0, instances: all, .. } => format!("{} known, none passes the filters", instances(*all)),
            Self { passed, .. } => format!(
                "{} known, none with an address this channel can dial (grpcs:// addresses need TLS)",
                instances(*passed)
            ),
        };
        match &self.outage {
            Some(outage) => Error::with_source(outage.kind(), why, outage.clone()),
            None => Error::unavailable(why),
        }
    }
}

#[cfg(test)]
mod tests;
