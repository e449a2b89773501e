//! What a server writes on its own behalf, without an allocation but the header's.

use std::time::Duration;

use base64::Engine as _;
use http::HeaderValue;

use super::{
    brief::{IN_FLIGHT, LATENCY, PROBES},
    header::BASE64,
    wire::{Sink, put_double, put_entry},
};

/// What a server's layer measures itself, for all reports.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) requests_per_second: f64,
    pub(crate) errors_per_second: f64,
    pub(crate) in_flight: f64,
    pub(crate) latency: Option<Duration>,
}

/// A report under construction.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl Message {
    /// For what is measured, and what the application says for its server and for a call.
    const ROOM: usize = 1024;

    pub(crate) fn new() -> Self {
        Self { bytes: [0; Self::ROOM], length: 0 }
    }

    /// Writes what was measured, in at most 96 bytes. What the application says itself comes behind, and counts.
    pub(crate) fn measured(&mut self, measured: &Measured) {
        put_double(self, 6, measured.requests_per_second);
        put_double(self, 7, measured.errors_per_second);
        put_entry(self, 8, IN_FLIGHT, measured.in_flight);
        if let Some(latency) = measured.latency {
            put_entry(self, 8, LATENCY, latency.as_secs_f64() * 1e3);
        }
    }

    /// Writes that probes are answered, for who says nothing else.
    pub(crate) fn answers_probes(&mut self) {
        put_entry(self, 8, PROBES, 1.0);
    }

    /// Appends what was encoded before.
    pub(crate) fn append(&mut self, encoded: &[u8]) {
        self.put(encoded);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The header's value; none if there is nothing to say.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        if self.length == 0 {
            return None;
        }
        let mut text = [0; Self::ROOM.div_ceil(3) * 4];
        let length = BASE64.encode_slice(self.bytes(), &mut text).ok()?;
        let mut value = HeaderValue::from_bytes(&text[..length]).ok()?;
        // It is another each time: kept out of HPACK's table, it drives nothing out of there.
        value.set_sensitive(true);
        Some(value)
    }
}

/// What finds no room is left out; who appends keeps to bounds that leave room for all.
impl Sink for Message {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }
}
