//! What the control plane tells sidecars: the plain form of `weft/v1/config.proto`, one to one.
//!
//! Where it stands: the output of *compile* and the input of *publish*. The application converts to
//! the wire's messages at its edge, field by field; nothing is decided there.
//!
//! Invariant: a config is a value. Equal facts give equal configs, in equal order.
//! Invariant: whatever a resource names by a service port exists in the same config, or the place
//! that would name it says why it does not.

mod lookup;
mod outbound;
mod resource;
mod telemetry;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

pub(crate) use lookup::pod_at;
pub use lookup::references;
pub use outbound::*;
pub use resource::*;
pub use telemetry::*;

/// The kinds of resource on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// Settings for every sidecar; named "mesh".
    Mesh,
    /// The trust bundle of one trust domain; named by it.
    Trust,
    /// How one workload receives traffic; named by the workload.
    Inbound,
    /// What an original destination means; named by the address.
    Address,
    /// How to call one service port; named by it.
    Outbound,
    /// The endpoints behind one service port; named by it.
    Backend,
    /// One AuthorizationPolicy; named by it.
    Authorization,
}

/// Name of one resource, and for whom it is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind.
    pub kind: ResourceType,
    /// Name within the kind, as on the wire.
    pub name: String,
    /// Namespace whose clients see this variant instead of the general one; only for Outbound.
    /// The wire does not carry it: a client asks by name and receives its own variant.
    pub scope: Option<String>,
}

impl Key {
    /// The key of the general variant.
    pub fn new(kind: ResourceType, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), scope: None }
    }

    /// The key of the variant for clients in one namespace.
    pub fn scoped(kind: ResourceType, name: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self { kind, name: name.into(), scope: Some(namespace.into()) }
    }

    /// The key of the mesh's settings.
    pub fn mesh() -> Self {
        Self::new(ResourceType::Mesh, "mesh")
    }

    /// The same name without the scope: what the wire carries.
    pub fn unscoped(&self) -> Self {
        Self::new(self.kind, self.name.clone())
    }
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// Settings for every sidecar.
    Mesh(Mesh),
    /// Trust bundle. Never compiled: who certifies inserts it.
    Trust(Trust),
    /// How one workload receives traffic.
    Inbound(Inbound),
    /// What an original destination means.
    Address(Address),
    /// How to call one service port.
    Outbound(Outbound),
    /// The endpoints behind one service port.
    Backend(Backend),
    /// One AuthorizationPolicy.
    Authorization(Authorization),
}

/// Everything that any sidecar may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The resources by name. Addresses of services are here; those of pods are in `pods`.
    pub resources: BTreeMap<Key, Resource>,
    /// Pods by their address: each port of it means the pod, so the addresses are made on demand.
    pub pods: BTreeMap<IpAddr, Vec<PodAddress>>,
}

/// A pod that an IP address belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    /// Ports that the pod declares, sorted.
    pub ports: Vec<u16>,
    /// The pod shares its node's address: only the declared ports are its own.
    pub shared: bool,
    /// The pod as an endpoint; its address is empty until a port is known.
    pub endpoint: Endpoint,
}

/// The text form of an address, as names and endpoints carry it.
pub fn address_name(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}
