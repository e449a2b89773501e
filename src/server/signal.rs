//! What ends a program from outside.

use std::io;

/// Waits for `SIGTERM` or Ctrl-C; on other systems than Unix for Ctrl-C alone.
///
/// Give it to [`Server::serve`](super::Server::serve). Where no handler can be installed it never
/// ends, and the system's own way of ending a program stays.
///
/// # Panics
///
/// Panics outside a Tokio runtime.
pub async fn shutdown_signal() {
    match wait().await {
        Ok(()) => {}
        Err(_) => std::future::pending().await,
    }
}

#[cfg(unix)]
async fn wait() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn wait() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
