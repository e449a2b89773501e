//! Whether a connection that says nothing is still alive: when to ask, and when to give up. No I/O.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// When a channel asks a silent server, by an HTTP/2 PING, whether it is still there
/// ([gRFC A8](https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md)).
///
/// By default it asks while calls are open and the server has sent nothing for 10 s, and takes a
/// connection for dead that does not answer within 20 s. While the silence lasts it asks again
/// after 20 s, 40 s, and then every 5 minutes: servers built with gRPC's defaults cut a
/// client that asks oftener than that.
///
/// ```
/// use std::time::Duration;
/// use callsign::channel::Keepalive;
///
/// let strict = Keepalive::every(Duration::from_secs(15)).timeout(Duration::from_secs(5)).while_idle(true);
/// # let _ = strict;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Keepalive {
    first: Duration,
    most: Duration,
    timeout: Duration,
    while_idle: bool,
}

/// The least that gRFC A8 lets a client be set to.
const LEAST: Duration = Duration::from_secs(10);
/// What servers allow at least, unless told otherwise.
const POLITE: Duration = Duration::from_secs(300);
/// From then on waits would be too short for the doubling to matter, or too long to be meant.
const NEVER: Duration = Duration::MAX;

impl Default for Keepalive {
    fn default() -> Self {
        Self { first: LEAST, most: POLITE, timeout: Duration::from_secs(20), while_idle: false }
    }
}

impl Keepalive {
    /// Asks after each such silence, of at least 10 s. The server must allow it.
    pub fn every(interval: Duration) -> Self {
        let interval = interval.max(LEAST);
        Self { first: interval, most: interval, ..Self::default() }
    }

    /// Never asks. A host that is gone is then noticed only by [TCP](crate::channel::TcpConnector).
    pub fn off() -> Self {
        Self { first: NEVER, most: NEVER, ..Self::default() }
    }

    /// Sets how long an answer may take. Default 20 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets whether to ask without open calls too. Default: no.
    pub fn while_idle(mut self, ask: bool) -> Self {
        self.while_idle = ask;
        self
    }
}

/// What servers of one channel have said of its pace: doubled each time one finds it too fast.
#[derive(Debug, Default)]
pub(in crate::channel) struct Pace(AtomicU32);

impl Pace {
    pub(super) fn too_many_pings(&self) {
        // 2^10 × 10 s is hours.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |doublings| (doublings < 10).then_some(doublings + 1));
    }

    fn slow(&self, wait: Duration) -> Duration {
        wait.saturating_mul(1 << self.0.load(Relaxed))
    }
}

/// What is known of one connection's silence.
#[derive(Debug)]
pub(super) struct Watch {
    config: Keepalive,
    /// When it was asked, while there is no answer.
    asked: Option<Instant>,
    /// How often it has been asked since it last said something else.
    unbroken: u32,
    /// How much had been heard when it last answered.
    answered: Option<(u64, Instant)>,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Do {
    /// Nothing before this time.
    Wait(Instant),
    /// Ask.
    Ping,
    /// Nothing until a call begins.
    Rest,
    /// Give up.
    Dead,
}

impl Watch {
    pub(super) fn new(config: Keepalive) -> Self {
        Self { config, asked: None, unbroken: 0, answered: None }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Whether it never asks.
    pub(super) fn is_off(&self) -> bool {
        self.config.first == NEVER
    }

    /// Whether it has something to look after without a call.
    pub(super) fn is_restless(&self) -> bool {
        self.config.while_idle || self.asked.is_some()
    }

    /// The answer came, when so many bytes had been heard.
    pub(super) fn pong(&mut self, heard: u64, now: Instant) {
        if self.asked.take().is_some() {
            self.answered = Some((heard, now));
        }
    }

    /// Says what to do, when so many bytes have been heard, the last of them then.
    pub(super) fn next(&mut self, now: Instant, heard: (u64, Instant), in_use: bool, pace: &Pace) -> Do {
        if let Some(asked) = self.asked {
            // Whatever comes is a sign of life.
            let alive = asked.max(heard.1);
            let end = alive.checked_add(self.config.timeout);
            return end.map_or(Do::Rest, |end| if now >= end { Do::Dead } else { Do::Wait(end) });
        }
        if !in_use && !self.config.while_idle || self.is_off() {
            return Do::Rest;
        }
        let since = match self.answered {
            Some((at, when)) if at == heard.0 => when,
            _ => {
                self.unbroken = 0;
                heard.1
            }
        };
        let wait = self.config.first.saturating_mul(1 << self.unbroken.min(20));
        let wait = if self.unbroken < 3 { wait.min(self.config.most) } else { self.config.most };
        match since.checked_add(pace.slow(wait)) {
            Some(at) if now < at => Do::Wait(at),
            Some(_) => {
                self.asked = Some(now);
                self.unbroken += 1;
                Do::Ping
            }
            None => Do::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// The seconds at which a server that only ever answers PINGs is asked.
    fn asked(config: Keepalive, until: u64, pace: &Pace) -> Vec<u64> {
        let begun = Instant::now();
        let (mut watch, mut heard, mut asked) = (Watch::new(config), (100, begun), Vec::new());
        let mut now = begun;
        while now < begun + seconds(until) {
            match watch.next(now, heard, true, pace) {
                Do::Ping => {
                    asked.push((now - begun).as_secs());
                    heard = (heard.0 + 17, now);
                    watch.pong(heard.0, now);
                }
                Do::Wait(at) => now = at,
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    /// grpc-go's server takes a PING for a strike that comes sooner than 5 minutes after the one
    /// before, the first behind data apart, and cuts the client at the third.
    #[test]
    fn asks_no_oftener_than_servers_allow_by_default() {
        let asked = asked(Keepalive::default(), 2_000, &Pace::default());
        assert_eq!(asked, [10, 30, 70, 370, 670, 970, 1270, 1570, 1870]);
        let strikes = asked.windows(2).filter(|pair| pair[1] - pair[0] < 300).count();
        assert!(strikes <= 2, "{strikes}");
    }

    #[test]
    fn asks_as_often_as_it_is_told_and_half_as_often_when_that_was_too_much() {
        let pace = Pace::default();
        assert_eq!(asked(Keepalive::every(seconds(15)), 60, &pace), [15, 30, 45]);
        pace.too_many_pings();
        assert_eq!(asked(Keepalive::every(seconds(15)), 100, &pace), [30, 60, 90]);
        assert_eq!(asked(Keepalive::every(seconds(1)), 50, &Pace::default()), [10, 20, 30, 40], "A8's least");
    }

    #[test]
    fn rests_without_calls_and_gives_up_without_an_answer() {
        let (begun, pace) = (Instant::now(), Pace::default());
        let later = |n| begun + seconds(n);
        let mut watch = Watch::new(Keepalive::default());
        assert_eq!(watch.next(later(60), (1, begun), false, &pace), Do::Rest);
        assert_eq!(watch.next(later(60), (1, begun), true, &pace), Do::Ping);
        assert_eq!(watch.next(later(70), (1, begun), true, &pace), Do::Wait(later(80)));
        assert_eq!(watch.next(later(80), (2, later(75)), false, &pace), Do::Wait(later(95)), "it said something");
        assert_eq!(watch.next(later(95), (2, later(75)), false, &pace), Do::Dead);
        let mut watch = Watch::new(Keepalive::off().while_idle(true));
        assert_eq!(watch.next(later(9_999_999), (1, begun), true, &pace), Do::Rest);
    }
}
