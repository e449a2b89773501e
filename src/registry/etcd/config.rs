//! What the registry was told.

use std::{sync::Arc, time::Duration};

use super::codec::EtcdLayout;
use crate::{error::Result, instance::Address, observe::Observer, registry::wire::Secret, tls::ClientTls};

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

/// A user of etcd.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Secret,
}

impl Credentials {
    pub(super) async fn password(&self) -> Result<String> {
        self.password.read("the password of etcd's user").await
    }
}
