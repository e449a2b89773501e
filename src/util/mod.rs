//! What every floor uses and what knows no word of the domain.

pub(crate) mod backoff;
pub(crate) mod file;
pub(crate) mod filename;
pub(crate) mod rng;
pub(crate) mod task;
pub(crate) mod thread;
