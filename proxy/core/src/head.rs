//! The canonical view of a request head that route, authorize and record share.
//!
//! Made by the relay when a request has passed [`crate::hygiene::check_request`].
//!
//! Invariant: borrows everything and allocates nothing; it is `Copy`.

use std::borrow::Cow;

use http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::hygiene::Refusal;
use crate::path;
use crate::reason::Reason;

/// A request head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path as sent, without the query.
    pub path: &'a str,
    /// Query as sent, without `?`.
    pub query: Option<&'a str>,
    /// Host and port as the downstream named them; empty when it did not (HTTP/1.0).
    pub authority: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// The view of a checked request: the target's authority where it has one, else Host.
    #[must_use]
    pub fn of(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let authority = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
        };
        Self { method, path: uri.path(), query: uri.query(), authority, headers }
    }

    /// The path as route and authorize see it; see [`crate::path`] for the rule.
    ///
    /// # Errors
    /// A refusal with 400 when the path could be understood in different ways.
    pub fn canonical_path(&self) -> Result<Cow<'a, str>, Refusal> {
        path::canonical(self.path).map_err(|_| Refusal {
            status: StatusCode::BAD_REQUEST,
            reason: Reason::MalformedPath,
            close: false,
        })
    }

    /// The authority without its port.
    #[must_use]
    pub fn host(&self) -> &'a str {
        host_of(self.authority)
    }
}

/// Whether a message says that it is gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && matches!(value.get(16), None | Some(b'+' | b';'))
    })
}

/// The host of `host[:port]`, brackets of an IPv6 address kept.
#[must_use]
pub fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_authority_without_its_port() {
        for (authority, host) in
            [("a", "a"), ("a:80", "a"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"), ("", ""), (":80", "")]
        {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    #[test]
    fn the_targets_authority_comes_before_host() {
        let mut headers = HeaderMap::new();
        headers.insert("host", http::HeaderValue::from_static("field"));
        for (target, authority, path) in
            [("/a?b", "field", "/a"), ("http://target/a", "target", "/a"), ("http://target", "target", "/")]
        {
            let uri = target.parse().unwrap();
            let head = Head::of(&Method::GET, &uri, &headers);
            assert_eq!((head.authority, head.path), (authority, path), "{target}");
        }
    }
}
