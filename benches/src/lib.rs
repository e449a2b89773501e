//! What the benchmarks share: an echo server as small as can be, the clients, counters, and the simulation.

pub mod awake;
pub mod clients;
pub mod counter;
pub mod echo;
pub mod raw;
pub mod simulation;
pub mod table;
pub mod together;
pub mod valgrind;
