//! The part of a report that balancing needs, read and written without a map.

use std::time::Duration;

use super::{
    LoadReport, MAX_BYTES, is_sound,
    wire::{Fields, Value, entry},
};
use crate::load::BriefReport;

/// The requests in flight at a server, as its own layer counts them: those of all clients, without the one that
/// carries the report.
pub(super) const IN_FLIGHT: &str = "callsign.in_flight";
/// How many milliseconds the server takes to answer with about as many in flight: a median.
pub(super) const LATENCY: &str = "callsign.latency_ms";
/// That probes are answered, where nothing else is said.
pub(super) const PROBES: &str = "callsign.probes";

impl BriefReport {
    /// Reads a protobuf message, passing over all else; none if it is malformed or longer than 4096 bytes.
    pub fn decode(message: &[u8]) -> Option<Self> {
        if message.len() > MAX_BYTES {
            return None;
        }
        let mut brief = Self::default();
        let (mut cpu, mut application) = (0.0, 0.0);
        let mut fields = Fields::new(message);
        for (field, value) in &mut fields {
            let scalar = match (field, value) {
                (1, _) => &mut cpu,
                (6, _) => &mut brief.requests_per_second,
                (7, _) => &mut brief.errors_per_second,
                (9, _) => &mut application,
                (8, Value::Bytes(message)) => {
                    let (key, value) = entry(message)?;
                    brief.named(key, value);
                    continue;
                }
                (8, _) => return None,
                _ => continue,
            };
            let Value::Double(value) = value else { return None };
            *scalar = if is_sound(value) { value } else { 0.0 };
        }
        brief.utilization = if application > 0.0 { application } else { cpu };
        fields.is_sound().then_some(brief)
    }

    fn named(&mut self, key: &[u8], value: f64) {
        let value = Some(value).filter(|value| is_sound(*value));
        if key == IN_FLIGHT.as_bytes() {
            self.in_flight = value;
        } else if key == PROBES.as_bytes() {
            self.answers_probes = value.is_some_and(|value| value > 0.0);
        } else if key == LATENCY.as_bytes() {
            self.latency = value.and_then(|value| Duration::try_from_secs_f64(value / 1e3).ok());
        }
    }
}

impl From<&LoadReport> for BriefReport {
    fn from(report: &LoadReport) -> Self {
        let mut brief = Self {
            requests_per_second: report.requests_per_second,
            errors_per_second: report.errors_per_second,
            ..Self::default()
        };
        let (application, cpu) = (report.application_utilization, report.cpu_utilization);
        brief.utilization = if application > 0.0 { application } else { cpu };
        for (key, value) in &report.named_metrics {
            brief.named(key.as_bytes(), *value);
        }
        brief
    }
}
