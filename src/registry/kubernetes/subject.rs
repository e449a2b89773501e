//! What is listed and watched for a service.

use super::{
    Mode,
    client::Resource,
    codec::{LABEL_APP, check_label},
    slices::{Choice, Query},
};
use crate::{error::Result, instance::ServiceName};

/// Of one service.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Slices { service: ServiceName, query: Query, choice: Choice },
    Pods { service: ServiceName },
}

impl Subject {
    pub(super) fn new(mode: Mode, service: &ServiceName, choice: &Choice) -> Result<Self> {
        let service = service.clone();
        Ok(match mode {
            Mode::Slices => Self::Slices { query: Query::parse(&service)?, service, choice: choice.clone() },
            Mode::Pods => {
                check_label("service name", service.as_str())?;
                Self::Pods { service }
            }
        })
    }

    pub(super) fn resource(&self) -> Resource {
        match self {
            Self::Slices { .. } => Resource::EndpointSlices,
            Self::Pods { .. } => Resource::Pods,
        }
    }

    /// The namespace that the name says, if it does.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Slices { query, .. } => query.namespace.as_deref(),
            Self::Pods { .. } => None,
        }
    }

    pub(super) fn labels(&self) -> String {
        match self {
            Self::Slices { query, .. } => format!("kubernetes.io/service-name={}", query.service),
            Self::Pods { service } => format!("{LABEL_APP}={service}"),
        }
    }
}
