//! The one canonical form of a request path.
//!
//! Before route and authorize: both look at this form, never at the bytes as sent; relay forwards the
//! bytes as sent, or nothing.
//!
//! The rule, in three steps:
//! 1. **Refused always**, because readers disagree on what it means: dot segments, plain or encoded,
//!    also before `;` or next to an encoded slash; backslash, NUL, controls and blanks, plain or
//!    encoded; `#`; a `%` without two hex digits; a path that does not begin with `/`.
//! 2. **One form for equal meanings**: encoded letters, digits and `-._~` are decoded, other escapes
//!    are written in upper case, repeated slashes are one.
//! 3. **Ambiguous** ([`is_ambiguous`]): `%2F`, `;` and doubly encoded escapes mean different things to
//!    different backends. They are forwarded, and match literally, unless a policy on paths is in
//!    force: then the request is refused.
//!
//! Invariant: canonical forms are their own canonical form. A path that needs no change costs one
//! scan and no allocation.

use std::borrow::Cow;

/// The path could be understood differently by different readers; refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path could be understood in different ways")]
pub struct Unclear;

/// The canonical form of `path`, which has no query.
///
/// `*` (OPTIONS) and the empty path (CONNECT) are their own canonical form.
///
/// # Errors
/// `Unclear` by step 1 of the module's rule.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Unclear> {
    if is_plain(path.as_bytes()) || matches!(path, "" | "*") {
        return Ok(Cow::Borrowed(path));
    }
    let form = rewritten(path)?;
    Ok(if form == path { Cow::Borrowed(path) } else { Cow::Owned(form) })
}

/// Whether a backend could take the path for another one than its canonical form says.
#[must_use]
pub fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    memchr::memchr2_iter(b'%', b';', bytes).any(|at| {
        bytes[at] == b';'
            || match escape(&bytes[at..]) {
                Some(b'/') => true,
                Some(b'%') => {
                    bytes.get(at + 3..at + 5).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
                }
                _ => false,
            }
    })
}

/// Nothing to decode, to merge or to refuse.
fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut after_slash = false;
    for &byte in path {
        if !PLAIN[usize::from(byte)] || (after_slash && matches!(byte, b'/' | b'.')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

fn rewritten(path: &str) -> Result<String, Unclear> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Unclear);
    }
    let mut form = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let decoded = escape(&bytes[at..]).ok_or(Unclear)?;
                match decoded {
                    0..=0x1f | 0x7f | b'\\' => return Err(Unclear),
                    byte if is_unreserved(byte) => form.push(byte),
                    _ => form.extend(bytes[at..at + 3].iter().map(u8::to_ascii_uppercase)),
                }
                at += 2;
            }
            0..=0x20 | 0x7f | b'\\' | b'#' | b'?' => return Err(Unclear),
            b'/' if form.last() == Some(&b'/') => {}
            byte => form.push(byte),
        }
        at += 1;
    }
    let form = String::from_utf8(form).map_err(|_| Unclear)?;
    let mut segments = form.split('/').flat_map(|element| element.split("%2F"));
    match segments.any(|segment| matches!(segment.split(';').next(), Some("." | ".."))) {
        true => Err(Unclear),
        false => Ok(form),
    }
}

/// The byte that `%XX` at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Percent-decodes a query component, `+` standing for a blank; a broken escape stands for itself.
pub(crate) fn decoded(component: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *component.get(at)?;
        at += 1;
        Some(match byte {
            b'+' => b' ',
            b'%' => match escape(&component[at - 1..]) {
                Some(byte) => {
                    at += 2;
                    byte
                }
                None => byte,
            },
            byte => byte,
        })
    })
}

/// Source: RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Bytes that stand for themselves in every reader's eyes.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x100 {
        table[byte] = !matches!(byte as u8, b'%' | b'\\' | b'#' | b'?' | 0x7f);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
