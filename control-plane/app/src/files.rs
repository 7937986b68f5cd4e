//! Files that must never be seen half written: the root, the anchors, the ready file, token uses.
//!
//! Invariant: a reader sees the old bytes or the new bytes, and the mode is right from the first
//! moment the name exists.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path` under a temporary name and renames it into place.
///
/// # Errors
/// What the file system answers, with the path in the message.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_name(path);
    let written = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| named(path, &error))
}

/// Creates a directory (and its parents) that only the owner may enter.
///
/// # Errors
/// What the file system answers, with the path in the message.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| named(path, &error))
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// What the file system answers, or `FileTooLarge`, with the path in the message.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let read = || {
        let length = fs::metadata(path)?.len();
        if length > limit {
            let text = format!("{length} bytes, the limit is {limit}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        fs::read(path)
    };
    read().map_err(|error| named(path, &error))
}

/// Whether group or others may read the file.
///
/// # Errors
/// What the file system answers, with the path in the message.
pub fn readable_by_others(path: &Path) -> io::Result<bool> {
    let mode = fs::metadata(path).map_err(|error| named(path, &error))?.permissions().mode();
    Ok(mode & 0o077 != 0)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // A leftover of a crash keeps its old mode: set it before the first byte.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.new"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
