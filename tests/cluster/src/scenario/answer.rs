//! What one request brought back, and what the server said had reached it.
//!
//! Invariant: a failed request is an answer too: it has an error and no status.

use serde_json::Value;

/// What one request brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(pub Value);

impl Answer {
    /// The status; `None`: there was no answer.
    pub fn status(&self) -> Option<u64> {
        self.0.get("status")?.as_u64()
    }

    /// Why there was no answer.
    pub fn error(&self) -> Option<&str> {
        self.0.get("error")?.as_str()
    }

    /// The body as text.
    pub fn body(&self) -> &str {
        field(&self.0, "body").as_str().unwrap_or_default()
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        of_headers(field(&self.0, "headers"), name)
    }

    /// What the server said of itself and of the request: `pod`, `version`, `peer`, `method`, `path`, `http`.
    pub fn told(&self, name: &str) -> &str {
        field(&self.0, &format!("json.{name}")).as_str().unwrap_or_default()
    }

    /// A header of the request, as it reached the server.
    pub fn received(&self, name: &str) -> Option<&str> {
        of_headers(field(&self.0, "json.headers"), name)
    }
}

fn of_headers<'v>(headers: &'v Value, name: &str) -> Option<&'v str> {
    let headers = headers.as_array()?.iter();
    let mut named = headers.filter(|header| {
        header.get(0).and_then(Value::as_str).is_some_and(|found| found.eq_ignore_ascii_case(name))
    });
    named.next()?.get(1)?.as_str()
}

/// A value by its path: `status.parents.0.controllerName`; null where there is none.
pub fn field<'v>(value: &'v Value, path: &str) -> &'v Value {
    let step = |value: &'v Value, name: &str| match name.parse::<usize>() {
        Ok(at) if value.is_array() => value.get(at).unwrap_or(&Value::Null),
        _ => value.get(name).unwrap_or(&Value::Null),
    };
    path.split('.').fold(value, step)
}
