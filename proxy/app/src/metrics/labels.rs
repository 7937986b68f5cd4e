//! An edge of the mesh: who talks to whom, by which route and how safely.
//!
//! The spines fill these in from the snapshot and the peer; metrics, log and spans show them.
//!
//! Invariant: texts are shared handles; an edge's labels never change.

use weft_proxy_core::{Identity, Name};

/// Seen from the pod: traffic coming in or going out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Inbound,
    /// From the pod.
    Outbound,
}

impl Direction {
    /// The word in labels and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What was spoken, as metrics and logs tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP of any version that is not gRPC.
    Http,
    /// gRPC.
    Grpc,
    /// The application's own TLS, relayed as it is.
    Tls,
    /// Other bytes, relayed as they are.
    Tcp,
}

impl Protocol {
    /// The word in labels and logs. Source: Istio's `request_protocol`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// How the hop between the sidecars is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// Mutual TLS of the mesh.
    MutualTls,
    /// None by the mesh.
    None,
    /// Not known, because the request ended before that was clear.
    Unknown,
}

impl Security {
    /// The word in labels and logs. Source: Istio's `connection_security_policy`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// A workload at one end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Party {
    /// The owning workload (a Deployment and the like), not the pod.
    pub workload: Name,
    /// Its namespace.
    pub namespace: Name,
    /// The identity proved (a peer's) or held (the own one).
    pub identity: Option<Identity>,
}

impl Party {
    /// Somebody the mesh knows nothing about.
    #[must_use]
    pub fn unknown() -> Self {
        Self { workload: Name::from(UNKNOWN), namespace: Name::from(UNKNOWN), identity: None }
    }
}

/// What tells one edge from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeLabels {
    /// Direction at the sidecar that counts.
    pub direction: Direction,
    /// What is spoken.
    pub protocol: Protocol,
    /// How the hop between sidecars is secured.
    pub security: Security,
    /// The workload that calls.
    pub source: Party,
    /// The workload that is called.
    pub destination: Party,
    /// The service that is called: `<namespace>/<service>:<port>`, or the outside host; "unknown".
    pub service: Name,
    /// The route taken, `<namespace>/<route>`; "default" where none is attached.
    pub route: Name,
}

impl EdgeLabels {
    /// The edge of requests that ended before anything about them was known.
    #[must_use]
    pub fn unknown(direction: Direction, protocol: Protocol) -> Self {
        Self {
            direction,
            protocol,
            security: Security::Unknown,
            source: Party::unknown(),
            destination: Party::unknown(),
            service: Name::from(UNKNOWN),
            route: Name::from(UNKNOWN),
        }
    }

    /// The edge that counts for everybody beyond the bound.
    #[must_use]
    pub fn overflow(direction: Direction, protocol: Protocol) -> Self {
        let overflow = || Name::from("overflow");
        let party = || Party { workload: overflow(), namespace: overflow(), identity: None };
        Self {
            direction,
            protocol,
            security: Security::Unknown,
            source: party(),
            destination: party(),
            service: overflow(),
            route: overflow(),
        }
    }

    /// Namespace and name of the service, where it is one of the mesh.
    #[must_use]
    pub fn service_parts(&self) -> (&str, &str) {
        let name = self.service.as_str();
        let Some((namespace, rest)) = name.split_once('/') else { return (UNKNOWN, name) };
        (namespace, rest.rsplit_once(':').map_or(rest, |(service, _)| service))
    }
}

/// Source: Istio's word for a label without a value.
pub const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_by_namespace_and_name() {
        let mut labels = EdgeLabels::unknown(Direction::Outbound, Protocol::Http);
        for (name, parts) in [
            ("shop/catalog:80", ("shop", "catalog")),
            ("example.org:443", (UNKNOWN, "example.org:443")),
            (UNKNOWN, (UNKNOWN, UNKNOWN)),
        ] {
            labels.service = Name::from(name);
            assert_eq!(labels.service_parts(), parts);
        }
    }
}
