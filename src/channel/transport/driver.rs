//! The task of one connection: moves its frames, and watches over it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{self, SendRequest},
};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    connection::ConnectionEvent,
    dial::Dialer,
    heard::{Heard, Listening},
    keepalive::{Do, Pace, Watch},
    streams::Streams,
    window::Pipe,
};
use crate::error::{Error, Kind};

/// How long a connection that nobody holds may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    connection: client::Connection<Listening, Bytes>,
    streams: Arc<Streams>,
    heard: Arc<Heard>,
    /// Fails as soon as the server has said GOAWAY; it also keeps h2 from closing the connection.
    probe: Option<SendRequest<Bytes>>,
    released: oneshot::Receiver<()>,
    coalesce: bool,

    pings: Option<PingPong>,
    /// Whether a PING is under way; there is one at a time, for whoever wants one.
    pinging: bool,
    watch: Watch,
    pace: Arc<Pace>,
    pipe: Pipe,
    /// When to look at the watch; none while it rests.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Why a connection ended.
enum End {
    /// Nobody holds it any more.
    Released,
    Broken(h2::Error),
    Closed,
    Silent,
}

impl Driver {
    pub(super) fn new(
        dialer: &Dialer,
        mut connection: client::Connection<Listening, Bytes>,
        probe: SendRequest<Bytes>,
        streams: Arc<Streams>,
        heard: Arc<Heard>,
        pipe: Pipe,
        released: oneshot::Receiver<()>,
    ) -> Self {
        Self {
            pings: connection.ping_pong(),
            connection,
            streams,
            heard,
            probe: Some(probe),
            released,
            coalesce: dialer.coalesce,
            pinging: false,
            watch: Watch::new(dialer.keepalive),
            pace: dialer.pace.clone(),
            pipe,
            alarm: None,
        }
    }

    /// In a box: a future keeps room for what it is given, and for what it makes of it.
    pub(super) async fn run(mut self: Box<Self>, tell: impl Fn(ConnectionEvent) + Send + Sync) {
        let mut yielded = false;
        let end = poll_fn(|cx| {
            if self.coalesce && !yielded && self.streams.are_several() {
                // Woken by one caller: run again behind the other tasks that are ready, which may
                // have something to write too.
                yielded = true;
                return pin!(yield_now()).poll(cx).map(|()| End::Closed);
            }
            yielded = false;
            self.poll(cx, &tell)
        })
        .await;
        let error = match end {
            End::Closed => None,
            End::Broken(source) => {
                if is_too_many_pings(&source) {
                    self.pace.too_many_pings();
                }
                Some(Error::with_source(Kind::Unavailable, "the connection broke", source))
            }
            End::Silent => {
                Some(Error::unavailable(format!("the server did not answer a PING within {:?}", self.watch.timeout())))
            }
            End::Released => {
                self.probe = None;
                let goodbye = timeout(GOODBYE, pin!(&mut self.connection)).await.ok().and_then(|result| result.err());
                goodbye.map(|source| Error::with_source(Kind::Unavailable, "the connection broke", source))
            }
        };
        // Calls on it learn why before they learn that.
        self.streams.end(error.clone());
        tell(ConnectionEvent::Closed(error));
    }

    fn poll(&mut self, cx: &mut Context<'_>, tell: &impl Fn(ConnectionEvent)) -> Poll<End> {
        if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
            return Poll::Ready(result.map_or_else(End::Broken, |()| End::Closed));
        }
        if let Some(probe) = &mut self.probe {
            if let Poll::Ready(Err(_)) = probe.poll_ready(cx) {
                self.probe = None;
                self.streams.allow(0);
                tell(ConnectionEvent::GoingAway);
            } else {
                self.streams.allow(self.connection.max_concurrent_send_streams());
            }
        }
        self.poll_pong(cx);
        if self.poll_alive(cx).is_ready() {
            return Poll::Ready(End::Silent);
        }
        Pin::new(&mut self.released).poll(cx).map(|_| End::Released)
    }

    fn poll_pong(&mut self, cx: &mut Context<'_>) {
        let heard = self.heard.bytes();
        if self.pipe.is_worth_a_ping(heard) && self.ping() {
            self.pipe.ping(heard, Instant::now());
        }
        if !self.pinging {
            return;
        }
        let Some(Poll::Ready(Ok(_))) = self.pings.as_mut().map(|pings| pings.poll_pong(cx)) else { return };
        self.pinging = false;
        let now = Instant::now();
        self.watch.pong(heard, now);
        if let Some(window) = self.pipe.pong(heard, now) {
            // Fails only while the SETTINGS before are not acknowledged; there will be another time.
            drop(self.connection.set_initial_window_size(window));
        }
    }

    /// Ready when the server is dead.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.is_off() {
            return Poll::Pending;
        }
        loop {
            match &mut self.alarm {
                Some(alarm) => ready!(alarm.as_mut().poll(cx)),
                None if self.streams.is_unused() && !self.watch.is_restless() => return Poll::Pending,
                None => {}
            }
            let now = Instant::now();
            match self.watch.next(now, self.heard.last(), !self.streams.is_unused(), &self.pace) {
                Do::Dead => return Poll::Ready(()),
                Do::Rest => {
                    self.alarm = None;
                    return Poll::Pending;
                }
                Do::Wait(until) => match &mut self.alarm {
                    Some(alarm) => alarm.as_mut().reset(until),
                    None => self.alarm = Some(Box::pin(sleep_until(until))),
                },
                // One that is under way for another reason will do.
                Do::Ping => drop(self.ping()),
            }
        }
    }

    /// Sends a PING, if none is under way.
    fn ping(&mut self) -> bool {
        let sent = !self.pinging && self.pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
        self.pinging |= sent;
        sent
    }
}

fn is_too_many_pings(error: &h2::Error) -> bool {
    error.is_go_away()
        && error.is_remote()
        && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
        && error.to_string().contains("too_many_pings")
}
