//! What must not be seen: passwords and tokens, by value or in a file that may change.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{
    error::{Error, Kind, Result},
    util::{file, task},
};

/// A password or a token.
#[derive(Clone)]
pub(in crate::registry) enum Secret {
    Text(Arc<str>),
    /// Read whenever it is needed.
    File(PathBuf),
}

/// Where it is from, never what it is.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("a secret"),
            Self::File(path) => write!(f, "the secret in {}", path.display()),
        }
    }
}

/// Longer than any of them.
const MAX: u64 = 16 << 10;

impl Secret {
    /// The secret itself, `what` it is standing in errors; line breaks at its end do not count.
    ///
    /// # Errors
    ///
    /// [`Kind::PermissionDenied`] if its file cannot be read.
    pub(in crate::registry) async fn read(&self, what: &'static str) -> Result<String> {
        let path = match self {
            Self::Text(text) => return Ok(text.to_string()),
            Self::File(path) => path.clone(),
        };
        task::blocking(move || {
            // A mounted secret is a link.
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            let wrong = |why: &str| format!("{what} is {why}: {}", path.display());
            let bytes = file::read(&path, MAX).map_err(|source| {
                Error::with_source(Kind::PermissionDenied, wrong("in a file that cannot be read"), source)
            })?;
            // No error of UTF-8's: it might show a part.
            let text = String::from_utf8(bytes).map_err(|_| Error::new(Kind::PermissionDenied, wrong("no UTF-8")))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        })
        .await
    }
}
