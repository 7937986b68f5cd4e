//! The facts as the folder shows them: which files there are, what each holds, and whether all of it
//! can be taken.
//!
//! Before it: `watch` says that something may have changed. After it: `compile` gets all documents
//! of a good state at once.
//!
//! Invariant: a state is taken whole; while one document of the folder is broken or one object is
//! there twice, nothing of the folder changes.
//! Invariant: equal bytes are no change, whatever the file's time says.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use weft_control_plane_core::model::ObjectKey;

use crate::files;
use crate::read::{self, Document, Problem};

/// Depth of folders that are searched. Source: Weft's own; also ends loops of symbolic links.
const DEPTH: usize = 16;
/// Files that are read. Source: Weft's own.
const FILES: usize = 100_000;
/// Largest file that is read. Source: Weft's own; a hundred times what etcd takes for one object.
const FILE_LIMIT: u64 = 128 * 1024 * 1024;

/// What a look at the folder found.
#[derive(Debug)]
pub enum Look {
    /// The same bytes as before.
    Unchanged,
    /// A file that held documents is empty: someone is writing it, look again.
    Writing,
    /// Something is wrong; the last good state stays.
    Broken(Vec<Problem>),
    /// A new state, whole.
    Good(Vec<Placed>),
}

/// A document and its file.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The file, below the folder.
    pub file: Arc<str>,
    /// The document.
    pub document: Arc<Document>,
}

/// The folder's files as they were last seen.
#[derive(Debug)]
pub struct Index {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    looked: bool,
}

#[derive(Debug)]
struct File {
    name: Arc<str>,
    mark: Mark,
    hash: [u8; 32],
    documents: Result<Vec<Arc<Document>>, Vec<Problem>>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Index {
    /// An index of a folder that was not looked at yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), files: BTreeMap::new(), looked: false }
    }

    /// Looks at the folder. With `settled` an emptied file is taken as empty.
    pub fn look(&mut self, settled: bool) -> Look {
        let mut found = BTreeMap::new();
        if let Err(problem) = walk(&self.root, DEPTH, &mut found) {
            // Once it can be read again, it is told again, even if it is as it was.
            self.looked = false;
            return Look::Broken(vec![problem]);
        }
        if !settled && found.iter().any(|(path, mark)| mark.length == 0 && self.held_documents(path)) {
            return Look::Writing;
        }
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = !self.looked || self.files.len() != before;
        for (path, mark) in found {
            match self.refresh(path, mark) {
                Ok(new) => changed |= new,
                Err(problem) => {
                    self.looked = false;
                    return Look::Broken(vec![problem]);
                }
            }
        }
        if !changed {
            return Look::Unchanged;
        }
        self.looked = true;
        self.assemble()
    }

    fn held_documents(&self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|file| !matches!(&file.documents, Ok(none) if none.is_empty()))
    }

    /// Reads a file again if its mark changed; tells whether its bytes did.
    fn refresh(&mut self, path: PathBuf, mark: Mark) -> Result<bool, Problem> {
        if self.files.get(&path).is_some_and(|file| file.mark == mark) {
            return Ok(false);
        }
        let name: Arc<str> = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into();
        let bytes = match files::read_limited(&path, FILE_LIMIT) {
            Ok(bytes) => bytes,
            // Removed between the walk and the read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(self.files.remove(&path).is_some());
            }
            Err(error) => return Err(whole(&name, error.to_string())),
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        if let Some(file) = self.files.get_mut(&path)
            && file.hash == hash
        {
            file.mark = mark;
            return Ok(false);
        }
        let documents = read::documents(&name, &bytes).map(|read| read.into_iter().map(Arc::new).collect());
        self.files.insert(path, File { name, mark, hash, documents });
        Ok(true)
    }

    fn assemble(&self) -> Look {
        let mut problems: Vec<Problem> = Vec::new();
        let mut placed = Vec::new();
        let mut seen = BTreeMap::new();
        for file in self.files.values() {
            let documents = match &file.documents {
                Ok(documents) => documents,
                Err(found) => {
                    problems.extend(found.iter().cloned());
                    continue;
                }
            };
            for document in documents {
                if let Some(problem) = repeated(&mut seen, &file.name, document) {
                    problems.push(problem);
                }
                placed.push(Placed { file: Arc::clone(&file.name), document: Arc::clone(document) });
            }
        }
        if problems.is_empty() { Look::Good(placed) } else { Look::Broken(problems) }
    }
}

/// An object that was already seen elsewhere.
fn repeated(
    seen: &mut BTreeMap<ObjectKey, (Arc<str>, u64)>,
    file: &Arc<str>,
    document: &Document,
) -> Option<Problem> {
    let key = document.object.as_ref()?.key();
    let text = key.to_string();
    let (other, line) = seen.insert(key, (Arc::clone(file), document.line))?;
    let reason = format!("{text}: the same object stands in {other}:{line}");
    Some(Problem { file: file.to_string(), line: document.line, reason })
}

fn walk(folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Mark>) -> Result<(), Problem> {
    let refuse = |error: std::io::Error| whole(&folder.to_string_lossy(), error.to_string());
    for entry in fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        // Kubernetes keeps the real files of a volume below `..data`, editors theirs below dots.
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        // A file may be gone already, or a link may dangle for a moment.
        let Some(metadata) = (!hidden).then(|| fs::metadata(&path).ok()).flatten() else { continue };
        if metadata.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, found)?;
            }
        } else if metadata.is_file() && is_manifest(&path) {
            if found.len() >= FILES {
                return Err(whole(&folder.to_string_lossy(), format!("more than {FILES} files")));
            }
            found.insert(path, mark(&metadata));
        }
    }
    Ok(())
}

fn mark(metadata: &fs::Metadata) -> Mark {
    Mark {
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        length: metadata.len(),
        inode: metadata.ino(),
    }
}

fn is_manifest(path: &Path) -> bool {
    let known = |extension: &std::ffi::OsStr| {
        ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    };
    path.extension().is_some_and(known)
}

fn whole(file: &str, reason: String) -> Problem {
    Problem { file: file.to_owned(), line: 0, reason }
}

#[cfg(test)]
mod tests;
