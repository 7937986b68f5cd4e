//! One resource, read: decoded and compiled once, kept with its bytes, placed into snapshots.
//!
//! Invariant: what is kept here compiled; bytes that do not compile were refused.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use weft_proxy_core::{Backend, Endpoint, Inbound, Invalid, Name, Outbound, Policy, Snapshot, Target, spec};

use super::decode::{AddressTarget, Decoded, Trust, decode};
use super::key::{Key, Kind};

/// A resource in force.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) version: Bytes,
    pub(super) body: Bytes,
    pub(super) compiled: Compiled,
    /// What it names and cannot do without.
    pub(super) needs: Vec<Key>,
}

/// A resource as snapshots hold it.
#[derive(Debug)]
pub(super) enum Compiled {
    Mesh(Arc<spec::Mesh>),
    Trust(Trust),
    /// Compiled with the policies it names whenever one of them changes.
    Inbound(spec::Inbound),
    Address(Target),
    Outbound(Arc<Outbound>),
    Backend(Arc<Backend>),
    Authorization(Arc<Policy>),
}

/// Decodes and compiles one resource.
pub(super) fn read(key: &Key, version: &Bytes, body: &Bytes) -> Result<Resource, Invalid> {
    let decoded = decode(key, body)?;
    let needs = needs(&decoded);
    let compiled = match decoded {
        Decoded::Mesh(mesh) => Compiled::Mesh(Arc::new(mesh)),
        Decoded::Trust(trust) => Compiled::Trust(trust),
        Decoded::Inbound(inbound) => {
            // Compiled for its faults only: with its policies it is compiled when the snapshot is built.
            Inbound::compile(&inbound, |_| None)?;
            Compiled::Inbound(inbound)
        }
        Decoded::Address(AddressTarget::Outbound(name)) => Compiled::Address(Target::Outbound(name)),
        Decoded::Address(AddressTarget::Workload(spec)) => {
            Compiled::Address(Target::Workload(Arc::new(Endpoint::of(&spec))))
        }
        Decoded::Address(AddressTarget::Unknown) => Compiled::Address(Target::Unknown),
        Decoded::Outbound(outbound) => Compiled::Outbound(Arc::new(Outbound::compile(&outbound)?)),
        Decoded::Backend(backend) => Compiled::Backend(Arc::new(Backend::compile(&backend)?)),
        Decoded::Authorization(policy) => Compiled::Authorization(Arc::new(Policy::compile(&policy)?)),
    };
    // The body may be a slice of a message of many megabytes: held alone, it must not keep all of it.
    let body = Bytes::copy_from_slice(body);
    let version = Bytes::copy_from_slice(version);
    Ok(Resource { version, body, compiled, needs })
}

fn needs(decoded: &Decoded) -> Vec<Key> {
    let mut needs: Vec<Key> = match decoded {
        Decoded::Address(AddressTarget::Outbound(name)) => vec![Key::new(Kind::Outbound, name.as_str())],
        Decoded::Outbound(outbound) => {
            let rules = outbound.routes.iter().flat_map(|route| &route.rules);
            let named = rules.flat_map(|rule| &rule.backends).filter_map(|share| share.backend.as_ref().ok());
            named.chain(&outbound.default_backend).map(backend).collect()
        }
        Decoded::Backend(it) => it.policy.fallback.iter().map(backend).collect(),
        // Policies are not needed but demanded: without them the inbound denies.
        Decoded::Mesh(_) | Decoded::Trust(_) | Decoded::Inbound(_) | Decoded::Address(_) => Vec::new(),
        Decoded::Authorization(_) => Vec::new(),
    };
    needs.sort();
    needs.dedup();
    needs
}

fn backend(name: &Name) -> Key {
    Key::new(Kind::Backend, name.as_str())
}

/// Puts what stands under `key` now into a snapshot, or takes it out.
pub(super) fn place(snapshot: &mut Snapshot, key: &Key, now: Option<&Compiled>) {
    let name = || Name::from(key.name.as_str());
    match (key.kind, now) {
        (_, Some(Compiled::Mesh(mesh))) => snapshot.mesh = Arc::clone(mesh),
        (Kind::Mesh, _) => snapshot.mesh = Arc::default(),
        (_, Some(Compiled::Outbound(outbound))) => {
            drop(snapshot.outbounds.insert(name(), Arc::clone(outbound)))
        }
        (Kind::Outbound, _) => drop(snapshot.outbounds.remove(key.name.as_str())),
        (_, Some(Compiled::Backend(backend))) => drop(snapshot.backends.insert(name(), Arc::clone(backend))),
        (Kind::Backend, _) => drop(snapshot.backends.remove(key.name.as_str())),
        (Kind::Address, now) => {
            // Its name was checked when it was read.
            let Ok(address) = key.name.parse::<SocketAddr>() else { return };
            match now {
                Some(Compiled::Address(target)) => drop(snapshot.addresses.insert(address, target.clone())),
                _ => drop(snapshot.addresses.remove(&address)),
            }
        }
        // Trust is no part of a snapshot; inbound and policies are compiled together, after this.
        (Kind::Trust | Kind::Inbound | Kind::Authorization, _) => {}
    }
}
