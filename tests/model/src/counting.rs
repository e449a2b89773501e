//! What calls on several threads count.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom::thread;

use crate::{
    Model,
    load::{BriefReport, LoadCell, Outcome, Standing, micros, millis},
};

pub(crate) const MODELS: [Model; 5] = [
    ("counts return to zero and no end of a call is lost", counts_return_to_zero_and_no_end_of_a_call_is_lost),
    ("failures on two threads count as one at least", failures_on_two_threads_count_as_one_at_least),
    ("of two answers at once the slower one stays", of_two_answers_at_once_the_slower_one_stays),
    ("who fails is set aside, and no call is miscounted", who_fails_is_set_aside_and_no_call_is_miscounted),
    ("what a server reports together is read together", what_a_server_reports_together_is_read_together),
];

fn counts_return_to_zero_and_no_end_of_a_call_is_lost() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let calls = [Outcome::Success, Outcome::Failure].map(|outcome| {
        let cell = cell.clone();
        thread::spawn(move || {
            let guard = cell.start(now);
            // Each sees itself, and of the other no more than a call and a failure.
            assert!((1..=3).contains(&cell.busy(now)));
            guard.finish(outcome, now);
            drop(cell.start(now));
        })
    });
    calls.into_iter().for_each(|call| call.join().expect("it ended"));
    assert_eq!((cell.in_flight(), cell.succeeded(), cell.failed()), (0, 1, 1));
    assert!(cell.busy(now) <= 1, "the failure, unless the success came after it");
    assert_eq!(cell.busy(now + Duration::from_secs(1)), 0);
}

fn failures_on_two_threads_count_as_one_at_least() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let other = cell.clone();
    let call = thread::spawn(move || other.start(now).finish(Outcome::Failure, now));
    cell.start(now).finish(Outcome::Failure, now);
    call.join().expect("it ended");
    assert!((1..=2).contains(&cell.busy(now)));
    assert_eq!((cell.in_flight(), cell.failed()), (0, 2));
}

fn of_two_answers_at_once_the_slower_one_stays() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let calls = [5, 50].map(|millis| {
        let cell = cell.clone();
        thread::spawn(move || {
            cell.start(now).finish(Outcome::Success, now + Duration::from_millis(millis));
        })
    });
    calls.into_iter().for_each(|call| call.join().expect("it ended"));
    let latency = cell.peak_latency(now + Duration::from_millis(50));
    assert!(latency > Duration::from_millis(49), "{latency:?}");
}

fn who_fails_is_set_aside_and_no_call_is_miscounted() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let calls = [Outcome::Failure, Outcome::Overload].map(|outcome| {
        let cell = cell.clone();
        thread::spawn(move || cell.start(now).finish(outcome, now))
    });
    calls.into_iter().for_each(|call| call.join().expect("it ended"));
    let at = millis(micros(now + Duration::from_millis(500)));
    assert_eq!(cell.look(at), (0, Standing::Aside), "being spared takes nothing back");
    assert!(cell.failures() > 0.0);
}

fn what_a_server_reports_together_is_read_together() {
    let (cell, now) = (Arc::new(LoadCell::default()), Instant::now());
    let report = |count: u32| BriefReport {
        in_flight: Some(count.into()),
        latency: Some(Duration::from_secs(count.into())),
        utilization: count.into(),
        requests_per_second: count.into(),
        ..BriefReport::default()
    };
    cell.report(&report(1), now);
    let calls = [2, 3].map(|count| {
        let cell = cell.clone();
        thread::spawn(move || cell.report(&report(count), now))
    });
    let reported = cell.reported(now).expect("one was before");
    let latency = reported.latency.map(|latency| latency.as_secs_f32());
    assert_eq!(reported.in_flight, latency);
    let effort = reported.effort.expect("one was before");
    assert_eq!(effort.utilization, effort.requests_per_second);
    calls.into_iter().for_each(|call| call.join().expect("it ended"));
}
