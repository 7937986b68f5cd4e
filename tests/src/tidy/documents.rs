//! What the documents say about the tree, and whether it is so.
//!
//! Invariant: a path in a document is a path in the tree.

use super::{Finding, Tree};

/// The documents whose links must hold.
const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];
/// The map, and the walks it must lead along in this order. The ledger, `record`, is open all the way.
const MAP: &str = "ARCHITECTURE.md";
const WALKS: [&[&str]; 2] = [
    &["accept", "identify", "detect", "authorize", "route", "balance", "connect", "relay"],
    &["watch", "index", "compile", "publish", "serve", "subscribe", "adopt"],
];
/// Ends of names by which a word in a document is known as a file of the tree; a manifest's may be a
/// user's own.
const FILE_ENDS: [&str; 4] = [".rs", ".proto", ".toml", ".md"];

/// Where the contract stands; a test's own messages are none.
const CONTRACT: &str = "proto/";

/// Parts of the contract that nobody explained.
pub fn contract(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".proto").filter(|(path, _)| path.starts_with(CONTRACT)) {
        let mut explained = false;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            let is_comment = line.starts_with("//");
            if is_declaration(line) && !explained && !line.contains("//") {
                let what = format!("`{line}` has no comment: meaning, unit, default");
                findings.push(Finding::new(format!("{path}:{}", number + 1), "contract", what));
            }
            explained = is_comment
                || (explained && !line.is_empty() && !is_declaration(line) && !line.ends_with('}'));
        }
    }
    findings
}

/// A message, enum, service, call, field or value; what only groups or configures is none.
fn is_declaration(line: &str) -> bool {
    let first = line.split([' ', '<']).next().unwrap_or_default();
    match first {
        "message" | "enum" | "service" | "rpc" => true,
        "syntax" | "package" | "option" | "import" | "reserved" | "oneof" | "//" | "}" | "" => false,
        _ => !line.starts_with("//") && line.contains(" = ") && line.contains(';'),
    }
}

/// Links and names of files that lead nowhere.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in DOCUMENTS {
        for (number, line) in tree.text(document).unwrap_or_default().lines().enumerate() {
            let targets = link_targets(line).into_iter().filter(|target| !tree.has(target));
            let spans = code_spans(line).into_iter().filter(|span| is_file(span) && !is_named(tree, span));
            for missing in targets.chain(spans) {
                let place = format!("{document}:{}", number + 1);
                findings.push(Finding::new(place, "link", format!("there is no {missing}")));
            }
        }
    }
    findings
}

/// Walks of the map that leave a room out or meet the rooms in another order than the code does.
pub fn walks(tree: &Tree) -> Vec<Finding> {
    let Some(map) = tree.text(MAP) else { return Vec::new() };
    let sections: Vec<&str> = map.split("\n#").filter(|section| heading(section).contains("walk")).collect();
    let mut findings = Vec::new();
    for walk in WALKS {
        let steps: Vec<&str> = match sections.iter().find(|section| names(section, walk).len() == walk.len())
        {
            Some(section) => names(section, walk),
            None => Vec::new(),
        };
        if steps != walk {
            let what = format!(
                "a section headed \"... walk\" must name the files of {} in this order; it names {}",
                walk.join(", "),
                if steps.is_empty() { "not all of them".to_owned() } else { steps.join(", ") }
            );
            findings.push(Finding::new(MAP, "walk", what));
        }
    }
    findings
}

fn heading(section: &str) -> String {
    section.lines().next().unwrap_or_default().to_lowercase()
}

/// Which steps of a walk the section names by file, in the order of their first naming.
fn names<'a>(section: &str, walk: &[&'a str]) -> Vec<&'a str> {
    let mut met: Vec<&str> = Vec::new();
    for span in section.lines().flat_map(code_spans) {
        let is_step = |step: &&&str| {
            span.split('/').any(|part| part == **step || part.strip_suffix(".rs") == Some(**step))
                && (span.contains('/') || span.ends_with(".rs"))
        };
        if let Some(step) = walk.iter().find(is_step)
            && !met.contains(step)
        {
            met.push(step);
        }
    }
    met
}

/// Whether the tree has a file of this name, from its root or from some folder.
fn is_named(tree: &Tree, span: &str) -> bool {
    let below = format!("/{}", span.trim_start_matches("./"));
    tree.has(span.trim_start_matches("./")) || tree.ending(&below).next().is_some()
}

fn is_file(span: &str) -> bool {
    let plain = span.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    plain && !span.starts_with(['/', '.', '~']) && FILE_ENDS.iter().any(|end| span.ends_with(end))
}

/// What stands between backquotes in a line.
fn code_spans(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The relative targets of `[text](target)` in a line, without their anchors.
fn link_targets(line: &str) -> Vec<String> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or_default().trim_start_matches("./").to_owned())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}
