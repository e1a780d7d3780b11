//! Compiles `proto/` without protoc.

use std::path::PathBuf;

const FILES: [&str; 3] = [
    "clientele/v1/work.proto",
    "clientele/v1/stage.proto",
    "clientele/v1/jobs.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    // With comments, which become the documentation of the generated types; who asks for reflection gets none.
    let descriptors = protox::compile(FILES, [&root])?;
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, prost::Message::encode_to_vec(&bare))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
