use std::time::Duration;

use super::{stand::*, *};

const SECOND: Duration = Duration::from_secs(1);

/// Four of the first level, and two of each of the two behind it.
fn levels() -> Vec<Node> {
    ["0", "", "0", "nonsense", "1", "1", "7", "7"]
        .iter()
        .enumerate()
        .map(|(n, priority)| if priority.is_empty() { with(n, &[]) } else { with(n, &[("priority", priority)]) })
        .collect()
}

fn set(stand: &mut Stand, range: std::ops::Range<usize>, standing: Standing) {
    range.for_each(|at| stand.standing[at] = standing);
    stand.publish();
}

#[test]
fn the_first_level_that_is_there_takes_all() {
    let mut stand = Stand::new("round_robin,failover=true", levels());
    assert_eq!(stand.shares(80), [20, 20, 20, 20, 0, 0, 0, 0, 0]);
    set(&mut stand, 0..3, Standing::Failed);
    assert_eq!(stand.shares(80)[3], 80, "one is enough by default");
    set(&mut stand, 0..4, Standing::Failed);
    assert_eq!(stand.shares(80), [0, 0, 0, 0, 40, 40, 0, 0, 0]);
    set(&mut stand, 4..6, Standing::Failed);
    assert_eq!(stand.shares(80)[6..], [40, 40, 0]);
    set(&mut stand, 1..2, Standing::Ready);
    assert_eq!(stand.shares(80)[1], 80, "back at once");
}

#[test]
fn a_level_that_connects_is_waited_for() {
    let mut stand = Stand::new("round_robin,failover=true,failover_timeout=10s", levels());
    set(&mut stand, 0..4, Standing::Connecting);
    assert_eq!(stand.shares(10)[8], 10);
    stand.pass(5 * SECOND);
    // What else happens does not begin the wait anew.
    set(&mut stand, 6..7, Standing::Failed);
    stand.pass(4 * SECOND);
    assert_eq!(stand.shares(10)[8], 10);
    stand.pass(SECOND);
    assert_eq!(stand.shares(10)[4..6], [5, 5]);
    stand.pass(60 * SECOND);
    assert_eq!(stand.shares(10)[4..6], [5, 5], "and no second time");
    set(&mut stand, 0..1, Standing::Ready);
    assert_eq!(stand.shares(10)[0], 10);
    // Lost once more, and this time all tries fail: nobody waits longer than that takes.
    set(&mut stand, 0..1, Standing::Connecting);
    assert_eq!(stand.shares(10)[8], 10);
    set(&mut stand, 0..4, Standing::Failed);
    assert_eq!(stand.shares(10)[4..6], [5, 5]);
}

#[test]
fn too_few_are_not_enough_and_then_all_help() {
    let mut stand = Stand::new("round_robin,failover=true,failover_threshold=75", levels());
    set(&mut stand, 0..1, Standing::Failed);
    assert_eq!(stand.shares(30)[..4], [0, 10, 10, 10]);
    set(&mut stand, 0..2, Standing::Failed);
    assert_eq!(stand.shares(30)[4..6], [15, 15]);
    for at in [4, 6] {
        set(&mut stand, at..at + 1, Standing::Failed);
    }
    assert_eq!(stand.shares(40), [0, 0, 10, 10, 0, 10, 0, 10, 0], "no level has enough");
}

#[test]
fn who_is_set_aside_is_not_ready() {
    let policy = "round_robin,failover=true,outlier_ejection=true,max_ejection_percent=50,panic_threshold=50,\
                  success_rate_enforcement=0,failure_percentage_minimum_hosts=1";
    let mut stand = Stand::new(policy, levels());
    (0..4).for_each(|at| stand.answers(at, 0, 100));
    stand.pass(10 * SECOND);
    assert_eq!(stand.shares(80), [0, 0, 0, 0, 40, 40, 0, 0, 0]);
}
