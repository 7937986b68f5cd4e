//! Splits a text into its documents, and joins those that come out.
//!
//! Invariant: a document that is not changed keeps its text, comments included.

use anyhow::Context as _;
use serde_json::Value;

use super::Form;

/// One document of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Its text, without the markers around it.
    pub(super) text: &'a str,
    /// Its first line, from 1.
    line: usize,
}

impl Document<'_> {
    /// What it says, read as kubectl reads it: `yes` and `on` are true, `0644` is octal.
    pub(super) fn value(&self, file: &str) -> anyhow::Result<Value> {
        let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
        if self.text.lines().all(is_blank) {
            return Ok(Value::Null);
        }
        serde_saphyr::from_str_with_options(self.text, options).map_err(|error| {
            let within = error.location().map_or(1, |at| at.line()).saturating_sub(1);
            let line = u64::try_from(self.line).unwrap_or(u64::MAX).saturating_add(within);
            anyhow::anyhow!("{file}:{line}: {}", error.without_snippet())
        })
    }
}

/// Splits at markers. Source: YAML 1.2 §9.1.2, a line that begins with `---` or `...` is a marker wherever
/// it stands.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let (mut documents, mut start, mut line, mut at) = (Vec::new(), 0, 1, 0);
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        let end = at + content.len();
        if is_marker(content) {
            documents.push(Document { text: text.get(start..at).unwrap_or_default(), line });
            // What follows `--- ` on the same line belongs to the document.
            let inline = content.get(3..).is_some_and(|rest| !is_blank(rest));
            (start, line) = if inline { (at + 3, number) } else { (end, number + 1) };
        }
        at = end;
    }
    documents.push(Document { text: text.get(start..).unwrap_or_default(), line });
    documents.retain(|document| !document.text.trim().is_empty());
    documents
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(['#', '%'])
}

/// What comes out.
#[derive(Debug)]
pub(super) struct Output {
    form: Form,
    /// Everything so far.
    pub(super) text: String,
}

impl Output {
    pub(super) fn new(form: Form) -> Self {
        Self { form, text: String::new() }
    }

    /// Adds a document as it was.
    pub(super) fn as_it_was(&mut self, text: &str) {
        self.begin();
        self.text.push_str(text);
    }

    /// Adds a document that was changed.
    pub(super) fn changed(&mut self, value: &Value) -> anyhow::Result<()> {
        self.begin();
        let text = match self.form {
            Form::Yaml => serde_saphyr::to_string(value).context("writing YAML")?,
            Form::Json => serde_json::to_string(value).context("writing JSON")?,
        };
        self.text.push_str(&text);
        Ok(())
    }

    fn begin(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str("---\n");
    }
}
