//! What the registry was told.

use std::{sync::Arc, time::Duration};

use crate::{error::Result, observe::Observer, registry::wire::Secret};

#[derive(Debug, Clone)]
pub(super) struct Config {
    /// `host:port,host:port`, at least one.
    pub(super) hosts: String,
    /// Begins with a slash and does not end with one; or empty.
    pub(super) root: String,
    pub(super) session: Duration,
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

impl Credentials {
    /// `user:password`.
    pub(super) async fn digest(&self) -> Result<String> {
        Ok(format!("{}:{}", self.user, self.password.read("the password of ZooKeeper's user").await?))
    }
}
