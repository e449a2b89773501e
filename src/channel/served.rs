//! Who serves a call.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::{
    endpoint::Endpoint,
    error::{Error, Kind},
    instance::ServiceName,
};

/// The endpoint that serves a call, for its errors. One count for all that it holds: calls on several
/// threads meet there.
#[derive(Debug, Clone)]
pub(super) struct Served(Arc<(ServiceName, Endpoint)>);

impl Served {
    pub(super) fn new(service: ServiceName, endpoint: Endpoint) -> Self {
        Self(Arc::new((service, endpoint)))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.1
    }

    pub(super) fn status(&self, code: Code, why: &str) -> Status {
        Status::new(code, format!("{} at {}: {why}", self.0.0, self.0.1))
    }

    pub(super) fn failed(&self, error: Error) -> Status {
        error.context(format!("{} at {}", self.0.0, self.0.1)).into()
    }

    pub(super) fn deadline_exceeded(&self) -> Status {
        self.failed(Error::new(Kind::DeadlineExceeded, "the deadline passed during the call"))
    }
}
