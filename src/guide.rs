//! How to use it, a page a subject.

#[doc = include_str!("../docs/targets.md")]
pub mod targets {}

#[doc = include_str!("../docs/registries.md")]
pub mod registries {}

#[cfg(feature = "consul")]
#[doc = include_str!("../docs/consul.md")]
pub mod consul {}

#[cfg(feature = "zookeeper")]
#[doc = include_str!("../docs/zookeeper.md")]
pub mod zookeeper {}

#[cfg(feature = "kubernetes")]
#[doc = include_str!("../docs/kubernetes.md")]
pub mod kubernetes {}

#[cfg(feature = "etcd")]
#[doc = include_str!("../docs/etcd.md")]
pub mod etcd {}

#[doc = include_str!("../docs/writing_a_registry.md")]
pub mod writing_a_registry {}

#[doc = include_str!("../docs/channel.md")]
pub mod channel {}

#[doc = include_str!("../docs/where_the_time_goes.md")]
pub mod where_the_time_goes {}

#[doc = include_str!("../docs/balancing.md")]
pub mod balancing {}

#[doc = include_str!("../docs/which_policy.md")]
#[doc = ""]
#[doc = include_str!("../docs/policies.svg")]
pub mod which_policy {}

#[doc = include_str!("../docs/how_adaptive_works.md")]
pub mod how_adaptive_works {}

#[doc = include_str!("../docs/simulation.md")]
pub mod simulation {}

#[cfg(feature = "server")]
#[doc = include_str!("../docs/server_side.md")]
pub mod server_side {}

#[cfg(feature = "tonic-channel")]
#[doc = include_str!("../docs/migrating.md")]
pub mod migrating {}
