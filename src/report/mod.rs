//! What servers say of their load, after [ORCA](https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto).

mod brief;
mod header;
#[cfg(any(feature = "server", test))]
mod measured;
mod request;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use http::HeaderMap;

use self::wire::{Fields, Value, entry, put_double, put_entry};
pub(crate) use self::{
    header::{HEADER, brief},
    request::{ANNOUNCES, METHOD, PROBE, request},
};
#[cfg(any(feature = "server", test))]
pub(crate) use self::{
    measured::{Measured, Message},
    request::interval,
};

/// What a server says of its load, after ORCA. Zero is what was not said.
///
/// gRPC servers put it into the trailers of a response
/// ([A51](https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md)), or stream it out of band.
/// The channel reads what its policies need by itself; this is for those who want all.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The share of the processors that is in use; more than 1 where the server may use more than its own.
    pub cpu_utilization: f64,
    /// The share of the memory that is in use, from 0 to 1.
    pub memory_utilization: f64,
    /// How busy the application says it is: 1 is as busy as it should be. Balancers heed it before
    /// `cpu_utilization`.
    pub application_utilization: f64,
    /// Requests that the server takes in a second, of all its clients.
    pub requests_per_second: f64,
    /// Requests of these that fail.
    pub errors_per_second: f64,
    /// The utilization of other resources, from 0 to 1, by names of the application's own.
    pub utilization: BTreeMap<String, f64>,
    /// What this very request cost, by names of the application's own.
    pub request_cost: BTreeMap<String, f64>,
    /// What else the application reports.
    pub named_metrics: BTreeMap<String, f64>,
}

/// Of a report no more bytes are read.
pub(crate) const MAX_BYTES: usize = 4096;
/// Nobody reads it any more.
const OLD_RPS: u64 = 3;
/// Of each map of a report no more entries are kept.
const MAX_ENTRIES: usize = 64;

impl LoadReport {
    /// Reads a protobuf message; none if it is malformed, or longer than 4096 bytes.
    ///
    /// Numbers that are not finite, or below zero, are dropped, and so is what a map holds past its first 64
    /// entries.
    pub fn decode(message: &[u8]) -> Option<Self> {
        if message.len() > MAX_BYTES {
            return None;
        }
        let mut report = Self::default();
        let mut fields = Fields::new(message);
        for (field, value) in &mut fields {
            if let Some(scalar) = report.scalar(field) {
                let Value::Double(value) = value else { return None };
                *scalar = if is_sound(value) { value } else { 0.0 };
            } else if let Some(map) = report.map(field) {
                let Value::Bytes(message) = value else { return None };
                let (key, value) = entry(message)?;
                let key = std::str::from_utf8(key).ok()?;
                // Of two with one key the last counts.
                if !is_sound(value) {
                    map.remove(key);
                } else if map.len() < MAX_ENTRIES || map.contains_key(key) {
                    map.insert(key.to_owned(), value);
                }
            } else if field == OLD_RPS && !matches!(value, Value::Varint(_)) {
                return None;
            }
        }
        fields.is_sound().then_some(report)
    }

    /// Reads the report in a response's trailers, or in its head if that is all there is; none if there is none,
    /// or none that can be read.
    ///
    /// In tonic they are `response.metadata().clone().into_headers()` of a unary call, or `trailers` of a stream.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        header::message(headers.get(HEADER)?, Self::decode)
    }

    /// Writes the protobuf message.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        put_double(&mut message, 1, self.cpu_utilization);
        put_double(&mut message, 2, self.memory_utilization);
        for (field, map) in [(4, &self.request_cost), (5, &self.utilization)] {
            map.iter().for_each(|(key, value)| put_entry(&mut message, field, key, *value));
        }
        put_double(&mut message, 6, self.requests_per_second);
        put_double(&mut message, 7, self.errors_per_second);
        self.named_metrics.iter().for_each(|(key, value)| put_entry(&mut message, 8, key, *value));
        put_double(&mut message, 9, self.application_utilization);
        message
    }

    fn scalar(&mut self, field: u64) -> Option<&mut f64> {
        match field {
            1 => Some(&mut self.cpu_utilization),
            2 => Some(&mut self.memory_utilization),
            6 => Some(&mut self.requests_per_second),
            7 => Some(&mut self.errors_per_second),
            9 => Some(&mut self.application_utilization),
            _ => None,
        }
    }

    fn map(&mut self, field: u64) -> Option<&mut BTreeMap<String, f64>> {
        match field {
            4 => Some(&mut self.request_cost),
            5 => Some(&mut self.utilization),
            8 => Some(&mut self.named_metrics),
            _ => None,
        }
    }
}

/// Whether a number can be a load.
fn is_sound(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
