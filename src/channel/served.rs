//! Who serves a call.

use std::sync::Arc;

use tonic::{Code, Status};

use super::probe::Probing;
use crate::{
    balance::Node,
    endpoint::Endpoint,
    error::{Error, Kind},
    instance::ServiceName,
};

/// The endpoint that serves a call, for its errors and as a balancer sees it. One count for all that it holds: calls on several
/// threads meet there.
#[derive(Debug, Clone)]
pub(super) struct Served(Arc<(ServiceName, Node, Arc<Probing>)>);

impl Served {
    pub(super) fn new(service: ServiceName, endpoint: Endpoint) -> Self {
        Self(Arc::new((service, Node::new(endpoint, Arc::default()), Arc::default())))
    }

    /// The same with a new description.
    pub(super) fn describe(&self, endpoint: Endpoint) -> Self {
        let (service, node, probing) = &*self.0;
        Self(Arc::new((service.clone(), Node::new(endpoint, node.load().clone()), probing.clone())))
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.1
    }

    pub(super) fn probing(&self) -> &Probing {
        &self.0.2
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        self.node().endpoint()
    }

    pub(super) fn status(&self, code: Code, why: &str) -> Status {
        Status::new(code, format!("{} at {}: {why}", self.0.0, self.endpoint()))
    }

    pub(super) fn failed(&self, error: Error) -> Status {
        error.context(format!("{} at {}", self.0.0, self.endpoint())).into()
    }

    pub(super) fn deadline_exceeded(&self) -> Status {
        self.failed(Error::new(Kind::DeadlineExceeded, "the deadline passed during the call"))
    }
}
