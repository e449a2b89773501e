//! The one place that spawns: a task lives no longer than the value that owns it.

use std::{future::Future, sync::Arc};

use tokio::{runtime::Handle, task::AbortHandle};

use crate::error::{Error, Kind, Result};

/// A running task; dropping the last clone ends it.
#[derive(Debug, Clone)]
pub(crate) struct Task(#[allow(dead_code, reason = "held for its drop")] Arc<AbortOnDrop>);

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a task that ends with the value returned, at the latest.
#[must_use = "the task ends when this is dropped"]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(Arc::new(AbortOnDrop(tokio::spawn(future).abort_handle())))
}

/// Starts a task that ends by itself, and soon: its future must be bounded in time, or end when
/// every handle that can reach it is gone.
pub(crate) fn spawn_bounded(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// Does work that blocks, such as reading files, off the threads that tasks run on. It cannot be
/// stopped: who drops this only stops waiting.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|source| Err(Error::with_source(Kind::Internal, "work that blocks ended early", source)))
}

/// Says clearly, before anything is spawned, that a Tokio runtime is missing.
pub(crate) fn require_runtime(what: &str) -> Result<Handle> {
    Handle::try_current().map_err(|source| {
        Error::with_source(
            Kind::InvalidInput,
            format!("{what} needs a Tokio runtime: call it inside `#[tokio::main]` or `Runtime::enter`"),
            source,
        )
    })
}
