//! HTTP/2 on the `h2` crate: connections, what is sent on them, and what comes back.

mod body;
mod connection;
mod dial;
mod driver;
mod error;
mod head;
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
    head::foreign,
    security::Security,
    send::{Exchange, Outgoing},
};
