//! Which Rust file is reached from which target of which manifest, and which of them are tests.
//!
//! Invariant: a file no target reaches is not compiled, so nothing in it is true; it is a finding.

use std::collections::BTreeMap;

use super::source;
use super::{Finding, Tree};

/// What a reached file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shipped, or a helper of the tests' own crate.
    Production,
    /// Compiled for tests only.
    Test,
}

/// The reached files.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    roles: BTreeMap<String, Role>,
}

impl Modules {
    /// Follows every target of every manifest.
    pub fn of(tree: &Tree) -> Self {
        let mut modules = Self::default();
        for (manifest, text) in tree.ending("Cargo.toml") {
            let folder = manifest.trim_end_matches("Cargo.toml");
            for (root, role) in roots(tree, folder, text) {
                modules.follow(tree, &root, role, true);
            }
        }
        modules
    }

    /// What a file is for; `None` if no target reaches it.
    pub fn role(&self, path: &str) -> Option<Role> {
        self.roles.get(path).copied()
    }

    /// Files that no target reaches.
    pub fn orphans(&self, tree: &Tree) -> Vec<Finding> {
        tree.ending(".rs")
            .filter(|(path, _)| self.role(path).is_none())
            .map(|(path, _)| {
                Finding::new(path, "orphan", "no target reaches this file; declare it or delete it")
            })
            .collect()
    }

    fn follow(&mut self, tree: &Tree, path: &str, role: Role, is_root: bool) {
        let Some(text) = tree.text(path) else { return };
        if self.role(path) == Some(Role::Production) || self.role(path) == Some(role) {
            return;
        }
        self.roles.insert(path.to_owned(), role);
        for child in children(text) {
            let role = if child.test { Role::Test } else { role };
            let found = child.places(path, is_root).into_iter().find(|place| tree.text(place).is_some());
            if let Some(place) = found {
                self.follow(tree, &place, role, false);
            }
        }
    }
}

/// A `mod name;`.
struct Child {
    name: String,
    path: Option<String>,
    test: bool,
}

impl Child {
    /// Where its file may be, seen from the file that declares it.
    fn places(&self, from: &str, is_root: bool) -> Vec<String> {
        let (folder, file) = from.rsplit_once('/').map_or(("", from), |(folder, file)| (folder, file));
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        if let Some(path) = &self.path {
            return vec![format!("{folder}{path}")];
        }
        let inside = match file {
            "mod.rs" => folder,
            _ if is_root => folder,
            _ => format!("{folder}{}/", file.trim_end_matches(".rs")),
        };
        vec![format!("{inside}{}.rs", self.name), format!("{inside}{}/mod.rs", self.name)]
    }
}

fn children(text: &str) -> Vec<Child> {
    let code = source::code(text);
    let outside_tests = source::production(text);
    source::words(&code, "mod")
        .filter_map(|at| {
            let (name, _) = code.get(at + 3..)?.split_once(';')?;
            let name = name.trim();
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                return None;
            }
            let test = outside_tests.get(at..at + 3) != Some("mod");
            Some(Child { name: name.to_owned(), path: path_attribute(text, &code, at), test })
        })
        .collect()
}

/// The `#[path = "..."]` among the attributes right above a `mod`.
fn path_attribute(text: &str, code: &str, at: usize) -> Option<String> {
    let line = source::line_of(code, at);
    let lines: Vec<&str> = text.lines().take(line).collect();
    lines
        .iter()
        .rev()
        .skip(1)
        .take_while(|line| line.trim_start().starts_with("#["))
        .find_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]").map(str::to_owned))
}

/// The roots of a package's targets: what Cargo finds by itself and what the manifest names.
fn roots(tree: &Tree, folder: &str, manifest: &str) -> Vec<(String, Role)> {
    let mut roots: Vec<(String, Role)> = ["src/lib.rs", "src/main.rs", "build.rs"]
        .map(|file| (format!("{folder}{file}"), Role::Production))
        .into_iter()
        .collect();
    for (kind, role) in [
        ("src/bin", Role::Production),
        ("tests", Role::Test),
        ("benches", Role::Test),
        ("examples", Role::Production),
    ] {
        let prefix = format!("{folder}{kind}/");
        let direct = |path: &str| path.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        let main = |path: &str| {
            let rest = path.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'));
            rest.is_some_and(|(_, file)| file == "main.rs")
        };
        let found = tree.ending(".rs").filter(|(path, _)| direct(path) || main(path));
        roots.extend(found.map(|(path, _)| (path.to_owned(), role)));
    }
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some(path) = line.strip_prefix("path = \"").and_then(|rest| rest.strip_suffix('"')) {
            let role = match section {
                "[[test]]" | "[[bench]]" => Role::Test,
                _ => Role::Production,
            };
            roots.push((format!("{folder}{path}"), role));
        }
    }
    roots
}
