//! When a channel's balancer looks at the whole fleet again.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::call::Calls;

/// Tells when a sweep is due. Where no call was begun since the one before, and none is open, it is so only when one
/// begins: a channel at rest has no timer.
#[derive(Default)]
pub(super) struct Sweeps(State);

#[derive(Default)]
enum State {
    #[default]
    Never,
    At(Pin<Box<Sleep>>),
    AtNextCall(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Sweeps are at least so far apart, whatever a balancer asks for.
const APART: Duration = Duration::from_millis(1);

impl Sweeps {
    /// Sets when the next is due.
    pub(super) fn set(&mut self, next: Option<Instant>, now: Instant) {
        let Some(next) = next.map(|next| next.max(now + APART)) else {
            self.0 = State::Never;
            return;
        };
        match &mut self.0 {
            State::At(timer) if timer.deadline() == next => {}
            State::At(timer) => timer.as_mut().reset(next),
            state => *state = State::At(Box::pin(sleep_until(next))),
        }
    }

    /// Ready once for what was set.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, calls: &Arc<Calls>, in_flight: impl Fn() -> bool) -> Poll<()> {
        if let State::At(timer) = &mut self.0 {
            ready!(timer.as_mut().poll(cx));
            if !in_flight() && calls.used.sleep() {
                let calls = calls.clone();
                self.0 = State::AtNextCall(Box::pin(async move { calls.used.called().await }));
            } else {
                self.0 = State::Never;
                return Poll::Ready(());
            }
        }
        match &mut self.0 {
            State::AtNextCall(called) => {
                ready!(called.as_mut().poll(cx));
                self.0 = State::Never;
                Poll::Ready(())
            }
            State::Never | State::At(_) => Poll::Pending,
        }
    }
}
