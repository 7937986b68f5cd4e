//! Reads manifests: splits a file into documents, finds what each is, and turns each into its type
//! with the line of whatever is wrong.
//!
//! Before it: `index` hands over a file's bytes. After it: the objects go into the model.
//!
//! Invariant: a document is taken whole or refused with a line and a reason; in a route or a kind of
//! Weft's own, a field that the kind does not know is a reason.

mod place;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_control_plane_core::model::{self, Object, Read};

/// Documents in one file. Source: Weft's own; generated files hold thousands.
const DOCUMENTS: usize = 100_000;

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, below the manifests' folder.
    pub file: String,
    /// The line, from 1; 0: the file as a whole.
    pub line: u64,
    /// Why, for a person.
    pub reason: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.file.as_str() {
            // A cluster has no files.
            "" => f.write_str(&self.reason),
            file => write!(f, "{file}:{}: {}", self.line, self.reason),
        }
    }
}

/// What is wrong within one document; without a line of its own it is the document's first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    line: Option<u64>,
    reason: String,
}

/// One document, or one item of a List.
#[derive(Debug, Clone)]
pub struct Document {
    /// First line of the document, from 1.
    pub line: u64,
    /// `kind` as it was written.
    pub kind: String,
    /// The object; absent: its kind is not the mesh's.
    pub object: Option<Object>,
    /// Fields of the object that its kind does not have, where that is no error.
    pub unknown_fields: Vec<String>,
}

#[derive(Deserialize)]
struct Head {
    kind: String,
    items: Option<Vec<Value>>,
}

/// Reads a file's documents; Lists are replaced by their items.
///
/// # Errors
/// Every document that is wrong, each with its line.
pub fn documents(file: &str, bytes: &[u8]) -> Result<Vec<Document>, Vec<Problem>> {
    let problem = |line: u64, reason: String| Problem { file: file.to_owned(), line, reason };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
        vec![problem(line, "not UTF-8".to_owned())]
    })?;
    let json = file.to_ascii_lowercase().ends_with(".json");
    let chunks = if json { vec![(1, text)] } else { split(text) };
    if chunks.len() > DOCUMENTS {
        return Err(vec![problem(0, format!("more than {DOCUMENTS} documents in one file"))]);
    }
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for (line, chunk) in chunks {
        let read = if json { json_value(chunk) } else { yaml::<Value>(line, chunk) };
        match read.and_then(|value| expand(line, chunk, value, json)) {
            Ok(mut found) => documents.append(&mut found),
            Err(fault) => problems.push(problem(fault.line.unwrap_or(line), fault.reason)),
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(problems) }
}

fn expand(line: u64, chunk: &str, value: Value, json: bool) -> Result<Vec<Document>, Fault> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let head = |value: &Value| {
        Head::deserialize(value).map_err(|error| Fault { line: None, reason: format!("no object: {error}") })
    };
    let first = head(&value)?;
    if let (true, Some(items)) = (first.kind.ends_with("List"), first.items) {
        return items.into_iter().map(|item| document(line, head(&item)?.kind, None, item)).collect();
    }
    Ok(vec![document(line, first.kind, (!json).then_some(chunk), value)?])
}

fn document(line: u64, kind: String, text: Option<&str>, value: Value) -> Result<Document, Fault> {
    let read = model::read(value).map_err(|error| {
        // The types tell what is wrong, the text where.
        let better = text.and_then(|text| place::fault(&kind, line, text));
        let reason = error.to_string();
        better.map_or(Fault { line: None, reason }, |fault| Fault { line: fault.line, ..fault })
    })?;
    let Some(Read { object, unknown_fields }) = read else {
        return Ok(Document { line, kind, object: None, unknown_fields: Vec::new() });
    };
    let strict = !matches!(object, Object::Service(_) | Object::EndpointSlice(_) | Object::Pod(_));
    match unknown_fields.first() {
        Some(field) if strict => Err(Fault {
            line: text.and_then(|text| place::key(line, text, field)),
            reason: format!("{}: unknown field {field:?}", object.key()),
        }),
        _ => Ok(Document { line, kind, object: Some(object), unknown_fields }),
    }
}

/// Splits at document markers. Source: YAML 1.2 §9.1.2, a line that begins with `---` or `...`
/// is a marker wherever it stands, even inside a scalar.
fn split(text: &str) -> Vec<(u64, &str)> {
    let (mut chunks, mut start, mut start_line, mut at) = (Vec::new(), 0, 1, 0);
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        let end = at + content.len();
        if is_marker(content) {
            chunks.push((start_line, text.get(start..at).unwrap_or_default()));
            // What follows `--- ` on the same line belongs to the document.
            let inline = content.get(3..).is_some_and(has_content);
            (start, start_line) = if inline { (at + 3, line) } else { (end, line + 1) };
        }
        at = end;
    }
    chunks.push((start_line, text.get(start..).unwrap_or_default()));
    chunks.retain(|(_, chunk)| chunk.lines().any(has_content));
    for (line, chunk) in &mut chunks {
        skip_blank(line, chunk);
    }
    chunks
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(['#', '%'])
}

/// Moves the start of a document to its first line with content.
fn skip_blank(line: &mut u64, chunk: &mut &str) {
    while let Some((first, rest)) = chunk.split_once('\n') {
        if has_content(first) {
            return;
        }
        (*line, *chunk) = (*line + 1, rest);
    }
}

fn yaml<T: DeserializeOwned>(line: u64, text: &str) -> Result<T, Fault> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Fault {
        line: error.location().map(|at| line + at.line().saturating_sub(1)),
        reason: error.without_snippet().to_string(),
    })
}

fn json_value(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text)
        .map_err(|error| Fault { line: Some(error.line() as u64), reason: error.to_string() })
}

#[cfg(test)]
mod tests;
