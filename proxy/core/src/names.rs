//! Names that are cheap to clone and to compare: service ports, policies, workloads, identities.
//!
//! Adopt makes them once a resource; the rooms pass them on to records and metrics.
//!
//! Invariant: an [`Identity`] was parsed whole at construction; its parts are slices of one text.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<Arc<str>> for $type {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// Name of a service port (`shop/catalog:80`), a service (`shop/catalog`), a route or a policy
    /// (`shop/allow-cart`).
    Name
}

name! {
    /// Name of a workload, `<namespace>/<pod>`.
    WorkloadName
}

/// A SPIFFE identity, `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
#[derive(Clone)]
pub struct Identity {
    text: Arc<str>,
    trust_domain_end: u16,
    namespace_end: u16,
}

impl Identity {
    /// Parses an identity.
    ///
    /// # Errors
    /// `NotAnIdentity` when the text has another shape, an empty part, a character outside the SPIFFE
    /// path and trust-domain sets, or more than 2048 bytes.
    pub fn parse(text: &str) -> Result<Self, NotAnIdentity> {
        let bounds = bounds(text).ok_or(NotAnIdentity)?;
        Ok(Self { text: Arc::from(text), trust_domain_end: bounds.0, namespace_end: bounds.1 })
    }

    /// The whole identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.trust_domain_end)]
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.text[usize::from(self.trust_domain_end) + NAMESPACE.len()..usize::from(self.namespace_end)]
    }

    /// The service account's name.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.text[usize::from(self.namespace_end) + ACCOUNT.len()..]
    }
}

/// The text is not an identity of this mesh's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity of the form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
pub struct NotAnIdentity;

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Identity {}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for Identity {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// Ends of the trust domain and of the namespace.
fn bounds(text: &str) -> Option<(u16, u16)> {
    if text.len() > MAX_IDENTITY {
        return None;
    }
    let rest = text.strip_prefix(SCHEME)?;
    let (domain, rest) = rest.split_once(NAMESPACE)?;
    let (namespace, account) = rest.split_once(ACCOUNT)?;
    let domain_ok = !domain.is_empty() && domain.bytes().all(in_trust_domain);
    if !domain_ok || !segment(namespace) || !segment(account) {
        return None;
    }
    let domain_end = SCHEME.len() + domain.len();
    let namespace_end = domain_end + NAMESPACE.len() + namespace.len();
    Some((u16::try_from(domain_end).ok()?, u16::try_from(namespace_end).ok()?))
}

fn in_trust_domain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

fn segment(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain)
}

const SCHEME: &str = "spiffe://";
const NAMESPACE: &str = "/ns/";
const ACCOUNT: &str = "/sa/";

/// Source: SPIFFE-ID specification §2.3, URIs up to 2048 bytes must be supported, longer ones must
/// not be made.
const MAX_IDENTITY: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_knows_its_parts() {
        let id = Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "shop", "cart")
        );
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/b/sa/c",
            "spiffe://TD/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://u@td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a/sa/b#x",
            "spiffe://td/ns/a/sa/b%2f",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a/sa/b\0",
            "spiffe://td/ns/a/sa/é",
            " spiffe://td/ns/a/sa/b",
        ] {
            assert_eq!(Identity::parse(text), Err(NotAnIdentity), "{text:?}");
        }
        assert!(Identity::parse(&format!("spiffe://td/ns/a/sa/{}", "b".repeat(2048))).is_err());
    }

    #[test]
    fn names_are_found_by_their_text() {
        let map: std::collections::HashMap<Name, u8> = [(Name::from("shop/cart:80"), 1)].into();
        assert_eq!(map.get("shop/cart:80"), Some(&1));
    }
}
