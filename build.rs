//! Compiles `proto/` in Rust, so that nobody needs `protoc`.

use std::error::Error;

const PROTOS: &[&str] = &["echo/v1/echo.proto", "grpc/testing/test.proto", "helloworld/helloworld.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
