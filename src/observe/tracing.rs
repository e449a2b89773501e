//! Events as log lines.

use tracing::{debug, info, warn};

use super::{Event, Observer};

/// Logs each event by the `tracing` crate, target `callsign`, its parts as fields.
///
/// What a person must act on is a warning, a change of who is registered or connected is info, and
/// the rest is debug.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Tracing;

impl Observer for Tracing {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::EndpointInserted { service, endpoint } => {
                info!(target: "callsign", %service, %endpoint, "endpoint inserted");
            }
            Event::EndpointUpdated { service, endpoint } => {
                debug!(target: "callsign", %service, %endpoint, "endpoint updated");
            }
            Event::EndpointRemoved { service, endpoint } => {
                info!(target: "callsign", %service, %endpoint, "endpoint removed");
            }
            Event::Connecting { service, endpoint, attempt } => {
                debug!(target: "callsign", %service, %endpoint, attempt, "connecting");
            }
            Event::Connected { service, endpoint, took } => {
                info!(target: "callsign", %service, %endpoint, ?took, "connected");
            }
            Event::ConnectFailed { service, endpoint, error, retry_in } => {
                warn!(target: "callsign", %service, %endpoint, error = format!("{error:#}"), ?retry_in, "cannot connect");
            }
            Event::GoingAway { service, endpoint } => {
                info!(target: "callsign", %service, %endpoint, "server is going away");
            }
            Event::Disconnected { service, endpoint, error } => match error {
                Some(error) => {
                    info!(target: "callsign", %service, %endpoint, error = format!("{error:#}"), "disconnected");
                }
                None => debug!(target: "callsign", %service, %endpoint, "disconnected"),
            },
            Event::PickSet { service, policy, ready, known } => {
                debug!(target: "callsign", %service, policy, ready, known, "pick set");
            }
            Event::Idle { service } => {
                debug!(target: "callsign", %service, "idle, connections let go");
            }
            Event::TlsReloadFailed { error } => {
                warn!(target: "callsign", error = format!("{error:#}"), "cannot read changed TLS files, keeping what was read");
            }
            Event::RegistryUnavailable { service, error } => {
                warn!(target: "callsign", %service, error = format!("{error:#}"), "registry unavailable, keeping what is known");
            }
            Event::RegistryRecovered { service, outage } => {
                info!(target: "callsign", %service, ?outage, "registry answers again");
            }
            Event::RecordSkipped { registry, service, record, error } => {
                warn!(target: "callsign", registry, %service, record, error = format!("{error:#}"), "record skipped");
            }
            Event::Registered { instance } => {
                info!(target: "callsign", service = %instance.service(), id = %instance.id(), addresses = ?instance.addresses(), "registered");
            }
            Event::RegisterFailed { instance, error, retry_in } => {
                warn!(target: "callsign", service = %instance.service(), id = %instance.id(), error = format!("{error:#}"), ?retry_in, "cannot register");
            }
            Event::LeaseLost { service, id, error } => {
                let error = error.map(|error| format!("{error:#}"));
                warn!(target: "callsign", %service, %id, error, "lease lost, registering again");
            }
            Event::Deregistered { instance } => {
                info!(target: "callsign", service = %instance.service(), id = %instance.id(), "deregistered");
            }
            Event::DeregisterFailed { instance, error } => {
                warn!(target: "callsign", service = %instance.service(), id = %instance.id(), error = format!("{error:#}"), "cannot deregister, the lease will end by itself");
            }
        }
    }
}
