//! When a channel that nobody uses lets its connections go.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};

/// What calls leave behind for the pool to see.
#[derive(Debug, Default)]
pub(super) struct Use {
    begun: AtomicBool,
    wake: Notify,
}

impl Use {
    /// A call begins.
    pub(super) fn begin(&self) {
        // Mostly it is set, and a line that is only read stays in every cache.
        if !self.begun.load(Relaxed) {
            self.begun.store(true, Relaxed);
        }
    }

    /// Somebody waits for connections while there are none.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until somebody does.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// Tells when a channel has been out of use for long enough
/// ([IDLE](https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md)).
#[derive(Debug)]
pub(super) struct Idleness {
    tick: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    quiet: u32,
}

/// It is looked at so often: a channel rests after its time, or up to a quarter later.
const TICKS: u32 = 4;

impl Idleness {
    /// Zero or what no clock can hold means never.
    pub(super) fn new(after: Duration) -> Self {
        let tick = after / TICKS;
        let first = (!tick.is_zero()).then(|| Instant::now().checked_add(tick)).flatten();
        Self { tick, timer: first.map(|at| Box::pin(sleep_until(at))), quiet: 0 }
    }

    /// Ready once the channel has been out of use for so long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, used: &Use, in_flight: impl Fn() -> bool) -> Poll<()> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        loop {
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(Instant::now() + self.tick);
            self.quiet = if used.begun.swap(false, Relaxed) || in_flight() { 0 } else { self.quiet + 1 };
            if self.quiet > TICKS {
                self.quiet = 0;
                return Poll::Ready(());
            }
        }
    }
}
