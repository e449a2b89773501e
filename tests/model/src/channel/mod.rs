#[allow(dead_code, unreachable_pub, reason = "a model uses a part")]
#[path = "../../../../src/channel/cell.rs"]
mod cell;
#[allow(dead_code, unreachable_pub, reason = "a model uses a part")]
#[path = "../../../../src/channel/line.rs"]
pub(crate) mod line;
pub(crate) mod publishing;
pub(crate) mod transport;
