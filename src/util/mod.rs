//! What every floor uses and what knows no word of the domain.

pub(crate) mod ahead;
pub(crate) mod backoff;
pub(crate) mod content_type;
pub(crate) mod file;
pub(crate) mod filename;
pub(crate) mod mix;
pub(crate) mod pair;
pub(crate) mod rank;
pub(crate) mod raw;
pub(crate) mod rng;
#[cfg(any(feature = "file", feature = "tls"))]
pub(crate) mod stamp;
pub(crate) mod sync;
pub(crate) mod task;
pub(crate) mod thread;
pub(crate) mod write_through;
