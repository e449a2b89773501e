#[allow(dead_code, unreachable_pub, reason = "a model uses a part")]
#[path = "../../../../../src/channel/transport/streams.rs"]
mod streams;
pub(crate) mod waiting;
