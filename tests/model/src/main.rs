//! The files of callsign that threads share, built with loom's atomics, and checked in every order in
//! which threads can meet: `cargo run -p callsign-model`.
//!
//! Locks and wakers of tokio's, and arc-swap's pointer, are single steps here: they are checked where
//! they come from.

#[allow(dead_code, unreachable_pub, reason = "a model uses a part")]
#[path = "../../../src/error.rs"]
mod error;

#[allow(dead_code, unreachable_pub, unused_imports, reason = "a model uses a part")]
#[path = "../../../src/load/mod.rs"]
mod load;

mod atomic;

#[allow(dead_code, reason = "a model uses a part")]
#[path = "../../../src/util/mix.rs"]
mod mix;
#[path = "../../../src/util/pair.rs"]
mod pair;

mod util {
    pub(crate) use crate::{mix, pair};

    pub(crate) mod sync {
        pub(crate) use std::sync::{Arc, OnceLock};

        pub(crate) use crate::atomic;
    }
}

mod channel;
mod counting;

fn main() {
    let models =
        counting::MODELS.iter().chain(&channel::publishing::MODELS).chain(&channel::transport::waiting::MODELS);
    for (name, check) in models {
        // Loom ends the process where one fails.
        println!("{name}");
        model(check);
    }
}

type Model = (&'static str, fn());

/// Checks every order in which no more than two threads are stopped where they did not wait: few
/// faults need more ([Musuvathi and Qadeer, 2007](https://dl.acm.org/doi/10.1145/1250734.1250785)), and
/// all orders of three threads are too many.
fn model(check: &'static fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}
