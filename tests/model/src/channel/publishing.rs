//! What is published reaches whoever waits.

use std::sync::Arc;

use loom::{future::block_on, thread};

use super::cell::Cell;
use crate::Model;

pub(crate) const MODELS: [Model; 1] = [("who waits sees what is published", who_waits_sees_what_is_published)];

/// Who waits misses no change, whenever it comes, and sees none twice or in another order.
fn who_waits_sees_what_is_published() {
    let cell = Arc::new(Cell::new(0));
    let waiting = [1, 2].map(|wanted| {
        let cell = cell.clone();
        thread::spawn(move || {
            let mut last = 0;
            block_on(cell.wait_for(|value| {
                assert!(**value >= last, "{value} after {last}");
                last = **value;
                (**value >= wanted).then_some(())
            }));
        })
    });
    cell.publish(1);
    thread::yield_now();
    cell.publish(2);
    waiting.into_iter().for_each(|waiting| waiting.join().expect("it saw it"));
    assert_eq!(**cell.load(), 2);
}
