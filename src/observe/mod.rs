//! What happens, as one typed stream of events.
//!
//! A channel, a registration and a registry each tell one [`Observer`] of all they do. The
//! default, [`Tracing`], logs; a metrics exporter or a test is another.

mod tracing;

use std::{fmt::Debug, sync::Arc, time::Duration};

pub use self::tracing::Tracing;
use crate::{
    endpoint::Endpoint,
    error::Error,
    instance::{InstanceId, ServiceInstance, ServiceName},
};

/// Receives every [`Event`], at once and on the task it happens on: it must not block.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Is told of an event.
    fn on_event(&self, event: &Event<'_>);
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
#[allow(missing_docs, reason = "a field is what its name and type say; the variant says the rest")]
pub enum Event<'a> {
    /// A resolver found an endpoint.
    #[non_exhaustive]
    EndpointInserted { service: &'a ServiceName, endpoint: &'a Endpoint },
    /// An endpoint's instance changed: weight, metadata or status, not its address.
    #[non_exhaustive]
    EndpointUpdated { service: &'a ServiceName, endpoint: &'a Endpoint },
    /// A resolver lost an endpoint.
    #[non_exhaustive]
    EndpointRemoved { service: &'a ServiceName, endpoint: &'a Endpoint },
    /// A channel begins to connect.
    #[non_exhaustive]
    Connecting { service: &'a ServiceName, endpoint: &'a Endpoint, attempt: u32 },
    /// A connection is ready for calls.
    #[non_exhaustive]
    Connected { service: &'a ServiceName, endpoint: &'a Endpoint, took: Duration },
    /// A try to connect failed; the next begins after `retry_in`.
    #[non_exhaustive]
    ConnectFailed { service: &'a ServiceName, endpoint: &'a Endpoint, error: &'a Error, retry_in: Duration },
    /// The server asked to use the connection for nothing new; a replacement is dialled.
    #[non_exhaustive]
    GoingAway { service: &'a ServiceName, endpoint: &'a Endpoint },
    /// A connection ended.
    #[non_exhaustive]
    Disconnected { service: &'a ServiceName, endpoint: &'a Endpoint, error: Option<&'a Error> },
    /// What a channel's calls pick from has changed: `ready` endpoints of the `known`, none in an outage.
    #[non_exhaustive]
    PickSet { service: &'a ServiceName, policy: &'a str, ready: usize, known: usize },
    /// Nobody used a channel for its idle timeout: it lets its connections go until a call comes.
    #[non_exhaustive]
    Idle { service: &'a ServiceName },
    /// Certificates, a key or issuers changed, but cannot be read; what was read before stays in use.
    #[non_exhaustive]
    TlsReloadFailed { error: &'a Error },
    /// A registry does not answer; what was known of the service stays in use.
    #[non_exhaustive]
    RegistryUnavailable { service: &'a ServiceName, error: &'a Error },
    /// A registry answers again.
    #[non_exhaustive]
    RegistryRecovered { service: &'a ServiceName, outage: Duration },
    /// Something that a registry holds is no instance, and was skipped.
    #[non_exhaustive]
    RecordSkipped { registry: &'a str, service: &'a ServiceName, record: &'a str, error: &'a Error },
    /// An instance was registered.
    #[non_exhaustive]
    Registered { instance: &'a ServiceInstance },
    /// A registration failed; the next try begins after `retry_in`.
    #[non_exhaustive]
    RegisterFailed { instance: &'a ServiceInstance, error: &'a Error, retry_in: Duration },
    /// A lease could not be renewed in time, or is gone: the instance is registered again.
    #[non_exhaustive]
    LeaseLost { service: &'a ServiceName, id: &'a InstanceId, error: Option<&'a Error> },
    /// An instance was taken out of the registry.
    #[non_exhaustive]
    Deregistered { instance: &'a ServiceInstance },
    /// An instance could not be taken out of the registry; its lease ends by itself.
    #[non_exhaustive]
    DeregisterFailed { instance: &'a ServiceInstance, error: &'a Error },
}

/// The observer that those who set none have.
pub(crate) fn default_observer() -> Arc<dyn Observer> {
    Arc::new(Tracing)
}
