//! HTTP/2 on the `h2` crate: connections, what is sent on them, and what comes back.

mod body;
mod connection;
mod error;
mod send;

pub(super) use self::{
    body::{InFlight, ResponseBody},
    connection::{Connection, ConnectionEvent, Dialer},
    error::Failure,
    send::{Exchange, Outgoing},
};
