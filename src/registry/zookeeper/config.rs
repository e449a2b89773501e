//! What the registry was told.

use std::{sync::Arc, time::Duration};

use super::{codec::ZooKeeperLayout, pipe::Secure};
use crate::{instance::Address, observe::Observer, registry::wire::Credentials};

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
    /// Of the scheme `digest`; the password is read for each new session, so that it may change.
    pub(super) credentials: Option<Credentials>,
    pub(super) observer: Arc<dyn Observer>,
    /// What stands in errors and logs.
    pub(super) name: Arc<str>,
}

/// What stands in errors.
pub(super) const PASSWORD: &str = "the password of ZooKeeper's user";

impl Config {
    /// `host:port,host:port`.
    pub(super) fn hosts(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| member.authority().to_string()).collect();
        hosts.join(",")
    }
}
