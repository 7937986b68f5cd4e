//! Images without a builder: a few files, an entry point and a user, written as one archive.
//!
//! The archive is an OCI image layout in a tar file, with the older `manifest.json` beside it, so that
//! containerd, Docker, Podman and skopeo all read it.
//!
//! Invariant: the same input gives the same bytes: sorted entries, no time, no owner but root.
//! Invariant: there is nothing in an image but what was put in: no shell, no libraries, no other user.

mod tar;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use tar::Archive;

/// An image in the making.
#[derive(Debug, Clone)]
pub struct Image {
    reference: String,
    entries: BTreeMap<String, Entry>,
    config: BTreeMap<&'static str, Value>,
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    /// `None` is a folder.
    content: Option<Vec<u8>>,
}

impl Image {
    /// An empty one with the name by which pods ask for it: `localhost/weft/weft-proxy:dev`.
    pub fn new(reference: &str) -> Self {
        Self { reference: reference.to_owned(), entries: BTreeMap::new(), config: BTreeMap::new() }
    }

    /// The name by which pods ask for it.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Puts a program in, from a file here to a path there.
    ///
    /// # Errors
    /// What reading the file says.
    pub fn program(self, path: &str, from: &Path) -> io::Result<Self> {
        let content = std::fs::read(from)?;
        Ok(self.file(path, content, 0o755))
    }

    /// Puts a file in.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.entry(path, Entry { mode, content: Some(content.into()) })
    }

    /// Puts an empty folder in.
    #[must_use]
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(path, Entry { mode, content: None })
    }

    fn entry(mut self, path: &str, entry: Entry) -> Self {
        self.entries.insert(path.trim_matches('/').to_owned(), entry);
        self
    }

    /// What runs when a pod says nothing else.
    #[must_use]
    pub fn entry_point(mut self, words: &[&str]) -> Self {
        self.config.insert("Entrypoint", json!(words));
        self
    }

    /// The user and group it runs as when a pod says nothing else.
    #[must_use]
    pub fn user(mut self, id: u32) -> Self {
        self.config.insert("User", json!(format!("{id}:{id}")));
        self
    }

    /// Where programs are looked for.
    #[must_use]
    pub fn search_path(mut self, path: &str) -> Self {
        self.config.insert("Env", json!([format!("PATH={path}")]));
        self
    }

    /// Marks it with a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        let labels = self.config.entry("Labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(key.to_owned(), json!(value));
        }
        self
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// What writing says; a path too long for the archive's format.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let layer = Blob::new(self.layer()?);
        let config = Blob::json(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
            "history": [{"created_by": "weft-dev"}],
        }))?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.described("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.described("application/vnd.oci.image.layer.v1.tar")],
        }))?;
        let mut entry = manifest.described(MANIFEST);
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.tag(),
        });
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
        let older = json!([{
            "Config": config.path(), "RepoTags": [self.reference], "Layers": [layer.path()],
        }]);
        let mut archive = Archive::new(to);
        for blob in [&config, &layer, &manifest] {
            archive.file(&blob.path(), &blob.content, 0o644)?;
        }
        archive.file("index.json", &serde_json::to_vec(&index)?, 0o644)?;
        archive.file("manifest.json", &serde_json::to_vec(&older)?, 0o644)?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        archive.finish()
    }

    /// [`write`](Self::write) to a file, which is complete when it is there.
    ///
    /// # Errors
    /// What writing says.
    pub fn save(&self, to: &Path) -> io::Result<()> {
        let unfinished = to.with_extension(format!("{}.unfinished", std::process::id()));
        let mut file = io::BufWriter::new(std::fs::File::create(&unfinished)?);
        self.write(&mut file)?;
        file.flush()?;
        std::fs::rename(unfinished, to)
    }

    fn tag(&self) -> &str {
        let name = self.reference.rsplit('/').next().unwrap_or_default();
        name.split_once(':').map_or("latest", |(_, tag)| tag)
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut entries: BTreeMap<&str, &Entry> = BTreeMap::new();
        let folder = Entry { mode: 0o755, content: None };
        for path in self.entries.keys() {
            for (at, _) in path.match_indices('/') {
                entries.insert(path.get(..at).unwrap_or_default(), &folder);
            }
        }
        entries.extend(self.entries.iter().map(|(path, entry)| (path.as_str(), entry)));
        let mut layer = Vec::new();
        let mut archive = Archive::new(&mut layer);
        for (path, entry) in entries {
            match &entry.content {
                Some(content) => archive.file(path, content, entry.mode)?,
                None => archive.folder(path, entry.mode)?,
            }
        }
        archive.finish()?;
        Ok(layer)
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Go's name for this machine's processor, which is what images carry.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A piece of content, known by its hash.
struct Blob {
    content: Vec<u8>,
    hash: String,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        let hash = digest::digest(&digest::SHA256, &content);
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { content, hash }
    }

    fn json(value: &Value) -> io::Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hash)
    }

    fn described(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": self.digest(), "size": self.content.len()})
    }
}

#[cfg(test)]
mod tests;
