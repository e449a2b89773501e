#![doc = include_str!("../README.md")]

mod endpoint;
mod error;
mod instance;
mod target;
mod util;

pub mod balance;
pub mod bridge;
pub mod channel;
pub mod filter;
#[cfg(doc)]
pub mod guide;
pub mod load;
pub mod observe;
pub mod registry;
pub mod report;
pub mod resolver;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;

#[cfg(feature = "server")]
pub use self::server::{Registration, Server, shutdown_signal};
pub use self::{
    channel::{Channel, ChannelBuilder},
    endpoint::{Endpoint, EndpointKey},
    error::{Error, Kind, Result},
    instance::{Address, InstanceBuilder, InstanceId, Locality, Scheme, ServiceInstance, ServiceName, Status},
    registry::{BoxFuture, Registry, open as registry},
    target::{RegistryUri, Target},
    util::backoff::BackoffConfig,
};
