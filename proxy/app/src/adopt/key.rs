//! The name of one resource: its kind and its name within the kind.
//!
//! Invariant: a kind here is one this version knows.

use weft_proto::v1;

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Settings for every sidecar.
    Mesh,
    /// A trust bundle.
    Trust,
    /// How a workload receives traffic.
    Inbound,
    /// What an original destination means.
    Address,
    /// How to call a service port.
    Outbound,
    /// The endpoints behind a service port.
    Backend,
    /// An AuthorizationPolicy.
    Authorization,
}

/// Name of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Name within the kind.
    pub name: String,
}

impl Key {
    /// The key of `name` among the resources of `kind`.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The key as the wire has it; `None`: a kind this version does not know.
    pub fn of(wire: &v1::Key) -> Option<Self> {
        let kind = match v1::ResourceType::try_from(wire.r#type).ok()? {
            v1::ResourceType::Unspecified => return None,
            v1::ResourceType::Mesh => Kind::Mesh,
            v1::ResourceType::Trust => Kind::Trust,
            v1::ResourceType::Inbound => Kind::Inbound,
            v1::ResourceType::Address => Kind::Address,
            v1::ResourceType::Outbound => Kind::Outbound,
            v1::ResourceType::Backend => Kind::Backend,
            v1::ResourceType::Authorization => Kind::Authorization,
        };
        Some(Self { kind, name: wire.name.clone() })
    }
}

impl From<&Key> for v1::Key {
    fn from(key: &Key) -> Self {
        let kind = match key.kind {
            Kind::Mesh => v1::ResourceType::Mesh,
            Kind::Trust => v1::ResourceType::Trust,
            Kind::Inbound => v1::ResourceType::Inbound,
            Kind::Address => v1::ResourceType::Address,
            Kind::Outbound => v1::ResourceType::Outbound,
            Kind::Backend => v1::ResourceType::Backend,
            Kind::Authorization => v1::ResourceType::Authorization,
        };
        Self { r#type: kind.into(), name: key.name.clone() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}
