//! How one asks for reports out of band.

use std::time::Duration;

use super::wire::{put_bytes, put_integer};

/// The method that streams them.
pub(crate) const METHOD: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// The method that is answered at once, by an empty stream whose trailers carry a report.
pub(crate) const PROBE: &str = "/callsign.v1.Probes/Probe";

/// The header by which a probe announces a call: in how many microseconds it typically comes.
pub(crate) const ANNOUNCES: &str = "callsign-call-within-us";

/// Asks for a report so often.
pub(crate) fn request(interval: Duration) -> Vec<u8> {
    let (mut duration, mut message) = (Vec::new(), Vec::new());
    put_integer(&mut duration, 1, interval.as_secs());
    put_integer(&mut duration, 2, interval.subsec_nanos().into());
    put_bytes(&mut message, 1, &duration);
    message
}

/// How often reports are asked for; none if that is left open, or below zero, or malformed.
#[cfg(any(feature = "server", test))]
pub(crate) fn interval(message: &[u8]) -> Option<Duration> {
    use super::wire::{Fields, Value};

    let value = Fields::new(message).filter(|field| field.0 == 1).last()?.1;
    let Value::Bytes(duration) = value else { return None };
    let (mut seconds, mut nanos) = (0, 0);
    for (field, value) in Fields::new(duration) {
        match (field, value) {
            (1, Value::Varint(value)) => seconds = value,
            (2, Value::Varint(value)) => nanos = value,
            _ => {}
        }
    }
    let sound = i64::try_from(seconds).is_ok() && nanos < 1_000_000_000;
    sound.then(|| Duration::new(seconds, nanos as u32))
}
