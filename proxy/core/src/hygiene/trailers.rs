//! Trailers carry what was learned while the body was sent, and nothing that steers the message.
//!
//! When a body's trailers pass, in either direction.
//!
//! Invariant: no field that frames, routes or authorizes survives in trailers.

use http::HeaderMap;

use super::fields;

/// Takes out of trailers what belongs in a head only.
pub fn scrub_trailers(trailers: &mut HeaderMap) {
    if trailers.keys().any(|name| is_forbidden(name.as_str())) {
        fields::drop_where(trailers, is_forbidden);
    }
}

/// Source: RFC 9110 §6.5.1, fields for framing, routing, request modifiers, authentication, response
/// control, and how to process content.
fn is_forbidden(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "content-type"
            | "content-encoding"
            | "content-range"
            | "transfer-encoding"
            | "trailer"
            | "te"
            | "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "upgrade"
            | "http2-settings"
            | "authorization"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "www-authenticate"
            | "cookie"
            | "set-cookie"
            | "cache-control"
            | "expect"
            | "max-forwards"
            | "range"
            | "location"
            | "age"
            | "expires"
            | "date"
            | "retry-after"
            | "vary"
    ) || name.starts_with("if-")
        || fields::is_own(name)
        || fields::is_forwarded(name)
}
