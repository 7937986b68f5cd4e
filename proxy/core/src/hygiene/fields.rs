//! Classes of header fields, told by name.
//!
//! Under the other files of `hygiene`.
//!
//! Invariant: names are compared whole; a field is in one class.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What a field is to a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Te,
    Upgrade,
    /// Belongs to one hop and is never passed on.
    Hop,
    /// Weft's own.
    Own,
    EndToEnd,
}

pub(super) fn class(name: &HeaderName) -> Class {
    match name.as_str() {
        "host" => Class::Host,
        "content-length" => Class::ContentLength,
        "transfer-encoding" => Class::TransferEncoding,
        "connection" => Class::Connection,
        "te" => Class::Te,
        "upgrade" => Class::Upgrade,
        "keep-alive" | "proxy-connection" | "http2-settings" => Class::Hop,
        name if is_own(name) => Class::Own,
        _ => Class::EndToEnd,
    }
}

/// Whether a field is Weft's own.
#[must_use]
pub fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

/// Whether a field tells where a request came from.
#[must_use]
pub fn is_forwarded(name: &str) -> bool {
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

/// Whether a peer may take the field away by naming it in Connection.
///
/// Source: RFC 9110 §7.6.1 forbids naming what is meant for all recipients; a hop that obeys lets a
/// client strip what the next one relies on.
fn is_removable(name: &str) -> bool {
    let protected = matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "authorization"
            | "proxy-authorization"
            | "cookie"
            | "set-cookie"
            | "cache-control"
            | "vary"
            | "via"
            | "date"
            | "expect"
            | "range"
            | "origin"
            | "traceparent"
            | "tracestate"
            | "b3"
    );
    !protected
        && !is_own(name)
        && !is_forwarded(name)
        && !name.starts_with("grpc-")
        && !name.starts_with("x-b3-")
}

/// Elements of a comma-separated list over all values of a field, trimmed; empty ones are left out.
pub(super) fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(|element| element.trim_ascii())
        .filter(|element| !element.is_empty())
}

/// Removes what belongs to the hop the head came by; `keep_upgrade` leaves Upgrade and its Connection.
pub(super) fn drop_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    // Without names to remove, as nearly always, nothing is allocated.
    let named: Vec<HeaderName> = elements(headers, &header::CONNECTION)
        .filter(|element| !OPTIONS.iter().any(|option| element.eq_ignore_ascii_case(option)))
        .filter_map(|element| HeaderName::from_bytes(element).ok())
        .filter(|name| is_removable(name.as_str()))
        .take(MAX_NAMED)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [&header::CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
    if keep_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
}

/// Removes Weft's own fields.
pub(super) fn drop_own(headers: &mut HeaderMap) {
    drop_where(headers, is_own);
}

/// Removes all fields whose name fits.
pub(super) fn drop_where(headers: &mut HeaderMap, fits: fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| fits(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Elements of Connection that name no field to remove here: options, and fields handled by name.
const OPTIONS: [&[u8]; 5] = [b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings"];
/// Prefix of the fields that sidecars exchange.
const OWN_PREFIX: &str = "weft-";
/// Names of one Connection field that are obeyed. Source: no sender names more than a handful; bounds
/// the work a peer can cause.
const MAX_NAMED: usize = 64;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
