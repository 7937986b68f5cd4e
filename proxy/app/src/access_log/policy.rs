//! What the access log is told to write: which requests, under which names, and what of their heads.
//!
//! Made when configuration is adopted; read when a record opens (what of the head to keep) and when it
//! closes (whether and how to write it).
//!
//! Invariant: credentials are not kept, whatever a policy says.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use weft_proxy_core::secret;

/// Which requests are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// None.
    #[default]
    Off,
    /// Refusals, resets and server errors.
    Errors,
    /// Every request and connection.
    All,
}

/// Under which names fields are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Weft's own.
    #[default]
    Weft,
    /// The Elastic Common Schema's.
    Ecs,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which requests.
    pub mode: Mode,
    /// Share of what went well, parts per million; refusals and errors are always written.
    pub ppm: u32,
    /// Names of the fields.
    pub format: Format,
    /// Query parameters whose values may be written.
    pub query: Vec<Arc<str>>,
    /// Header fields of the request that are written, and what they are called.
    pub headers: Vec<(Arc<str>, HeaderName)>,
}

/// All of them. Source: parts per million.
pub const ALL_PPM: u32 = 1_000_000;

impl Default for Policy {
    fn default() -> Self {
        Self { mode: Mode::Off, ppm: ALL_PPM, format: Format::Weft, query: Vec::new(), headers: Vec::new() }
    }
}

impl Policy {
    /// A policy that only says which requests.
    #[must_use]
    pub fn of(mode: Mode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Whether anything of a head is kept beyond method, path and host.
    #[must_use]
    pub(super) fn keeps(&self) -> bool {
        !self.query.is_empty() || !self.headers.is_empty()
    }

    /// Writes the query with the values that may be seen into `out`.
    pub(super) fn keep_query(&self, query: &str, out: &mut String) {
        if self.query.is_empty() {
            return;
        }
        for pair in query.split('&') {
            if out.len() + pair.len() > LONGEST {
                return;
            }
            if !out.is_empty() {
                out.push('&');
            }
            let Some((name, value)) = pair.split_once('=') else {
                // Without a name it may be all value.
                out.push('*');
                continue;
            };
            out.push_str(name);
            out.push('=');
            let may_be_seen = self.query.iter().any(|allowed| **allowed == *name);
            out.push_str(if may_be_seen { value } else { "*" });
        }
    }

    /// The header fields that are to be written, as text.
    pub(super) fn keep_headers(&self, headers: &HeaderMap, out: &mut Vec<(Arc<str>, String)>) {
        for (name, header) in &self.headers {
            if secret::is_secret(header.as_str()) {
                continue;
            }
            let value = headers.get(header).map(|value| String::from_utf8_lossy(value.as_bytes()));
            if let Some(value) = value {
                let end = value.floor_char_boundary(LONGEST);
                out.push((Arc::clone(name), value.get(..end).unwrap_or_default().to_owned()));
            }
        }
    }
}

/// Bytes of one query or field that are written. Source: as for paths.
const LONGEST: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_values_of_a_query_are_kept() {
        let policy = Policy { query: vec!["page".into(), "q".into()], ..Policy::of(Mode::All) };
        for (query, kept) in [
            ("page=2&token=s3cret&q=a%20b", "page=2&token=*&q=a%20b"),
            ("s3cret", "*"),
            ("token=a=b&page=", "token=*&page="),
            ("PAGE=2", "PAGE=*"),
        ] {
            let mut out = String::new();
            policy.keep_query(query, &mut out);
            assert_eq!(out, kept);
        }
    }

    #[test]
    fn a_credential_is_not_kept_though_a_policy_names_it() {
        let name = |name: &'static str| (Arc::from(name), HeaderName::from_static(name));
        let policy = Policy {
            headers: vec![name("x-tenant"), name("authorization"), name("cookie"), name("x-none")],
            ..Policy::of(Mode::All)
        };
        let headers = ["x-tenant", "authorization", "cookie"]
            .map(|name| (HeaderName::from_static(name), http::HeaderValue::from_static("value")));
        let mut out = Vec::new();
        policy.keep_headers(&HeaderMap::from_iter(headers), &mut out);
        assert_eq!(out, [(Arc::from("x-tenant"), "value".to_owned())]);
    }
}
