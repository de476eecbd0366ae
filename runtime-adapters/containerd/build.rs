//! Compiles our part of containerd's API without protoc: `protox` reads the .proto files in Rust.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "containers",
        "content",
        "diff",
        "events",
        "images",
        "leases",
        "namespaces",
        "snapshots",
        "tasks",
        "transfer",
        "types",
        "version",
    ];
    let files = files.map(|name| format!("proto/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .btree_map(".")
        .include_file("api.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
