//! The crate's one error type.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// What was given cannot be right: a target, an address, a configuration. Trying again is useless.
    InvalidInput,
    /// What was asked for does not exist.
    NotFound,
    /// Somebody else holds what was asked for.
    Conflict,
    /// A peer does not answer, or says that it cannot now. Trying again may help.
    Unavailable,
    /// It took longer than it was allowed to.
    DeadlineExceeded,
    /// The peer does not let us.
    PermissionDenied,
    /// The other side, or this build, lacks what was asked for.
    Unsupported,
    /// Whoever asked went away, or what was asked has been shut down.
    Cancelled,
    /// A peer broke a protocol, or stored bytes make no sense.
    Corrupt,
    /// A limit was met that protects this process or a peer.
    Exhausted,
    /// A defect of this crate.
    Internal,
}

/// An error: its [`Kind`], a sentence, and the error behind it.
///
/// `{}` prints the sentence, `{:#}` the sentence and every cause behind it. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: Kind,
    context: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error of a kind with a sentence that says what, where, and how to mend it.
    pub fn new(kind: Kind, context: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, context: context.into(), source: None }))
    }

    /// Creates an error with the error that caused it.
    pub fn with_source(
        kind: Kind,
        context: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, context: context.into(), source: Some(source.into()) }))
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, Kind::Unavailable | Kind::DeadlineExceeded | Kind::Exhausted)
    }

    /// Puts a sentence in front, for one who reads the error further up; the kind stays.
    #[must_use]
    pub fn context(self, context: impl Into<Cow<'static, str>>) -> Self {
        Self::with_source(self.kind(), context, self)
    }

    pub(crate) fn invalid(context: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidInput, context)
    }

    pub(crate) fn unavailable(context: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unavailable, context)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.context)?;
        if f.alternate() {
            let mut cause = self.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Kind> for tonic::Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::InvalidInput => Self::InvalidArgument,
            Kind::NotFound | Kind::Unavailable => Self::Unavailable,
            Kind::Conflict => Self::Aborted,
            Kind::DeadlineExceeded => Self::DeadlineExceeded,
            Kind::PermissionDenied => Self::PermissionDenied,
            Kind::Unsupported => Self::Unimplemented,
            Kind::Cancelled => Self::Cancelled,
            Kind::Exhausted => Self::ResourceExhausted,
            Kind::Corrupt | Kind::Internal => Self::Internal,
        }
    }
}

/// The status that a call fails with: gRPC's code for the kind, and the whole chain as its message.
///
/// A service that does not exist is `UNAVAILABLE`, not `NOT_FOUND`: the latter belongs to the
/// application, and the service may appear.
impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(error.kind().into(), format!("{error:#}"));
        status.set_source(Arc::new(error));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_chain_only_when_asked() {
        let error = Error::with_source(Kind::Unavailable, "cannot dial 10.0.0.7:50051", Error::unavailable("refused"));
        assert_eq!(error.to_string(), "cannot dial 10.0.0.7:50051");
        assert_eq!(format!("{error:#}"), "cannot dial 10.0.0.7:50051: refused");
        let status = tonic::Status::from(error.context("greeter"));
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(status.message(), "greeter: cannot dial 10.0.0.7:50051: refused");
    }
}
