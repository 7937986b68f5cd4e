//! The house's rules that a machine can check, as pure functions from a [`Tree`] to [`Finding`]s.
//!
//! `tests/tidy.rs` applies them to the repository; the tests beside them show that each can fail.
//!
//! ```text
//! Tree (paths and texts) ─┬─ manifests   who may import whom; what a core may not touch
//!                         ├─ modules     which file is reached from which target, and which is a test
//!                         ├─ sizes       lines of a file, lines of a function
//!                         ├─ words       headers, marks of unfinished work, sleeps in tests
//!                         └─ documents   comments of the contract, links and names in the map
//! findings ── exceptions ──▶ what is left fails the test
//! ```
//!
//! Invariant: no rule reads a file by itself, so each can be shown a tree made for it.

pub mod documents;
pub mod exceptions;
pub mod manifests;
pub mod modules;
pub mod sizes;
pub mod source;
pub mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

/// What the rules read: paths from the repository's root, with `/`, and what stands there.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The tree below `root`; what is hidden, built or no text is left out (`.ci` is not).
    ///
    /// # Errors
    /// What reading says.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                if name == ".ci" || !(name.starts_with('.') || name == "target") {
                    self.read_folder(&entry.path(), &format!("{path}/"))?;
                }
            } else {
                let text = std::fs::read(entry.path())?;
                self.files.insert(path, String::from_utf8(text).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// A tree of these files.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { files: files.iter().map(owned).collect() }
    }

    /// What a file says; `None` if there is none.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// All files whose name ends so, with what they say.
    pub fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files.iter().filter(move |(path, _)| path.ends_with(end)).map(|(p, t)| (p.as_str(), t.as_str()))
    }

    /// Whether a file or a folder is there.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where: a path, with `:function` or the like behind it.
    pub place: String,
    /// Which rule, in one word; exceptions name it.
    pub rule: &'static str,
    /// By how much, for the rules that count.
    pub count: usize,
    /// What is wrong and what to do.
    pub what: String,
}

impl Finding {
    fn new(place: impl Into<String>, rule: &'static str, what: impl Into<String>) -> Self {
        Self { place: place.into(), rule, count: 0, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.what, self.rule)
    }
}

/// Every rule's findings, before exceptions.
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let modules = modules::Modules::of(tree);
    let rules = [
        manifests::imports(tree),
        manifests::purity(tree, &modules),
        modules.orphans(tree),
        sizes::files(tree, &modules),
        sizes::functions(tree, &modules),
        words::headers(tree),
        words::unfinished(tree),
        words::sleeps(tree, &modules),
        documents::contract(tree),
        documents::links(tree),
        documents::walks(tree),
    ];
    rules.into_iter().flatten().collect()
}
