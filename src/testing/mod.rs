//! What tests of services, and of registries of one's own, are made of.

pub mod net;
