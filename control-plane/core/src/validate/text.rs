//! The texts that users write: names, paths, hosts, header fields, durations, regular expressions.
//!
//! Where it stands: below all of *validate*. An API server checks most of this; a folder has none.
//!
//! Invariant: each check is linear in the text, and a regular expression that passes compiles within
//! a bound.

use std::time::Duration;

use regex::RegexBuilder;

/// Bytes that a compiled regular expression may take. Source: ours; the library's default is 10 MiB,
/// too much for what one route may hold many of.
const REGEX_SIZE: usize = 1 << 20;
/// Bytes of a regular expression's text. Source: Gateway API, longest header value.
const REGEX_TEXT: usize = 4096;

/// A regular expression that must match a whole value. The sidecar compiles the same text.
pub(crate) fn regex(pattern: &str) -> Result<(), String> {
    if pattern.len() > REGEX_TEXT {
        return Err(format!("a regular expression may have {REGEX_TEXT} bytes, this has {}", pattern.len()));
    }
    let whole = format!("^(?:{pattern})$");
    // The text alone first: `a)(?:b` is none, though it would be one inside the group.
    for text in [pattern, whole.as_str()] {
        RegexBuilder::new(text).size_limit(REGEX_SIZE).build().map_err(|error| {
            format!("{pattern:?} is no regular expression: {}", last_line(&error.to_string()))
        })?;
    }
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim()
}

/// A path as Exact and PathPrefix take it. Source: Gateway API, HTTPPathMatch's rules.
pub(crate) fn path(path: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("path {path:?} {why}"));
    if !path.starts_with('/') {
        return bad("does not begin with '/'");
    }
    if path.len() > 1024 {
        return bad("has more than 1024 bytes");
    }
    let lower = path.to_ascii_lowercase();
    for part in ["//", "/./", "/../", "%2f", "#"] {
        if lower.contains(part) {
            return bad(&format!("contains {part:?}"));
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        return bad("ends with a dot segment");
    }
    if !path_characters(path.as_bytes()) {
        return bad("contains a character that no path has; write it as %XX");
    }
    Ok(())
}

/// A path that a policy may name: sidecars refuse one that readers could take for different paths.
pub(crate) fn policy_path(path: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("path {path:?} {why}"));
    if !path_characters(path.as_bytes()) {
        return bad("contains a character that no path has; write it as %XX");
    }
    let lower = path.to_ascii_lowercase();
    for part in [";", "%2f", "%5c", "%25"] {
        if lower.contains(part) {
            return bad(&format!("contains {part:?}, which servers understand in different ways"));
        }
    }
    let control = |escape: &str| escape.starts_with(['0', '1']) || escape.starts_with("7f");
    if lower.split('%').skip(1).any(control) {
        return bad("contains an encoded control character");
    }
    if lower.replace("%2e", ".").split('/').any(|segment| matches!(segment, "." | "..")) {
        return bad("contains a dot segment");
    }
    Ok(())
}

fn path_characters(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (byte, after) if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte) => after,
            _ => return false,
        };
    }
    true
}

/// A path that replaces another: empty, or of a path's characters.
pub(crate) fn replacement(path: &str) -> Result<(), String> {
    if path.len() > 1024 {
        return Err(format!("path {path:?} has more than 1024 bytes"));
    }
    if !path_characters(path.as_bytes()) {
        return Err(format!("path {path:?} contains a character that no path has; write it as %XX"));
    }
    Ok(())
}

/// A field or parameter name. Source: RFC 9110 §5.1; Gateway API, at most 256 bytes.
pub(crate) fn token(what: &str, name: &str) -> Result<(), String> {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=256).contains(&name.len()) && name.bytes().all(ok) {
        return Ok(());
    }
    Err(format!("{name:?} is no {what} name"))
}

/// A header field's value. Source: RFC 9110 §5.5; Gateway API, 1 to 4096 bytes.
pub(crate) fn field_value(value: &str) -> Result<(), String> {
    let visible = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let padded = value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']);
    if (1..=4096).contains(&value.len()) && visible && !padded {
        return Ok(());
    }
    Err(format!("{value:?} is no header value"))
}

/// A host name without a wildcard. Source: Gateway API, PreciseHostname.
pub(crate) fn hostname(name: &str) -> Result<(), String> {
    if subdomain(name) {
        Ok(())
    } else {
        Err(format!("{name:?} is no host name (lower case, no wildcard, no port)"))
    }
}

/// A DNS label. Source: RFC 1123 §2.1, as Kubernetes applies it.
pub(crate) fn label(text: &str) -> bool {
    let ends =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    bytes.len() <= 63 && bytes.iter().all(inner) && ends(bytes.first()) && ends(bytes.last())
}

/// A DNS subdomain. Source: RFC 1123 §2.1, as Kubernetes applies it.
pub(crate) fn subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(label)
}

/// A span of time. Source: GEP-2257.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    weft_k8s::Duration::parse(text).map(Duration::from)
}
