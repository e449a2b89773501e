//! What the registry was told.

use std::{sync::Arc, time::Duration};

use super::codec::EtcdLayout;
use crate::{instance::Address, observe::Observer, registry::wire::Credentials, tls::ClientTls};

#[derive(Debug, Clone)]
pub(super) struct Config {
    /// At least one.
    pub(super) endpoints: Vec<Address>,
    /// Without a slash at its end.
    pub(super) namespace: String,
    pub(super) layout: EtcdLayout,
    pub(super) ttl: Duration,
    pub(super) max_instances: usize,
    pub(super) credentials: Option<Credentials>,
    pub(super) tls: Option<ClientTls>,
    pub(super) observer: Arc<dyn Observer>,
    /// What stands in errors and logs.
    pub(super) name: Arc<str>,
}

/// What stands in errors.
pub(super) const PASSWORD: &str = "the password of etcd's user";
