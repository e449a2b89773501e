//! What the end of a stream means to its call.

use h2::Reason;

use super::connection::Stream;
use crate::error::{Error, Kind};

/// Why an attempt failed, and whether the server can have acted on it.
#[derive(Debug)]
pub(in crate::channel) enum Failure {
    /// The server has neither seen nor refused it: no byte of it left this process, or it crossed the end of a
    /// connection that had answered, as servers end theirs once they are old.
    Unseen(Error),
    /// The server said that it did nothing about it.
    Refused(Error),
    /// The server may have acted on it.
    Failed(Error),
    /// It came from something that is no gRPC server: the code for it, and why.
    Foreign(tonic::Code, String),
    /// The application's own request stream failed.
    Request(tonic::Status),
}

impl Failure {
    /// The same, once the deadline has passed: servers cancel a call then, and do so before the
    /// client's own timer as often as after.
    pub(in crate::channel) fn late(self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(late(error)),
            other => other,
        }
    }

    /// Sorts an error of a stream.
    pub(super) fn of_stream(error: h2::Error, stream: &Stream) -> Self {
        // A GOAWAY that ends a stream names a last stream before it.
        let goaway = error.is_go_away() && error.is_remote();
        let crossed = goaway && error.reason() == Some(Reason::NO_ERROR) && stream.has_answered();
        let refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let error = describe(error, stream);
        if crossed {
            Self::Unseen(error)
        } else if goaway || refused {
            Self::Refused(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// What a cancellation means after the deadline.
pub(super) fn late(error: Error) -> Error {
    if error.kind() == Kind::Cancelled {
        return Error::with_source(Kind::DeadlineExceeded, "the deadline passed during the call", error);
    }
    error
}

/// The code for an error of HTTP/2, by
/// [gRPC's table](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors).
pub(super) fn describe(error: h2::Error, stream: &Stream) -> Error {
    let reset = error.is_reset().then(|| error.reason()).flatten();
    let (kind, context) = match reset {
        Some(_) if !error.is_remote() => (Kind::Internal, "what the server answered breaks HTTP/2's rules"),
        Some(Reason::REFUSED_STREAM) => (Kind::Unavailable, "the server refused the call unprocessed"),
        Some(Reason::CANCEL) => (Kind::Cancelled, "the server cancelled the call"),
        Some(Reason::ENHANCE_YOUR_CALM) => (Kind::Exhausted, "the server finds us too demanding"),
        Some(Reason::INADEQUATE_SECURITY) => {
            (Kind::PermissionDenied, "the server finds the transport not secure enough")
        }
        Some(_) => (Kind::Internal, "the server reset the call"),
        None if error.is_go_away() && error.is_remote() => (Kind::Unavailable, "the server went away before the call"),
        None => {
            const BROKE: &str = "the connection broke during the call";
            return match stream.ended() {
                Some(why) => Error::with_source(Kind::Unavailable, BROKE, why.clone()),
                None => Error::with_source(Kind::Unavailable, BROKE, error),
            };
        }
    };
    Error::with_source(kind, context, error)
}
