//! Compiles the contract with protox: no protoc on the machine that builds.
#![allow(missing_docs)]

/// What is also written and read as JSON: the API server speaks nothing else.
const AS_JSON: [&str; 2] = ["weft/v1/explain.proto", "weft/v1/observe.proto"];
/// And messages of other files that they consist of.
const PARTS: [&str; 2] = ["Field", "Origin"];

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
    let messages = descriptors.file.iter().flat_map(|file| {
        let whole = AS_JSON.contains(&file.name());
        file.message_type.iter().filter(move |message| whole || PARTS.contains(&message.name()))
    });
    for message in messages {
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
    builder.compile_fds(descriptors)?;
    Ok(())
}
