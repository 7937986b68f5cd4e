//! What the archives are.

use super::*;

fn image() -> Image {
    Image::new("localhost/weft/weft-proxy:dev")
        .file("/bin/weft-proxy", b"program".as_slice(), 0o755)
        .user(2102)
}

fn bytes(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(bytes(&image()), bytes(&image()));
    assert_ne!(bytes(&image()), bytes(&image().label("changed", "yes")));
}

/// What the system's tar finds in an archive, or in the one file of it that is named.
fn tar(arguments: &[&str], archive: &[u8]) -> Vec<u8> {
    let mut command = std::process::Command::new("tar");
    let output = crate::program::fed(command.args(arguments), archive).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn part_of(archive: &[u8], path: &str) -> Value {
    serde_json::from_slice(&tar(&["--extract", "--to-stdout", "--file=-", path], archive)).unwrap()
}

fn blob_of(archive: &[u8], described: &Value) -> Vec<u8> {
    let hash = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = tar(&["--extract", "--to-stdout", "--file=-", &format!("blobs/sha256/{hash}")], archive);
    assert_eq!(described["size"], content.len());
    assert_eq!(Blob::new(content.clone()).hash, hash);
    content
}

#[test]
fn every_blob_is_what_its_name_says_from_the_index_down_to_the_file() {
    let archive = bytes(&image().entry_point(&["/bin/weft-proxy"]).label("a", "b"));
    let index = part_of(&archive, "index.json");
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "dev");
    let manifest: Value = serde_json::from_slice(&blob_of(&archive, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&blob_of(&archive, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["User"], "2102:2102");
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/weft-proxy"]));
    assert_eq!(config["config"]["Labels"], json!({"a": "b"}));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let layer = blob_of(&archive, &manifest["layers"][0]);
    let listed = tar(&["--list", "--verbose", "--numeric-owner", "--utc", "--file=-"], &layer);
    let listed = String::from_utf8(listed).unwrap();
    let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["drwxr-xr-x", "0/0", "0", "1970-01-01", "00:00", "bin/"]);
    assert_eq!(words[1], ["-rwxr-xr-x", "0/0", "7", "1970-01-01", "00:00", "bin/weft-proxy"]);
}

#[test]
fn the_older_manifest_names_the_same_blobs() {
    let archive = bytes(&image());
    let older = part_of(&archive, "manifest.json");
    assert_eq!(older[0]["RepoTags"], json!(["localhost/weft/weft-proxy:dev"]));
    let layer = older[0]["Layers"][0].as_str().unwrap();
    assert!(!tar(&["--extract", "--to-stdout", "--file=-", layer], &archive).is_empty());
}

#[test]
fn a_name_without_a_tag_is_the_latest() {
    for (reference, tag) in [("localhost:5000/a", "latest"), ("a:1", "1"), ("localhost:5000/a:2", "2")] {
        assert_eq!(Image::new(reference).tag(), tag, "{reference}");
    }
}
