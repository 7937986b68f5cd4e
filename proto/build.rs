//! Compiles the contract with protox: no protoc on the machine that builds.
#![allow(missing_docs)]

/// What is also written and read as JSON: the API server speaks nothing else.
const AS_JSON: [&str; 2] = ["weft/v1/explain.proto", "weft/v1/observe.proto"];
/// What these are made of.
const PARTS: [&str; 2] = [".weft.v1.Field", ".weft.v1.Origin"];

const DERIVE: &str = "#[derive(serde::Serialize, serde::Deserialize)]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "weft/v1/config.proto",
        "weft/v1/discovery.proto",
        "weft/v1/explain.proto",
        "weft/v1/identity.proto",
        "weft/v1/observe.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let mut builder = tonic_prost_build::configure().bytes(".");
    let as_json = descriptors.file.iter().filter(|file| AS_JSON.contains(&file.name()));
    for message in as_json.flat_map(|file| &file.message_type) {
        let path = format!(".weft.v1.{}", message.name());
        builder = builder
            .message_attribute(&path, DERIVE)
            .message_attribute(&path, "#[serde(default, rename_all = \"camelCase\")]");
        for one in &message.oneof_decl {
            let path = format!("{path}.{}", one.name());
            builder = builder
                .enum_attribute(&path, DERIVE)
                .enum_attribute(&path, "#[serde(rename_all = \"camelCase\")]");
        }
    }
    for path in PARTS {
        builder = builder
            .message_attribute(path, DERIVE)
            .message_attribute(path, "#[serde(default, rename_all = \"camelCase\")]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
