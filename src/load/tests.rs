use super::*;

#[test]
fn what_a_server_reports_is_kept_with_its_age() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    drop(cell.start(now));
    assert_eq!(cell.reported(now), None);
    let second = Duration::from_secs(1);
    let latency = Some(Duration::from_millis(8));
    let queue = BriefReport { in_flight: Some(4.0), latency, ..BriefReport::default() };
    let (held, answered) = (cell.start(now), cell.start(now));
    answered.report(&queue, now);
    drop((held, answered));
    let near = |is: Duration, should| is.abs_diff(should) < Duration::from_micros(100);
    let reported = cell.reported(now + second).expect("it was");
    assert_eq!((reported.in_flight, reported.own), (Some(4.0), 1));
    assert!(near(reported.age, second) && reported.latency.is_some_and(|is| near(is, Duration::from_millis(8))));
    assert_eq!(reported.effort, None);
    assert_eq!((cell.queued(micros(now)).map(|queued| queued.others), cell.queued_before()), (Some(3.0), None));
    cell.report(&BriefReport { in_flight: Some(0.0), ..BriefReport::default() }, now + second);
    let (others, before) = cell.queued_before().expect("it had said something");
    assert!(others == 3.0 && (before - 1.0).abs() < 0.001);
    let busy = BriefReport { utilization: 0.5, requests_per_second: 100.0, ..BriefReport::default() };
    for at in [1, 11, 60] {
        cell.report(&busy, now + second * at);
    }
    // One that says nothing of it leaves it as it was.
    cell.report(&queue, now + second * 70);
    let effort = cell.reported(now + second * 71).and_then(|reported| reported.effort).expect("it was");
    assert_eq!((effort.utilization, effort.requests_per_second), (0.5, 100.0));
    assert_eq!((effort.age, effort.known_for), (second * 11, second * 70));
    // After a long silence it begins anew.
    cell.report(&busy, now + second * 300);
    let effort = cell.reported(now + second * 301).and_then(|reported| reported.effort).expect("it was");
    assert_eq!((effort.age, effort.known_for), (second, second));
}

#[test]
fn a_failure_counts_as_a_call_for_a_second_or_until_a_success() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let held = cell.start(now);
    for n in 1..=3 {
        cell.start(now).finish(Outcome::Failure, now);
        assert_eq!((cell.in_flight(), cell.busy(now)), (1, 1 + n));
    }
    let (then, later) = (now + Duration::from_millis(1_001), now + Duration::from_secs(2));
    assert_eq!(cell.busy(then), 1);
    cell.start(now).finish(Outcome::Failure, later);
    assert_eq!(cell.busy(later), 2, "what is long ago is forgotten");
    cell.start(now).finish(Outcome::Success, later);
    assert_eq!(cell.busy(later), 1);
    drop(held);
    assert_eq!((cell.busy(now), cell.succeeded(), cell.failed()), (0, 1, 4));
}

#[test]
fn a_deadline_that_passed_is_a_failure_that_sets_nobody_aside() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let late = now + Duration::from_secs(1);
    let standing = |after| cell.look(millis(micros(late + Duration::from_millis(after)))).1;
    cell.start(now).finish(Outcome::Success, now);
    cell.start(now).finish(Outcome::Late, late);
    let spared = (standing(1), standing(240), standing(760));
    assert_eq!(spared, (Standing::Spared, Standing::Spared, Standing::Good), "about half of what it was waited for");
    assert_eq!(cell.failed(), 1);
    assert!((cell.failures() - 0.5).abs() < 0.001 && cell.fails_now(micros(late)), "{}", cell.failures());
    cell.start(now).finish(Outcome::Failure, late);
    assert_eq!(standing(1), Standing::Aside);
}

#[test]
fn a_call_that_goes_well_changes_one_cache_line() {
    assert_eq!((std::mem::offset_of!(LoadCell, efforts), size_of::<LoadCell>()), (64, 128));
}
