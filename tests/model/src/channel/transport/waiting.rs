//! Calls that wait for a stream. A call that is forgotten here waits for ever, which the model tells.

use std::sync::Arc;

use loom::{future::block_on, thread};

use super::streams::Streams;
use crate::{Model, channel::line::Line};

pub(crate) const MODELS: [Model; 5] = [
    ("who waits gets the stream that is freed", who_waits_gets_the_stream_that_is_freed),
    ("one that comes anew takes nothing from who waits", one_that_comes_anew_takes_nothing_from_who_waits),
    ("a stream is passed on along the line", a_stream_is_passed_on_along_the_line),
    ("a server that allows more is noticed", a_server_that_allows_more_is_noticed),
    ("nothing opens on a connection that has ended", nothing_opens_on_a_connection_that_has_ended),
];

fn streams(limit: usize) -> (Arc<Streams>, Arc<Line>) {
    let line = Arc::new(Line::default());
    let streams = Arc::new(Streams::new(line.clone()));
    streams.allow(limit);
    (streams, line)
}

/// As a call does that found every stream taken.
async fn wait(streams: &Streams, line: &Line) {
    let place = line.join().await;
    while !streams.open(true) {
        place.freed().await;
    }
}

fn who_waits_gets_the_stream_that_is_freed() {
    let (streams, line) = streams(1);
    assert!(streams.open(false));
    let (of, other) = (streams.clone(), line.clone());
    let waiting = thread::spawn(move || block_on(wait(&of, &other)));
    streams.close();
    waiting.join().expect("it got one");
    assert!(!streams.is_unused() && !streams.open(true), "the limit holds");
}

fn one_that_comes_anew_takes_nothing_from_who_waits() {
    let (streams, line) = streams(1);
    assert!(streams.open(false));
    let (of, other) = (streams.clone(), line.clone());
    let waiting = thread::spawn(move || {
        block_on(wait(&of, &other));
        of.close();
    });
    let of = streams.clone();
    let anew = thread::spawn(move || {
        if of.open(false) {
            of.close();
        }
    });
    streams.close();
    waiting.join().expect("it got one");
    anew.join().expect("it went on");
    assert!(streams.is_unused());
}

fn a_stream_is_passed_on_along_the_line() {
    let (streams, line) = streams(1);
    assert!(streams.open(false));
    let waiting = [(); 2].map(|()| {
        let (streams, line) = (streams.clone(), line.clone());
        thread::spawn(move || {
            block_on(wait(&streams, &line));
            streams.close();
        })
    });
    streams.close();
    waiting.into_iter().for_each(|waiting| waiting.join().expect("it got one"));
    assert!(streams.is_unused());
}

fn a_server_that_allows_more_is_noticed() {
    let (streams, line) = streams(1);
    assert!(streams.open(false));
    let (of, other) = (streams.clone(), line.clone());
    let waiting = thread::spawn(move || block_on(wait(&of, &other)));
    streams.allow(2);
    waiting.join().expect("it got one");
}

fn nothing_opens_on_a_connection_that_has_ended() {
    let (streams, _) = streams(8);
    let of = streams.clone();
    let call = thread::spawn(move || of.open(false).then(|| of.close()));
    streams.end(None);
    assert!(!streams.open(false) && !streams.open(true));
    call.join().expect("it went on");
    assert!(streams.is_unused());
}
