//! What could be reached by one who knows everything: the best of three.

use super::{queue::Nanos, rng::Rng, server::Server};

/// How one who knows all servers at every moment sends calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oracle {
    /// To the server with the fewest calls a worker.
    ShortestQueue,
    /// To the server where it will take the least time.
    ShortestDelay,
    /// To one queue, from which any worker takes that is free, the fastest first.
    OneQueue,
}

/// All three.
pub const ORACLES: [Oracle; 3] = [Oracle::ShortestQueue, Oracle::ShortestDelay, Oracle::OneQueue];

/// So much more than the least of all a server may fail before the oracle keeps away from it.
const FAILS: f64 = 0.01;

/// So busy the other servers may become by that.
const BUSY: f64 = 0.95;

/// Which servers the oracle uses: all that work, but for those that fail more than others, if the
/// others can do it alone.
#[must_use]
pub fn usable(servers: &[Server], offered: f64) -> Vec<bool> {
    let works: Vec<_> = servers.iter().map(|server| server.condition.works()).collect();
    let working = || servers.iter().zip(&works).filter(|(_, works)| **works).map(|(server, _)| server);
    let least = working().map(|server| server.condition.fail_share()).fold(1.0, f64::min);
    let good = |server: &Server| server.condition.fail_share() <= least + FAILS;
    let capacity: f64 =
        working().filter(|server| good(server)).map(|server| server.workers as f64 * server.condition.speed).sum();
    if offered < BUSY * capacity {
        servers.iter().zip(works).map(|(server, works)| works && good(server)).collect()
    } else if works.contains(&true) {
        works
    } else {
        servers.iter().map(|server| server.condition.listed && !server.condition.down).collect()
    }
}

/// Chooses a server; none if none is usable.
#[must_use]
pub fn choose(oracle: Oracle, servers: &[Server], usable: &[bool], mean: Nanos, random: &mut Rng) -> Option<usize> {
    let first = random.below(servers.len());
    let mut best: Option<(f64, f64, usize)> = None;
    for at in (first..servers.len()).chain(0..first) {
        let server = &servers[at];
        if !usable[at] {
            continue;
        }
        let full = if server.will_be_full() { 1e18 } else { 0.0 };
        let delay = delay(server, mean);
        let (cost, tie) = match oracle {
            Oracle::ShortestQueue => ((server.assigned + 1) as f64 / server.workers as f64, delay),
            Oracle::ShortestDelay | Oracle::OneQueue => (delay, 0.0),
        };
        if best.is_none_or(|(least, second, _)| (cost + full, tie) < (least, second)) {
            best = Some((cost + full, tie, at));
        }
    }
    best.map(|(_, _, at)| at)
}

/// The mean time that one more call will take, in nanoseconds: the same whether calls wait or share.
fn delay(server: &Server, mean: Nanos) -> f64 {
    let rounds = ((server.assigned + 1) as f64 / server.workers as f64).max(1.0);
    rounds * mean as f64 / server.condition.speed.max(1e-9) + server.condition.delay as f64
}
