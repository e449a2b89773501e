//! Who asks a registry: a user and a password.

use std::path::Path;

use super::secret::Secret;
use crate::error::Result;

/// The key of a URI's query that lets a password go in plaintext.
pub(in crate::registry) const PLAINTEXT_KEY: &str = "plaintext_password";

/// A user of a registry.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Credentials {
    pub(in crate::registry) user: String,
    password: Secret,
}

impl Credentials {
    pub(in crate::registry) fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Secret::Text(password.into().into()) }
    }

    pub(in crate::registry) fn file(user: impl Into<String>, path: impl AsRef<Path>) -> Self {
        Self { user: user.into(), password: Secret::File(path.as_ref().to_owned()) }
    }

    /// The password as it is now, `what` it is standing in errors.
    ///
    /// # Errors
    ///
    /// [`Kind::PermissionDenied`](crate::Kind::PermissionDenied) if its file cannot be read.
    pub(in crate::registry) async fn password(&self, what: &'static str) -> Result<String> {
        self.password.read(what).await
    }
}
