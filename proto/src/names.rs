//! Text forms of names that both planes share.
//!
//! Invariant: a name is parsed once, where it enters; inside each plane it is a type of its own.

use thiserror::Error;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {expected}")]
pub struct BadName {
    /// The text.
    pub text: String,
    /// What it should have been, with an example.
    pub expected: &'static str,
}

/// A port of a service: `namespace/service:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Port of the service.
    pub port: u16,
}

impl std::fmt::Display for ServicePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

impl std::str::FromStr for ServicePort {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            text: text.to_owned(),
            expected: "a service port (namespace/service:port, e.g. shop/catalog:80)",
        };
        let (namespace, rest) = text.split_once('/').ok_or_else(bad)?;
        let (service, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        if !is_label(namespace) || !is_label(service) || port == 0 {
            return Err(bad());
        }
        Ok(Self { namespace: namespace.to_owned(), service: service.to_owned(), port })
    }
}

/// A workload: `namespace/pod`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}

impl std::str::FromStr for Workload {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.split_once('/') {
            Some((namespace, pod)) if is_label(namespace) && is_subdomain(pod) => {
                Ok(Self { namespace: namespace.to_owned(), pod: pod.to_owned() })
            }
            _ => Err(BadName {
                text: text.to_owned(),
                expected: "a workload (namespace/pod, e.g. shop/catalog-0)",
            }),
        }
    }
}

/// A SPIFFE identity of the mesh: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// Trust domain.
    pub trust_domain: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
}

impl std::fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl std::str::FromStr for SpiffeId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            text: text.to_owned(),
            expected: "an identity (spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>)",
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        let (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        if !is_subdomain(trust_domain) || !is_label(namespace) || !is_subdomain(account) {
            return Err(bad());
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
        })
    }
}

/// A DNS label. Source: RFC 1123 §2.1, as Kubernetes applies it to namespaces and services.
pub fn is_label(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| ok(*b) || *b == b'-')
        && bytes.first().is_some_and(|b| ok(*b))
        && bytes.last().is_some_and(|b| ok(*b))
}

/// A DNS subdomain. Source: RFC 1123 §2.1, as Kubernetes applies it to pods and service accounts.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for text in ["shop/catalog:80", "a/b:65535"] {
            assert_eq!(text.parse::<ServicePort>().unwrap().to_string(), text);
        }
        assert_eq!("shop/catalog-0".parse::<Workload>().unwrap().to_string(), "shop/catalog-0");
        let id = "spiffe://cluster.local/ns/shop/sa/cart";
        assert_eq!(id.parse::<SpiffeId>().unwrap().to_string(), id);
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in ["", "shop", "shop/catalog", "shop/catalog:0", "shop/catalog:70000", "Shop/c:1", "/c:1"] {
            assert!(text.parse::<ServicePort>().is_err(), "{text}");
        }
        for text in ["spiffe://", "spiffe://td/ns/a/sa/", "spiffe://td/ns/a/sa/b/c", "http://td/ns/a/sa/b"] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
