//! Words for values: what a person reads where a decision compared bytes.
//!
//! Invariant: what comes from a request is quoted and bounded, so that it cannot pass for ours.

use std::fmt::Write as _;
use std::time::Duration;

use crate::route::condition::{Field, Value};

/// Longest value that is shown whole. Source: ours; a line of a terminal.
const SHOWN: usize = 80;

/// Bytes in quotes, cut when they are long.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a value must be.
pub(super) fn wanted(value: &Value) -> String {
    match value {
        Value::Exact(text) => quoted(text),
        Value::Regex(regex) => format!("like {}", pattern(regex.as_str())),
    }
}

/// A regular expression as the user wrote it, without what anchors it.
pub(super) fn pattern(anchored: &str) -> &str {
    anchored.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z")).unwrap_or(anchored)
}

/// A field's name.
pub(super) fn field(field: &Field) -> &str {
    match field {
        Field::Authority => "host",
        Field::Named(name) => name.as_str(),
    }
}

/// A span of time as manifests have it.
pub(super) fn span(span: Duration) -> String {
    if span.is_zero() {
        return "0s".to_owned();
    }
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let mut rest = span.as_millis();
    let mut out = String::new();
    for (size, unit) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            let _ = write!(out, "{count}{unit}");
        }
    }
    if out.is_empty() { format!("{span:?}") } else { out }
}

/// `one`, `one or two`, `one, two or three`; long lists end in how many more there are.
pub(super) fn any_of<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<S> = words.into_iter().collect();
    let shown: Vec<&str> = words.iter().take(LISTED).map(AsRef::as_ref).collect();
    match (shown.split_last(), words.len().saturating_sub(LISTED)) {
        (None, _) => "nothing".to_owned(),
        (Some((last, [])), 0) => (*last).to_owned(),
        (Some((last, rest)), 0) => format!("{} or {last}", rest.join(", ")),
        (_, more) => format!("{} or {more} more", shown.join(", ")),
    }
}

/// Names listed one by one. Source: ours; a line of a terminal.
const LISTED: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_manifests_have_them() {
        for (millis, text) in
            [(0, "0s"), (250, "250ms"), (5_000, "5s"), (90_500, "1m30s500ms"), (3_600_000, "1h")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn lists_are_sentences_and_bounded() {
        assert_eq!(any_of(["a"]), "a");
        assert_eq!(any_of(["a", "b", "c"]), "a, b or c");
        assert_eq!(any_of(["a"; 8]), "a, a, a, a, a, a or 2 more");
        assert_eq!(quoted(&[b'x'; 99]).len(), 80 + 2 + 3);
    }
}
