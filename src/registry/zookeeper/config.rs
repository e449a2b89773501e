//! What the registry was told.

use std::{sync::Arc, time::Duration};

use super::{codec::ZooKeeperLayout, pipe::Secure};
use crate::{error::Result, instance::Address, observe::Observer, registry::wire::Secret};

#[derive(Debug, Clone)]
pub(super) struct Config {
    /// At least one.
    pub(super) members: Vec<Address>,
    /// Where TLS is spoken.
    pub(super) tls: Option<Arc<Secure>>,
    pub(super) layout: ZooKeeperLayout,
    /// Begins with a slash and does not end with one; or empty.
    pub(super) root: String,
    pub(super) session: Duration,
    pub(super) max_instances: usize,
    pub(super) credentials: Option<Credentials>,
    pub(super) observer: Arc<dyn Observer>,
    /// What stands in errors and logs.
    pub(super) name: Arc<str>,
}

/// A user of ZooKeeper's scheme `digest`.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    /// Read for each new session, so that it may change.
    pub(super) password: Secret,
}

impl Config {
    /// `host:port,host:port`.
    pub(super) fn hosts(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| member.authority().to_string()).collect();
        hosts.join(",")
    }
}

impl Credentials {
    /// `user:password`.
    pub(super) async fn digest(&self) -> Result<String> {
        Ok(format!("{}:{}", self.user, self.password.read("the password of ZooKeeper's user").await?))
    }
}
