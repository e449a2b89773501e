//! How much a server may send of one stream before the application reads: what fills the pipe. No I/O.

use tokio::time::Instant;

/// Estimates how much is under way between server and client (the bandwidth-delay product), by what
/// arrives while a PING goes there and back, as
/// [gRPC does](https://grpc.io/blog/grpc-go-perf-improvements/#reducing-the-impact-of-flow-control).
#[derive(Debug)]
pub(super) struct Pipe {
    window: u32,
    most: u32,
    /// What had been heard when the sample began, and when.
    sample: Option<(u64, Instant)>,
    /// What had been heard when the last sample ended.
    looked: u64,
    /// The most bytes a second that there have been.
    bandwidth: f64,
}

/// What a stream's window begins with.
pub(super) const FIRST: u32 = 1 << 20;

impl Pipe {
    pub(super) fn new(most: u32) -> Self {
        Self { window: FIRST.min(most), most, sample: None, looked: 0, bandwidth: 0.0 }
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// Whether so much has come that it is worth a PING.
    pub(super) fn is_worth_a_ping(&self, heard: u64) -> bool {
        self.window < self.most && self.sample.is_none() && heard - self.looked >= u64::from(self.window / 2)
    }

    /// The PING has been sent.
    pub(super) fn ping(&mut self, heard: u64, now: Instant) {
        self.sample = Some((heard, now));
    }

    /// Its answer came; tells the window if it is a new one.
    pub(super) fn pong(&mut self, heard: u64, now: Instant) -> Option<u32> {
        let (from, sent) = self.sample.take()?;
        self.looked = heard;
        let came = heard - from;
        let bandwidth = came as f64 / (now - sent).as_secs_f64().max(1e-6);
        // A pipe that is not nearly full, or is no faster than it was, has windows enough.
        if came * 3 < u64::from(self.window) * 2 || bandwidth <= self.bandwidth {
            return None;
        }
        self.bandwidth = bandwidth;
        let window = u32::try_from(came * 2).unwrap_or(u32::MAX).min(self.most);
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
        assert!(!pipe.is_worth_a_ping(1000) && pipe.is_worth_a_ping(600 << 10));
        pipe.ping(600 << 10, begun);
        assert!(!pipe.is_worth_a_ping(9 << 20), "one at a time");
        // A whole window came within the round trip.
        let round = Duration::from_millis(50);
        assert_eq!(pipe.pong((600 << 10) + (1 << 20), begun + round), Some(2 << 20));
        // Then less than the window: it is the network that limits now.
        pipe.ping(4 << 20, begun);
        assert_eq!(pipe.pong(5 << 20, begun + round), None);
        // As much, but no faster: it only waited in some queue.
        pipe.ping(8 << 20, begun);
        assert_eq!(pipe.pong(10 << 20, begun + round * 3), None);
        pipe.ping(20 << 20, begun);
        assert_eq!(pipe.pong(60 << 20, begun + round), Some(16 << 20), "bounded");
        assert!(!pipe.is_worth_a_ping(u64::MAX));
    }
}
