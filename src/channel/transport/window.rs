//! How much a server may send of one stream before the application reads: what fills the pipe. No I/O.

use tokio::time::Instant;

/// Estimates how much is under way between server and client (the bandwidth-delay product), by the
/// shortest time in which a PING went there and back, and by what arrives meanwhile, as
/// [gRPC does](https://grpc.io/blog/grpc-go-perf-improvements/#reducing-the-impact-of-flow-control).
/// By the shortest, so that what waits in some queue is not taken for the length of the way.
#[derive(Debug)]
pub(super) struct Pipe {
    window: u32,
    most: u32,
    /// When the PING under way was sent.
    sent: Option<Instant>,
    /// What had been heard at the answer before, or else at its PING, and when that was: an answer
    /// may overtake data, so what comes is counted from answer to answer.
    looked: (u64, Option<Instant>),
    /// The shortest round trip, in seconds.
    round: f64,
}

/// What a stream's window begins with: a message of a mebibyte fits, with its frame, and waits for no update on its way.
pub(super) const FIRST: u32 = 2 << 20;

impl Pipe {
    pub(super) fn new(most: u32) -> Self {
        Self { window: FIRST.min(most), most, sent: None, looked: (0, None), round: f64::INFINITY }
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// Whether so much has come that it is worth a PING.
    pub(super) fn is_worth_a_ping(&self, heard: u64) -> bool {
        self.window < self.most && self.sent.is_none() && heard - self.looked.0 >= u64::from(self.window / 2)
    }

    /// The PING has been sent.
    pub(super) fn ping(&mut self, heard: u64, now: Instant) {
        self.sent = Some(now);
        let (_, since) = self.looked;
        // Long ago the stream may have paused.
        if since.is_none_or(|since| (now - since).as_secs_f64() > self.round * 4.0) {
            self.looked = (heard, Some(now));
        }
    }

    /// Its answer came; tells the window if it is a new one.
    pub(super) fn pong(&mut self, heard: u64, now: Instant) -> Option<u32> {
        let sent = self.sent.take()?;
        self.round = self.round.min((now - sent).as_secs_f64().max(1e-6));
        let (from, since) = std::mem::replace(&mut self.looked, (heard, Some(now)));
        let elapsed = (now - since?).as_secs_f64().max(1e-6);
        let under_way = (heard - from) as f64 / elapsed * self.round;
        // A window that is not nearly used up is large enough.
        if under_way * 3.0 < f64::from(self.window) * 2.0 {
            return None;
        }
        let window = (under_way * 2.0).min(self.most.into()) as u32;
        (window > self.window).then(|| {
            self.window = window;
            window
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn grows_to_twice_what_is_under_way_and_no_further() {
        let (begun, mut pipe) = (Instant::now(), Pipe::new(16 << 20));
        let at = |rounds: u32| begun + Duration::from_millis(50) * rounds;
        assert!(!pipe.is_worth_a_ping(1000) && pipe.is_worth_a_ping(1200 << 10));
        pipe.ping(1200 << 10, at(0));
        assert!(!pipe.is_worth_a_ping(18 << 20), "one at a time");
        // A whole window came within the round trip.
        assert_eq!(pipe.pong((1200 << 10) + (2 << 20), at(1)), Some(4 << 20));
        // Then less than the window: it is the network that limits now.
        pipe.ping(4 << 20, at(1));
        assert_eq!(pipe.pong((1200 << 10) + (4 << 20), at(2)), None);
        // A whole window, but in twice the time: it waited in some queue.
        pipe.ping(6 << 20, at(2));
        assert_eq!(pipe.pong((1200 << 10) + (8 << 20), at(4)), None);
        pipe.ping(16 << 20, at(4));
        assert_eq!(pipe.pong(120 << 20, at(5)), Some(16 << 20), "bounded");
        assert!(!pipe.is_worth_a_ping(u64::MAX));
    }
}
