//! The default policy beside round robin, on ten real processes of which one is slow, one fails at once, one stalls and
//! one starts cold.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/dir.rs"]
mod dir;
#[path = "support/live.rs"]
mod live;
#[path = "support/process.rs"]
mod process;

use std::time::Duration;

use live::{COLD, EVEN, Fleet, SLOW, STALLED};

#[test]
fn what_is_wrong_with_four_of_ten_hardly_shows() {
    let fleet = Fleet::start();
    let length = Duration::from_secs(9);
    let [robin, adaptive] = ["round_robin", "adaptive"].map(|policy| fleet.run(policy, length));
    let both = format!("{adaptive:#?}\nbeside {robin:#?}");
    for outcome in [&robin, &adaptive] {
        assert!(outcome.calls() >= live::RATE * 9 - 1, "all calls were made: {both}");
    }
    // A tenth fails at once; what is stalled and what is slow makes half of another tenth each late.
    assert!(robin.failed() > 0.1 && robin.failed_at_once() > 0.08, "the fleet is as bad as it should be: {both}");
    assert!(adaptive.failed() < robin.failed() / 5.0, "{both}");
    assert!(adaptive.failed_at_once() < 0.02, "{both}");
    assert!(adaptive.p99_ms() < robin.p99_ms() / 2.0, "{both}");
    let even: Vec<_> = EVEN.iter().map(|id| adaptive.share(id)).collect();
    let mean = even.iter().sum::<f64>() / even.len() as f64;
    assert!(even.iter().all(|share| (0.5..2.0).contains(&(share / mean))), "{both}");
    assert!(adaptive.share(SLOW) < mean / 2.0, "{both}");
    // It is well for a third at the beginning, and is taken back in the last.
    assert!((0.2..0.9).contains(&(adaptive.share(STALLED) / mean)), "{both}");
    // It is asked, and spared as long as it is slow.
    assert!(adaptive.share(COLD) > 0.0 && adaptive.share(COLD) < mean, "{both}");
}
