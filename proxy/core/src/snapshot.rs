//! The configuration that one request reads.
//!
//! Adopt builds it off the hot path and swaps one pointer; every room reads the same one.
//!
//! Invariant: immutable. A request takes it once and never looks at a later one, so two versions
//! never mix within a request.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::backend::{Backend, Endpoint};
use crate::inbound::Inbound;
use crate::names::Name;
use crate::outbound::Outbound;
use crate::spec::Mesh;

/// All compiled configuration of one sidecar at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every adoption.
    pub generation: u64,
    /// Settings for every sidecar.
    pub mesh: Arc<Mesh>,
    /// How this workload receives traffic; `None` until it arrived.
    pub inbound: Option<Arc<Inbound>>,
    /// What original destinations mean.
    pub addresses: FxHashMap<SocketAddr, Target>,
    /// How to call service ports.
    pub outbounds: FxHashMap<Name, Arc<Outbound>>,
    /// The endpoints behind service ports.
    pub backends: FxHashMap<Name, Arc<Backend>>,
}

impl Snapshot {
    /// What an original destination means; `None`: not asked for yet. IPv4 in IPv6 is IPv4.
    #[must_use]
    pub fn target(&self, destination: SocketAddr) -> Option<&Target> {
        self.addresses.get(&SocketAddr::new(destination.ip().to_canonical(), destination.port()))
    }

    /// How to call the service port at an original destination; `None` when it is none, or unknown.
    #[must_use]
    pub fn outbound(&self, destination: SocketAddr) -> Option<&Arc<Outbound>> {
        match self.target(destination)? {
            Target::Outbound(name) => self.outbounds.get(name),
            Target::Workload(_) | Target::Unknown => None,
        }
    }
}

/// What an original destination means.
#[derive(Clone, Debug)]
pub enum Target {
    /// A service port: route by its outbound.
    Outbound(Name),
    /// One workload, called directly.
    Workload(Arc<Endpoint>),
    /// Nothing the control plane knows.
    Unknown,
}

#[cfg(test)]
mod tests;
