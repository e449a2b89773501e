//! What the application says of its own load.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::report::LoadReport;

/// What the application says of its server's load, for every report from then on. Clones are the same.
///
/// What is not finite, or below zero, is not taken; each function tells whether it was. All names and numbers
/// together have room for 512 bytes, which is some 20 metrics.
#[derive(Clone, Default)]
pub struct Metrics(Arc<State>);

#[derive(Default)]
struct State {
    report: Mutex<LoadReport>,
    encoded: ArcSwap<Vec<u8>>,
}

/// What the application says of one request, in the request's extensions where the layer
/// [puts one there](super::RegistrationLayer::call_metrics); it goes into that response's report alone, and counts
/// before what the [`Metrics`] say. Clones are the same.
///
/// What is not finite, or below zero, is not taken; each function tells whether it was. All names and numbers
/// together have room for 384 bytes.
///
/// ```
/// use callsign::server::CallMetrics;
///
/// fn handle<T>(request: &tonic::Request<T>) {
///     if let Some(metrics) = request.extensions().get::<CallMetrics>() {
///         metrics.set_request_cost("rows", 1_200.0);
///     }
/// }
/// ```
#[derive(Clone, Default)]
pub struct CallMetrics(Arc<Mutex<LoadReport>>);

const ROOM: usize = 512;
const CALL_ROOM: usize = 384;

/// Changes a report, unless it would grow out of its room, and hands on its new message under the lock.
fn change(
    report: &Mutex<LoadReport>,
    room: usize,
    value: f64,
    change: impl FnOnce(&mut LoadReport),
    encoded: impl FnOnce(Vec<u8>),
) -> bool {
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    let mut changed = report.clone();
    change(&mut changed);
    let message = changed.encode();
    let taken = value.is_finite() && value >= 0.0 && message.len() <= room;
    if taken {
        *report = changed;
        encoded(message);
    }
    taken
}

fn set(map: &mut BTreeMap<String, f64>, name: &str, value: f64) {
    map.insert(name.to_owned(), value);
}

macro_rules! setters {
    ($of:ident) => {
        impl $of {
            /// Sets the share of the processors that is in use: more than 1 where the server may use more than its
            /// own.
            pub fn set_cpu_utilization(&self, share: f64) -> bool {
                self.change(share, |report| report.cpu_utilization = share)
            }

            /// Sets the share of the memory that is in use, from 0 to 1.
            pub fn set_memory_utilization(&self, share: f64) -> bool {
                self.change(share, |report| report.memory_utilization = share)
            }

            /// Sets how busy the application is: 1 is as busy as it should be. Balancers heed it before the
            /// processors'.
            pub fn set_application_utilization(&self, share: f64) -> bool {
                self.change(share, |report| report.application_utilization = share)
            }

            /// Sets the utilization of something else, from 0 to 1.
            pub fn set_utilization(&self, name: &str, share: f64) -> bool {
                self.change(share, |report| set(&mut report.utilization, name, share))
            }

            /// Sets whatever else there is to say.
            pub fn set_named_metric(&self, name: &str, value: f64) -> bool {
                self.change(value, |report| set(&mut report.named_metrics, name, value))
            }
        }

        impl fmt::Debug for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($of)).field(&self.report()).finish()
            }
        }
    };
}

setters!(Metrics);
setters!(CallMetrics);

impl Metrics {
    fn change(&self, value: f64, how: impl FnOnce(&mut LoadReport)) -> bool {
        change(&self.0.report, ROOM, value, how, |message| self.0.encoded.store(Arc::new(message)))
    }

    /// Takes out the utilization of something else.
    pub fn remove_utilization(&self, name: &str) {
        self.change(0.0, |report| {
            report.utilization.remove(name);
        });
    }

    /// Takes out a named metric.
    pub fn remove_named_metric(&self, name: &str) {
        self.change(0.0, |report| {
            report.named_metrics.remove(name);
        });
    }

    /// What was said.
    pub fn report(&self) -> LoadReport {
        self.0.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same as a message.
    pub(super) fn with_encoded<T>(&self, with: impl FnOnce(&[u8]) -> T) -> T {
        with(&self.0.encoded.load())
    }
}

impl CallMetrics {
    fn change(&self, value: f64, how: impl FnOnce(&mut LoadReport)) -> bool {
        change(&self.0, CALL_ROOM, value, how, drop)
    }

    /// Sets what this request cost.
    pub fn set_request_cost(&self, name: &str, cost: f64) -> bool {
        self.change(cost, |report| set(&mut report.request_cost, name, cost))
    }

    /// What was said.
    pub fn report(&self) -> LoadReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
