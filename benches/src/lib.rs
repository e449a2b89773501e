//! What the benchmarks share: an echo server as small as can be, the clients, and counters.

pub mod awake;
pub mod clients;
pub mod counter;
pub mod echo;
pub mod raw;
pub mod table;
