//! A value → YAML in block style, for people to read.
//!
//! Where it stands: below *render*, and what writes the CRDs.
//!
//! Invariant: a text that any YAML reader could take for something else (a number, a truth value, a
//! date) is quoted; what is read back equals what was written.

use serde_json::Value;

/// Writes a value, ending with a line break.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => object(value, 0, &mut out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

/// Writes the lines of a map or list.
fn object(value: &Value, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&pad);
                out.push_str(&plain(key));
                out.push(':');
                nested(value, depth, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                let mut inner = String::new();
                if is_block(value) {
                    object(value, depth + 1, &mut inner);
                    let begin = (depth + 1) * 2;
                    out.push_str(&pad);
                    out.push_str("- ");
                    out.push_str(inner.get(begin..).unwrap_or_default());
                } else {
                    out.push_str(&format!("{pad}- {}\n", scalar(value)));
                }
            }
        }
        _ => {}
    }
}

/// Writes what stands behind a key's colon.
fn nested(value: &Value, depth: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        // A list stands no deeper than its key, as Kubernetes' own tools write it.
        object(value, if value.is_array() { depth } else { depth + 1 }, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A text, quoted unless it cannot be mistaken.
fn plain(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "nan" | "inf"
    );
    if begins && !word && text.bytes().all(safe) { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes: a JSON text is a YAML text.
pub(super) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
