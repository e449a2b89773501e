//! What tests of programs and of registries need: feature `testing`.

pub mod conformance;
pub mod net;
mod registry;

pub use self::registry::{Counts, FakeRegistry, Fault, Operation};
