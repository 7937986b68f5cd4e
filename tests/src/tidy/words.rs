//! What must stand in every file, and what may stand in none.
//!
//! Invariant: words are looked for in code only; a comment may speak of them.

use super::modules::{Modules, Role};
use super::source;
use super::{Finding, Tree};

/// Marks of work that is not done, or of tests that do not run.
const UNFINISHED: [&str; 4] = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// A header says at least this much. Source: "The sidecar's rooms." says where one is; a word does not.
const HEADER_WORDS: usize = 3;

/// Files that do not begin with what they are for.
pub fn headers(tree: &Tree) -> Vec<Finding> {
    tree.ending(".rs")
        .filter(|(_, text)| !has_header(text))
        .map(|(path, _)| {
            Finding::new(path, "header", "begins without a `//!` sentence that says what it is for")
        })
        .collect()
}

fn has_header(text: &str) -> bool {
    let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let said = header.join(" ");
    said.split_whitespace().count() >= HEADER_WORDS && said.contains(['.', ':'])
}

/// Marks of unfinished work.
pub fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let code = source::code(text);
        for word in UNFINISHED {
            for at in source::words(&code, word) {
                let place = format!("{path}:{}", source::line_of(&code, at));
                findings.push(Finding::new(
                    place,
                    "unfinished",
                    format!("{word} does not belong in the tree"),
                ));
            }
        }
    }
    findings
}

/// The bench's folder: a rig measures time, so waiting is its work.
const RIG: &str = "tests/benches/";

/// Tests that wait for time to pass. A wait for a condition belongs in one place, with its reason.
pub fn sleeps(tree: &Tree, modules: &Modules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| !path.starts_with(RIG)) {
        let code = source::code(text);
        let is_test = modules.role(path) == Some(Role::Test) || path.starts_with("tests/");
        let everywhere = calls_of_sleep(&code);
        let in_production = if is_test { 0 } else { calls_of_sleep(&source::production(text)) };
        let count = everywhere - in_production;
        if count > 0 {
            let what =
                format!("{count} sleeps in tests; wait for what is meant, or say why not in the exceptions");
            findings.push(Finding { count, ..Finding::new(path, "sleep", what) });
        }
    }
    findings
}

fn calls_of_sleep(code: &str) -> usize {
    let is_call = |at: &usize| {
        let before = code.get(..*at).unwrap_or_default();
        !before.ends_with('.') && !before.trim_end().ends_with("fn")
    };
    source::words(code, "sleep(").filter(is_call).count()
}
