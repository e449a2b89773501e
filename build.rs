//! Compiles `proto/` in Rust, so that nobody needs `protoc`.

use std::error::Error;

const PROTOS: &[&str] = &[
    "echo/v1/echo.proto",
    "grpc/testing/test.proto",
    "helloworld/helloworld.proto",
    // The library reads and writes these by hand; its tests compare.
    "xds/data/orca/v3/orca_load_report.proto",
    "xds/service/orca/v3/orca.proto",
];

/// What the library itself calls: clients for its own channel, without tonic's transport.
const CALLED: &[&str] = &["etcd/mvccpb/kv.proto", "etcd/etcdserverpb/rpc.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(protox::compile(PROTOS, ["proto"])?)?;
    let called = protox::compile(CALLED, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(called)?;
    Ok(())
}
