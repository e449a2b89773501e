//! What the benchmarks share: an echo server as small as can be, and counters.

pub mod counter;
pub mod echo;
pub mod raw;
