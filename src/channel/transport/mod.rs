//! HTTP/2 on the `h2` crate: connections, what is sent on them, and what comes back.

mod body;
mod connection;
mod dial;
mod driver;
mod error;
mod heard;
mod keepalive;
mod security;
mod send;
mod streams;
mod window;

pub use self::keepalive::Keepalive;

pub(super) use self::{
    body::{InFlight, ResponseBody},
    connection::{Connection, ConnectionEvent, Stream},
    dial::Dialer,
    error::Failure,
    security::Security,
    send::{Exchange, Outgoing},
};
