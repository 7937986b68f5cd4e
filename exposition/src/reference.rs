//! The reference of a catalog, as a page of documentation.
//!
//! Invariant: what the page says is what the code holds; a test compares them.

use std::fmt::Write as _;

use crate::family::{Family, Group, Kind};

/// The families as a table in Markdown.
#[must_use]
pub fn families(catalog: &[&Family]) -> String {
    let mut table =
        "| metric | type | unit | labels | what it is | shown |\n|---|---|---|---|---|---|\n".to_owned();
    for family in catalog {
        let mut labels: Vec<String> = Vec::new();
        if !family.of.labels.is_empty() {
            labels.push(format!("*{}*", family.of.name));
        }
        labels.extend(family.by.iter().map(|label| format!("`{label}`")));
        // A text takes every line.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {} | {} |",
            family.exposed(),
            if family.kind == Kind::Info { "info" } else { family.kind.name() },
            family.unit().unwrap_or_default(),
            labels.join(", "),
            family.help,
            family.appears,
        );
    }
    table
}

/// The groups of labels that the families share, each with its labels.
#[must_use]
pub fn groups(catalog: &[&Family]) -> String {
    let mut groups: Vec<&Group> = Vec::new();
    for family in catalog {
        if !family.of.labels.is_empty() && !groups.iter().any(|known| std::ptr::eq(*known, family.of)) {
            groups.push(family.of);
        }
    }
    let mut text = String::new();
    for group in groups {
        let labels: Vec<String> = group.labels.iter().map(|label| format!("`{label}`")).collect();
        // A text takes every line.
        let _ = writeln!(text, "*{}*: {}.", group.name, labels.join(", "));
    }
    text
}

/// Labels with their meaning as a table; only those that the catalog uses, in the order given.
#[must_use]
pub fn labels(catalog: &[&Family], meanings: &[(&str, &str)]) -> String {
    let mut table = "| label | says |\n|---|---|\n".to_owned();
    for (label, meaning) in meanings {
        if catalog.iter().any(|family| family.labels().any(|used| used == *label)) {
            // A text takes every line.
            let _ = writeln!(table, "| `{label}` | {meaning} |");
        }
    }
    table
}

/// What is wrong with a catalog: names twice, labels without a meaning, texts that a page cannot hold.
#[must_use]
pub fn faults(catalog: &[&Family], meanings: &[(&str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, family) in catalog.iter().enumerate() {
        let name = family.name;
        let word = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        if !word(name) || name.ends_with("_total") || name.ends_with("_info") {
            faults.push(format!("{name}: lowercase words, without the ending that the kind adds"));
        }
        if catalog.iter().take(at).any(|known| known.name == name) {
            faults.push(format!("{name}: twice"));
        }
        if family.help.is_empty() || family.help.contains(['\\', '\n', '"', '|']) {
            faults.push(format!("{name}: its help must be one plain line"));
        }
        for label in family.labels() {
            if !word(label) || !meanings.iter().any(|(known, _)| *known == label) {
                faults.push(format!("{name}: the label {label} has no meaning in the table"));
            }
        }
        let mut labels: Vec<_> = family.labels().collect();
        labels.sort_unstable();
        labels.dedup();
        if labels.len() != family.labels().count() {
            faults.push(format!("{name}: a label twice"));
        }
    }
    faults
}
