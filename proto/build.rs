//! Compiles the contract with protox: no protoc on the machine that builds.
#![allow(missing_docs)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "weft/v1/config.proto",
        "weft/v1/discovery.proto",
        "weft/v1/explain.proto",
        "weft/v1/identity.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
