//! What the registry was told.

use std::{sync::Arc, time::Duration};

use super::codec::{Reading, Shape};
use crate::{observe::Observer, registry::wire::Secret, tls::ClientTls};

#[derive(Debug, Clone)]
pub(super) struct Config {
    /// `http://host:port` each, at least one.
    pub(super) agents: Vec<String>,
    /// Of those whose instances are found; none for the agent's own.
    pub(super) datacenters: Vec<String>,
    pub(super) token: Option<Secret>,
    pub(super) namespace: Option<String>,
    pub(super) partition: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) near: Option<String>,
    pub(super) stale: bool,
    /// How long a question waits for a change.
    pub(super) wait: Duration,
    pub(super) shape: Shape,
    pub(super) reading: Reading,
    pub(super) tls: Option<ClientTls>,
    pub(super) observer: Arc<dyn Observer>,
    /// What stands in errors and logs.
    pub(super) name: Arc<str>,
}
