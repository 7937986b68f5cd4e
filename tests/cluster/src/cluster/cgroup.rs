//! The cgroups below which all pods of a cluster live: one folder in each version 1 hierarchy.
//!
//! Invariant: only folders with the cluster's name are made or removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::look;

const HIERARCHIES: &str = "/sys/fs/cgroup";
/// A killed process leaves its cgroup a moment later. Source: measured, below 100 ms.
const LAST_PROCESSES: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes the folders.
pub(super) fn make(name: &str) -> io::Result<()> {
    for folder in folders(name)? {
        fs::create_dir_all(folder)?;
    }
    let sets = Path::new(HIERARCHIES).join("cpuset");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        // A fresh folder of this hierarchy has neither, and takes no process until it has.
        fs::write(sets.join(name).join(file), fs::read(sets.join(file))?)?;
    }
    Ok(())
}

/// Removes the folders, once their last processes are gone.
pub(super) fn remove(name: &str) -> io::Result<()> {
    for folder in folders(name)? {
        let mut last = None;
        let removed = look::until(PAUSE, LAST_PROCESSES, || {
            remove_tree(&folder).map_err(|error| last = Some(error)).ok()
        });
        if let (None, Some(error)) = (removed, last) {
            return Err(io::Error::other(format!("{}: {error}", folder.display())));
        }
    }
    Ok(())
}

fn folders(name: &str) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(HIERARCHIES)? {
        let entry = entry?;
        // `cpu` and `cpuacct` are links to one hierarchy.
        if entry.file_type()?.is_dir() {
            folders.push(entry.path().join(name));
        }
    }
    Ok(folders)
}

/// The kernel's files in it cannot be removed and need not be.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
