//! Simulated fleets: the crate's own balancers and load cells, in virtual time.
//!
//! `docs/simulation.md` says what a scenario may be and what the figures mean. Whatever the crate
//! decides in a channel it decides here: a client is a [`Balancer`](callsign::balance::Balancer)
//! with its [`LoadCell`](callsign::load::LoadCell)s; around it everything is made up.

pub mod arrivals;
pub mod beside;
pub mod calls;
mod central;
mod changes;
pub mod check;
pub mod client;
pub mod condition;
pub mod histogram;
mod meter;
pub mod model;
pub mod oracle;
pub mod picture;
pub mod probing;
pub mod queue;
pub mod random;
pub mod report;
pub mod rng;
pub mod scale;
pub mod scenario;
pub mod server;
pub mod table;
pub mod tally;
pub mod targets;
pub mod validate;
