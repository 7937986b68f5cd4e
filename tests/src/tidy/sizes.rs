//! How long a file and a function may be.
//!
//! Invariant: what is compiled for tests only does not count in a file that is not a test itself.

use super::modules::{Modules, Role};
use super::source;
use super::{Finding, Tree};

/// Lines of a file outside its tests. Above the first it is named, above the second refused.
/// Source: the house's measure; a file is read in one sitting.
pub const FILE_WARN: usize = 400;
/// See [`FILE_WARN`].
pub const FILE_LIMIT: usize = 500;
/// Lines of a file of tests. Source: as above; scenarios are lists, read piece by piece.
pub const TEST_FILE_LIMIT: usize = 1000;
/// Lines of code in a function's body. Source: clippy's `too_many_lines`, set in `.clippy.toml`.
pub const FUNCTION_LIMIT: usize = 70;

/// Lines outside `#[cfg(test)]`, comments included: they too are read.
pub fn file_lines(text: &str) -> usize {
    let code = source::code(text);
    let production = source::production(text);
    let test_only = code
        .lines()
        .zip(production.lines())
        .filter(|(all, kept)| kept.trim().is_empty() && !all.trim().is_empty());
    text.lines().count() - test_only.count()
}

/// Files that are too long.
pub fn files(tree: &Tree, modules: &Modules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let (lines, limit) = match modules.role(path) {
            Some(Role::Test) => (text.lines().count(), TEST_FILE_LIMIT),
            _ => (file_lines(text), FILE_LIMIT),
        };
        if lines > limit {
            let what = format!("{lines} lines, more than {limit}; part it along an idea");
            findings.push(Finding { count: lines, ..Finding::new(path, "file", what) });
        }
    }
    findings
}

/// Files on the way to being too long.
pub fn long_files(tree: &Tree, modules: &Modules) -> Vec<String> {
    tree.ending(".rs")
        .filter(|(path, _)| modules.role(path) != Some(Role::Test))
        .map(|(path, text)| (path, file_lines(text)))
        .filter(|(_, lines)| (FILE_WARN + 1..=FILE_LIMIT).contains(lines))
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect()
}

/// Functions that are too long.
pub fn functions(tree: &Tree, modules: &Modules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| modules.role(path) != Some(Role::Test)) {
        let code = source::production(text);
        for function in source::functions(&code).into_iter().filter(|f| f.lines > FUNCTION_LIMIT) {
            let what = format!("{} lines, more than {FUNCTION_LIMIT}; give its steps names", function.lines);
            let place = format!("{path}:{}", function.name);
            findings.push(Finding { count: function.lines, ..Finding::new(place, "function", what) });
        }
    }
    findings
}
