//! The last good configuration on disk, so that a sidecar starts while no control plane answers.
//!
//! Written by *subscribe* after an epoch, at most once a second; read once, at the start.
//!
//! ```text
//! "weft-last-good 1\n" · SHA-256 of what follows · Hello (whose it is) · Epoch (what it holds)
//! ```
//!
//! Invariant: never a key or a token: only resources, as they travelled.
//! Invariant: a file is whole or ignored; what is ignored is said.
//! Invariant: the folder never holds more than two files of the largest size: where a limit is set, who
//! exceeds it loses the pod. The roots are kept whatever the size.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use bytes::{Buf, Bytes};
use prost::Message;
use tokio::sync::watch;
use weft_proto::names::Workload;
use weft_proto::v1;

/// First line of the file; the number is the format's.
const MARK: &[u8] = b"weft-last-good 1\n";
/// Name of the file in the state directory.
const FILE: &str = "last-good";
/// Largest file, written or read. Source: the injector's volume holds 32 MiB, and while a file is
/// replaced there are two.
const MAX_FILE: usize = 15 << 20;
/// Least time between two writes. Source: bounds what a burst of edits costs the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the last good configuration of one workload stands.
#[derive(Debug, Clone)]
pub struct Hold {
    path: PathBuf,
    workload: String,
}

/// Why a file was ignored, or not written.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The file system.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a whole file of this format.
    #[error("{path}: {problem}; it is ignored and written anew", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// What came to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// All of it.
    Whole,
    /// The roots alone: with the rest it would be larger than a file may be.
    Roots,
}

/// What is to be written.
pub(crate) type Written = Option<(u64, Vec<v1::Resource>)>;

impl Hold {
    /// The file of `workload` in `dir`.
    pub fn new(dir: &Path, workload: &Workload) -> Self {
        Self { path: dir.join(FILE), workload: workload.to_string() }
    }

    /// Reads the file, as an epoch to adopt; `None`: there is none.
    ///
    /// # Errors
    /// [`HoldError`]: it cannot be read or used; start without it.
    pub fn load(&self) -> Result<Option<v1::Epoch>, HoldError> {
        let size = match fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        if usize::try_from(size).is_ok_and(|size| size <= MAX_FILE) {
            let bytes = fs::read(&self.path).map_err(|error| self.io(error))?;
            self.decode(Bytes::from(bytes)).map(Some)
        } else {
            Err(self.corrupt(format!("larger than {MAX_FILE} bytes")))
        }
    }

    /// When the file was written.
    pub(crate) fn written(&self) -> Option<SystemTime> {
        fs::metadata(&self.path).ok()?.modified().ok()
    }

    fn decode(&self, mut bytes: Bytes) -> Result<v1::Epoch, HoldError> {
        if !bytes.starts_with(MARK) {
            return Err(self.corrupt("not a file of this format".to_owned()));
        }
        bytes.advance(MARK.len());
        if bytes.len() < SHA256_OUTPUT_LEN {
            return Err(self.corrupt("cut off".to_owned()));
        }
        let sum = bytes.split_to(SHA256_OUTPUT_LEN);
        if digest(&SHA256, &bytes).as_ref() != sum.as_ref() {
            return Err(self.corrupt("its checksum is wrong".to_owned()));
        }
        let malformed = |error: prost::DecodeError| self.corrupt(error.to_string());
        let owner = v1::Hello::decode_length_delimited(&mut bytes).map_err(malformed)?;
        if owner.workload != self.workload {
            return Err(self.corrupt(format!("it is of {}, not of {}", owner.workload, self.workload)));
        }
        v1::Epoch::decode_length_delimited(&mut bytes).map_err(malformed)
    }

    /// Writes the file: whole, or not at all. Resources that are too large for it are left out, and only the
    /// roots written: without them a sidecar that starts anew may know nobody.
    ///
    /// # Errors
    /// [`HoldError::Io`].
    pub fn store(&self, generation: u64, mut resources: Vec<v1::Resource>) -> Result<Stored, HoldError> {
        let size: usize = resources.iter().map(Message::encoded_len).sum();
        let stored = if size > MAX_FILE - MARGIN { Stored::Roots } else { Stored::Whole };
        if stored == Stored::Roots {
            resources.retain(is_trust);
        }
        let bytes = self.encode(generation, resources);
        self.replace(&bytes).map_err(|error| self.io(error))?;
        Ok(stored)
    }

    fn encode(&self, generation: u64, resources: Vec<v1::Resource>) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let owner = v1::Hello { workload: self.workload.clone(), version, ..v1::Hello::default() };
        let epoch = v1::Epoch { generation, upserts: resources, ..v1::Epoch::default() };
        let mut body = owner.encode_length_delimited_to_vec();
        body.extend(epoch.encode_length_delimited_to_vec());
        let sum = digest(&SHA256, &body);
        [MARK, sum.as_ref(), &body].concat()
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let fresh = self.path.with_extension("new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        // A file left over from a crash keeps its old mode.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }

    /// Writes what is offered, the newest only, at most once a second, until the sender is gone.
    ///
    /// # Cancel safety
    /// Dropping it may lose what was offered in the last second.
    pub(crate) async fn keep(self, mut offered: watch::Receiver<Written>) {
        let mut said = false;
        while offered.changed().await.is_ok() {
            let newest = offered.borrow_and_update().clone();
            let Some((generation, resources)) = newest else { continue };
            let hold = self.clone();
            let written = tokio::task::spawn_blocking(move || hold.store(generation, resources)).await;
            match written {
                Ok(Ok(Stored::Whole)) => said = false,
                Ok(Ok(Stored::Roots)) if said => {}
                Ok(Ok(Stored::Roots)) => {
                    said = true;
                    tracing::warn!(
                        most = MAX_FILE,
                        "the configuration is too large for the disk: only its roots are kept there"
                    );
                }
                Ok(Err(error)) => tracing::warn!(%error, "the last good configuration is not on disk"),
                Err(error) => tracing::warn!(%error, "the last good configuration is not on disk"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn io(&self, source: io::Error) -> HoldError {
        HoldError::Io { path: self.path.clone(), source }
    }

    fn corrupt(&self, problem: String) -> HoldError {
        HoldError::Corrupt { path: self.path.clone(), problem }
    }
}

/// What a file holds besides the bytes of its resources. Source: lengths and tags, some bytes for each of
/// 50,000 resources.
const MARGIN: usize = 1 << 20;

fn is_trust(resource: &v1::Resource) -> bool {
    resource.key.as_ref().is_some_and(|key| key.r#type() == v1::ResourceType::Trust)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(name: &str) -> Hold {
        let workload = "shop/cart-0".parse().unwrap();
        Hold::new(&crate::testing::scratch(name), &workload)
    }

    fn resources() -> Vec<v1::Resource> {
        let key = v1::Key { r#type: v1::ResourceType::Mesh.into(), name: "mesh".to_owned() };
        vec![v1::Resource {
            key: Some(key),
            version: Bytes::from_static(b"v"),
            body: Bytes::from_static(b"b"),
        }]
    }

    #[test]
    fn what_was_stored_is_loaded_and_only_its_owner_may_read_it() {
        let hold = hold("hold");
        assert!(hold.load().unwrap().is_none(), "nothing yet");
        hold.store(7, resources()).unwrap();
        hold.store(8, resources()).unwrap();
        let epoch = hold.load().unwrap().unwrap();
        assert_eq!((epoch.generation, epoch.upserts), (8, resources()));
        let mode = fs::metadata(&hold.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn of_what_is_too_large_the_roots_are_kept() {
        let hold = hold("hold-large");
        let of = |r#type: v1::ResourceType, size: usize| v1::Resource {
            key: Some(v1::Key { r#type: r#type.into(), name: "one".to_owned() }),
            version: Bytes::from_static(b"v"),
            body: Bytes::from(vec![0; size]),
        };
        let trust = of(v1::ResourceType::Trust, 10);
        let small = vec![of(v1::ResourceType::Backend, 10), trust.clone()];
        assert_eq!(hold.store(7, small.clone()).unwrap(), Stored::Whole);
        assert_eq!(hold.load().unwrap().unwrap().upserts, small);
        let large = vec![of(v1::ResourceType::Backend, MAX_FILE), trust.clone()];
        assert_eq!(hold.store(8, large).unwrap(), Stored::Roots);
        assert_eq!(hold.load().unwrap().unwrap().upserts, [trust]);
        assert!(fs::metadata(&hold.path).unwrap().len() < 1 << 10);
    }

    #[test]
    fn no_cut_or_flipped_file_is_taken() {
        let hold = hold("hold-corrupt");
        let whole = hold.encode(7, resources());
        assert!(hold.decode(Bytes::from(whole.clone())).is_ok());
        for at in 0..whole.len() {
            assert!(hold.decode(Bytes::copy_from_slice(&whole[..at])).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(hold.decode(Bytes::from(flipped)).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn another_workloads_file_is_refused_by_name() {
        let mut other = hold("hold-other");
        other.store(7, resources()).unwrap();
        other.workload = "shop/catalog-0".to_owned();
        assert!(other.load().unwrap_err().to_string().contains("shop/cart-0"));
    }
}
