//! What a request is called: in the log, in the ring of recent decisions, and towards its caller.
//!
//! Opened with the record. A caller's own `x-request-id` is kept, so that one name goes through every hop;
//! without one the sidecar's own name serves.
//!
//! Invariant: naming a request allocates nothing; a name is formatted only where somebody reads it.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::trace::context::TraceId;

/// The field in which callers name their requests. Source: Envoy and Istio.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The field in which an answer of a sidecar's own says what its request was called.
pub const WEFT_REQUEST_ID: HeaderName = HeaderName::from_static("weft-request-id");

/// Longest name taken from a caller, bytes. Source: Weft's own; three UUIDs, and a bound on lines and rings.
const LONGEST: usize = 128;

/// A request's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestId {
    /// The caller's name for it; empty: it has none.
    given: String,
    made: u128,
}

impl RequestId {
    /// Takes the caller's name for it where there is a usable one, and `made` for the case that there is none.
    pub(super) fn begin(&mut self, headers: &HeaderMap, made: u128) {
        self.made = made;
        self.take(headers.get(X_REQUEST_ID));
    }

    /// Takes the name that a field says, if it is usable: visible ASCII, and not too long.
    pub(super) fn take(&mut self, said: Option<&HeaderValue>) {
        let usable = |text: &&str| {
            !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Some(text) = said.and_then(|value| value.to_str().ok()).filter(usable) {
            self.given.clear();
            self.given.push_str(text);
        }
    }

    /// Whether the caller named it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// The caller's name for it, where it gave one.
    #[must_use]
    pub fn given(&self) -> Option<&str> {
        (!self.given.is_empty()).then_some(self.given.as_str())
    }

    /// The sidecar's own name for it, which serves where the caller gave none, in hexadecimal.
    #[must_use]
    pub fn made_hex(&self) -> [u8; 32] {
        // The same 16 bytes as a trace's id.
        TraceId(self.made.to_be_bytes()).hex()
    }

    /// The name as the value of a field.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        let value = match self.given() {
            Some(given) => HeaderValue::from_str(given),
            None => HeaderValue::from_bytes(&self.made_hex()),
        };
        // Both forms are visible ASCII; an empty field is what remains if that were ever not so.
        value.unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Whether `text` is this name.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        if self.is_given() { self.given == text } else { u128::from_str_radix(text, 16) == Ok(self.made) }
    }

    pub(super) fn wipe(&mut self) {
        self.given.clear();
        self.made = 0;
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_given() { f.write_str(&self.given) } else { write!(f, "{:032x}", self.made) }
    }
}

/// One worker's names for requests that come without one.
#[derive(Debug)]
pub(super) struct Ids {
    /// Differs between workers, processes and pods.
    prefix: u64,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        let prefix = std::hash::RandomState::new().build_hasher().finish();
        Self { prefix, next: AtomicU64::new(1) }
    }

    pub(super) fn next(&self) -> u128 {
        u128::from(self.prefix) << 64 | u128::from(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(value: &'static str) -> RequestId {
        let mut id = RequestId::default();
        id.begin(&HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(value))]), 7);
        id
    }

    #[test]
    fn a_callers_name_is_kept() {
        let id = named("c0ffee-1");
        assert!(id.is_given() && id.is("c0ffee-1") && !id.is("7"));
        assert_eq!((id.to_string().as_str(), id.value()), ("c0ffee-1", HeaderValue::from_static("c0ffee-1")));
    }

    #[test]
    fn what_is_no_name_is_not_kept() {
        let long: &'static str = "x".repeat(LONGEST + 1).leak();
        for value in ["", "two words", long] {
            let id = named(value);
            assert!(!id.is_given(), "{value:?}");
            assert_eq!(id.to_string(), "00000000000000000000000000000007");
            assert!(id.is("00000000000000000000000000000007"));
        }
    }

    #[test]
    fn a_made_name_is_the_same_in_every_form() {
        for made in [0, 255, u128::MAX] {
            let mut id = RequestId::default();
            id.begin(&HeaderMap::new(), made);
            assert_eq!(id.made_hex().as_slice(), format!("{made:032x}").as_bytes());
            assert_eq!(id.value(), id.to_string().as_str());
        }
    }

    #[test]
    fn made_names_differ_between_requests_and_workers() {
        let (one, other) = (Ids::new(), Ids::new());
        let made: std::collections::HashSet<_> = (0..100).flat_map(|_| [one.next(), other.next()]).collect();
        assert_eq!(made.len(), 200);
    }
}
