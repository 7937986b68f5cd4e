//! From epochs to snapshots: decode, compile, check references, build what requests will read.
//!
//! Stands in the configuration's walk after *subscribe*; the rooms read the snapshot it gives. The
//! simulation runs the very same code.
//!
//! ```text
//! epoch ─► read (decode, compile) ─► reconcile (references) ─► Snapshot (unchanged parts shared)
//!                  │                        │
//!                  └───── refusal ◄─────────┘     the last good version stays
//! ```
//!
//! Invariant: pure: no runtime, socket, clock or disk; equal epochs give equal snapshots.
//! Invariant: an epoch is applied whole: either way the result is one snapshot, and each resource in
//! it is of this epoch or of its last good version.
//! Invariant: no Outbound, Address or Backend in a snapshot names what the snapshot does not hold; a
//! policy that is named and missing denies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use weft_proto::v1;
use weft_proxy_core::{Inbound, Name, Policy, Snapshot};

mod decode;
mod key;
mod policy;
mod read;
mod reconcile;
mod route;
mod telemetry;

pub use decode::Trust;
pub(crate) use decode::trust as read_trust;
pub use key::{Key, Kind};
use read::{Compiled, Resource, read};

/// Resources that one sidecar holds at most.
/// Source: Weft's own: 4,096 lookups with three resources each, four times over.
const MAX_RESOURCES: usize = 50_000;

/// Holds what the control plane sent and turns it into snapshots.
#[derive(Debug)]
pub struct Adopter {
    trust_domain: String,
    node: Vec<IpAddr>,
    resources: BTreeMap<Key, Resource>,
    snapshot: Arc<Snapshot>,
}

/// What became of one epoch.
#[derive(Debug)]
pub struct Applied {
    /// The answer to the control plane.
    pub ack: v1::Ack,
    /// The snapshot from now on; `None`: the epoch changed nothing that requests see.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The trust bundle from now on; `None`: unchanged.
    pub trust: Option<Trust>,
    /// Generation of the control plane's model that is shown now.
    pub generation: u64,
}

/// A refusal before it becomes a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    key: v1::Key,
    version: Bytes,
    reason: String,
}

impl Adopter {
    /// An adopter that holds nothing yet, for a sidecar of `trust_domain`.
    pub fn new(trust_domain: impl Into<String>) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            node: Vec::new(),
            resources: BTreeMap::new(),
            snapshot: Arc::new(Snapshot::default()),
        }
    }

    /// With addresses of the sidecar's node that it knows by itself: the kubelet's probes may come from there
    /// too.
    #[must_use]
    pub fn on_node(mut self, addresses: Vec<IpAddr>) -> Self {
        self.node = addresses;
        self
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Applies one epoch.
    pub fn apply(&mut self, epoch: v1::Epoch) -> Applied {
        let mut refused = Vec::new();
        let mut before = BTreeMap::new();
        for wire in &epoch.removals {
            self.remove(wire, &mut before, &mut refused);
        }
        for wire in epoch.upserts {
            self.upsert(wire, &mut before, &mut refused);
        }
        reconcile::reconcile(&mut self.resources, &mut before, &mut refused);
        let changed: Vec<&Key> =
            before.iter().filter(|(key, old)| self.differs(key, old.as_ref())).map(|(key, _)| key).collect();
        let own_trust = Key::new(Kind::Trust, self.trust_domain.as_str());
        let trust = if changed.contains(&&own_trust) { self.trust().cloned() } else { None };
        let snapshot =
            changed.iter().any(|key| key.kind != Kind::Trust).then(|| self.build(&changed, &mut refused));
        if let Some(snapshot) = &snapshot {
            self.snapshot = Arc::clone(snapshot);
        }
        Applied { ack: ack(epoch.nonce, refused), snapshot, trust, generation: epoch.generation }
    }

    /// What is held, for the first message of a stream.
    pub fn held(&self) -> Vec<v1::Held> {
        let held = |(key, resource): (&Key, &Resource)| v1::Held {
            key: Some(key.into()),
            version: resource.version.clone(),
        };
        self.resources.iter().map(held).collect()
    }

    /// What is held, whole: for the disk and for `/config`. Bodies are shared, not copied.
    pub fn resources(&self) -> Vec<v1::Resource> {
        let resource = |(key, resource): (&Key, &Resource)| v1::Resource {
            key: Some(key.into()),
            version: resource.version.clone(),
            body: resource.body.clone(),
        };
        self.resources.iter().map(resource).collect()
    }

    /// Whether a resource is held.
    pub fn holds(&self, key: &Key) -> bool {
        self.resources.contains_key(key)
    }

    /// Names of the held resources of one kind, sorted.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.resources.keys().filter(move |key| key.kind == kind).map(|key| key.name.as_str())
    }

    /// The trust bundle of the sidecar's own trust domain.
    pub fn trust(&self) -> Option<&Trust> {
        match &self.resources.get(&Key::new(Kind::Trust, self.trust_domain.as_str()))?.compiled {
            Compiled::Trust(trust) => Some(trust),
            _ => None,
        }
    }

    fn remove(&mut self, wire: &v1::Key, before: &mut Before, refused: &mut Vec<Refused>) {
        // A kind not known here is not held either.
        let Some(key) = Key::of(wire) else { return };
        if key.kind == Kind::Trust && key.name == self.trust_domain {
            let reason =
                "without its trust bundle a sidecar could trust nobody; it keeps the last one".to_owned();
            refused.push(Refused { key: wire.clone(), version: Bytes::new(), reason });
            return;
        }
        if let Some(old) = self.resources.remove(&key) {
            before.entry(key).or_insert(Some(old));
        }
    }

    fn upsert(&mut self, wire: v1::Resource, before: &mut Before, refused: &mut Vec<Refused>) {
        let wire_key = wire.key.clone().unwrap_or_default();
        let refuse =
            |reason: String| Refused { key: wire_key.clone(), version: wire.version.clone(), reason };
        let Some(key) = Key::of(&wire_key) else {
            let kind = wire_key.r#type;
            let reason = format!("kind {kind} is not known to sidecar {}", env!("CARGO_PKG_VERSION"));
            refused.push(refuse(reason));
            return;
        };
        let held = self.resources.get(&key);
        if held.is_some_and(|held| held.version == wire.version && held.body == wire.body) {
            return;
        }
        if held.is_none() && self.resources.len() >= MAX_RESOURCES {
            refused.push(refuse(format!("the sidecar holds {MAX_RESOURCES} resources already")));
            return;
        }
        match read(&key, &wire.version, &wire.body) {
            Ok(resource) => {
                let old = self.resources.insert(key.clone(), resource);
                before.entry(key).or_insert(old);
            }
            Err(invalid) => refused.push(refuse(invalid.to_string())),
        }
    }

    fn differs(&self, key: &Key, old: Option<&Resource>) -> bool {
        let now = self.resources.get(key);
        now.map(|resource| (&resource.version, &resource.body)) != old.map(|old| (&old.version, &old.body))
    }

    /// A snapshot that shares everything with the last one but what changed.
    fn build(&self, changed: &[&Key], refused: &mut Vec<Refused>) -> Arc<Snapshot> {
        let mut next = Snapshot::clone(&self.snapshot);
        next.generation = next.generation.wrapping_add(1);
        let mut inbound_changed = false;
        for &key in changed {
            let now = self.resources.get(key).map(|resource| &resource.compiled);
            read::place(&mut next, key, now);
            inbound_changed |= matches!(key.kind, Kind::Inbound | Kind::Authorization);
        }
        if inbound_changed {
            match self.inbound() {
                Ok(inbound) => next.inbound = inbound.map(Arc::new),
                Err(refusal) => refused.push(refusal),
            }
        }
        Arc::new(next)
    }

    /// The workload's own inbound with the policies that it names and that are here.
    fn inbound(&self) -> Result<Option<Inbound>, Refused> {
        let own = self.resources.iter().find_map(|(key, resource)| match &resource.compiled {
            Compiled::Inbound(spec) => Some((key, resource, spec)),
            _ => None,
        });
        let Some((key, resource, spec)) = own else { return Ok(None) };
        let mut spec = spec.clone();
        spec.probe_sources.extend(&self.node);
        let inbound = Inbound::compile(&spec, |name| self.policy(name)).map_err(|invalid| Refused {
            key: key.into(),
            version: resource.version.clone(),
            reason: invalid.to_string(),
        })?;
        Ok(Some(inbound))
    }

    fn policy(&self, name: &Name) -> Option<Arc<Policy>> {
        match &self.resources.get(&Key::new(Kind::Authorization, name.as_str()))?.compiled {
            Compiled::Authorization(policy) => Some(Arc::clone(policy)),
            _ => None,
        }
    }
}

/// What stood under each key that an epoch touched; `None`: nothing.
type Before = BTreeMap<Key, Option<Resource>>;

fn ack(nonce: u64, refused: Vec<Refused>) -> v1::Ack {
    let refusal = |refused: Refused| v1::Refusal {
        key: Some(refused.key),
        version: refused.version,
        reason: refused.reason,
    };
    v1::Ack { nonce, refusals: refused.into_iter().map(refusal).collect() }
}

#[cfg(test)]
mod tests;
