//! How a call ended.

/// How a call ended, as far as its endpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The server answered, whatever it said to the application.
    Success,
    /// The server, or the way to it, failed: `UNAVAILABLE`, a connection that broke.
    Failure,
    /// The deadline passed before the server answered in full: it is slow, or there is too much to do everywhere.
    Late,
    /// The server says that it failed, which may as well be the request's fault: `INTERNAL`, `UNKNOWN`,
    /// `DATA_LOSS`.
    Fault,
    /// The server has no room for the call now: `RESOURCE_EXHAUSTED`.
    Overload,
    /// The caller went away before the end.
    Cancelled,
}
