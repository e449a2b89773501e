//! Whatever a registry holds: no record may panic, or be taken in beyond the bounds.
//!
//! `cargo fuzz run records`, with seeds in `fuzz/corpus/records`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| callsign::registry::fuzzing::read_anything(bytes));
