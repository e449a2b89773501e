//! When a channel that nobody uses lets its connections go.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
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
    /// Bits, so that a call looks at one thing: whether any was begun since each of two asked, and whether
    /// one of these waits for it.
    begun: AtomicU8,
    wake: Notify,
    called: Notify,
}

const SINCE_TICK: u8 = 1;
const SINCE_SWEEP: u8 = 2;
const BEGUN: u8 = SINCE_TICK | SINCE_SWEEP;
const ASLEEP: u8 = 4;

impl Use {
    /// A call begins.
    pub(super) fn begin(&self) {
        // Mostly it is set, and a line that is only read stays in every cache.
        if self.begun.load(Relaxed) != BEGUN && self.begun.swap(BEGUN, Relaxed) & ASLEEP != 0 {
            self.called.notify_one();
        }
    }

    /// Whether one began since this was asked before.
    fn ticked(&self) -> bool {
        self.begun.fetch_and(!SINCE_TICK, Relaxed) & SINCE_TICK != 0
    }

    /// If none began since this was asked before, the next that does will be [told](Self::called).
    pub(super) fn sleep(&self) -> bool {
        let begun = |bits: u8| bits & SINCE_SWEEP != 0;
        let asleep = self.begun.fetch_update(Relaxed, Relaxed, |bits| {
            Some(if begun(bits) { bits & !(SINCE_SWEEP | ASLEEP) } else { bits | ASLEEP })
        });
        asleep.is_ok_and(|bits| !begun(bits))
    }

    /// Waits until a call begins.
    pub(super) async fn called(&self) {
        self.called.notified().await;
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
            self.quiet = if used.ticked() || in_flight() { 0 } else { self.quiet + 1 };
            if self.quiet > TICKS {
                self.quiet = 0;
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_sleeps_is_told_of_the_next_call_alone() {
        let used = Use::default();
        used.begin();
        assert!(used.ticked() && !used.ticked());
        assert!(!used.sleep(), "one began, and that there was a tick changes nothing");
        assert!(used.sleep());
        assert!(used.called().now_or_never().is_none());
        used.begin();
        used.begin();
        assert!(used.called().now_or_never().is_some());
        assert!(used.called().now_or_never().is_none(), "once");
        assert!(used.ticked() && !used.sleep(), "both see the call");
    }
}
