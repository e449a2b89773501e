//! What `build.rs` makes of `proto/etcd`.

#![allow(
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unnameable_types,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]

pub(super) mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub(super) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
