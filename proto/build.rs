//! Compiles the .proto files with a compiler written in Rust; no protoc and no cmake are needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=fleet/v1");
    let files = [
        "fleet/v1/certificate.proto",
        "fleet/v1/enrol.proto",
        "fleet/v1/agent.proto",
        "fleet/v1/local.proto",
        "fleet/v1/operator.proto",
    ];
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
