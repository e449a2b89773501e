//! The client's side: channels, and how they connect.

mod connect;

pub use self::connect::{Connector, Io, TcpConnector};
