//! How far an object has come among the sidecars, and who refuses it: each replica counts its own, and
//! the leader adds up what the others tell.
//!
//! What is told is small whatever the mesh's size: counts for the mesh, for each namespace and for each
//! AuthorizationPolicy, and a bounded list of refusals.
//!
//! Whom an object concerns: an AuthorizationPolicy the pods it applies to; a TlsPolicy those of its
//! namespace, or of the mesh; routes and TrafficPolicies are for clients, and any sidecar may be one.
//!
//! Invariant: a sidecar counts as behind only when it has been for some time, so that the counts of a
//! mesh at work stand still.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_control_plane_core::config::{Key, Origin, Resource, ResourceType};
use weft_control_plane_core::model::{Kind, ObjectKey};
use weft_control_plane_core::session::Published;
use weft_k8s::MAX_REFUSALS;

use crate::status::{self, Sidecar};

/// Refusals that one replica tells. Source: Weft's own; 256 objects with one sample each, about 300 KiB.
const REFUSALS: usize = 256;
/// Longest reason that is told on. Source: the core keeps 1 KiB.
const REASON: usize = 1_024;

/// How far one object has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Sidecars that it concerns.
    pub total: u32,
    /// Of these, those that run its newest version.
    pub applied: u32,
    /// How many refuse it.
    pub refuse: u32,
    /// Some of those that refuse it, sorted.
    pub refusing: Vec<Refusing>,
}

/// One sidecar that refuses something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusing {
    /// The workload, "namespace/pod".
    pub workload: String,
    /// Why.
    pub reason: String,
}

/// How many sidecars, by whom an object may concern.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// All.
    pub all: u32,
    /// By namespace.
    pub namespaces: BTreeMap<String, u32>,
    /// By AuthorizationPolicy that applies, "namespace/name".
    pub authorizations: BTreeMap<String, u32>,
}

/// What sidecars refuse of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many refuse it.
    pub count: u32,
    /// Some of them.
    pub samples: Vec<Refusing>,
}

/// What one replica knows of its sidecars.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Sidecars with an open stream.
    pub connected: Tally,
    /// Of these, those that have not taken the newest configuration for some time.
    pub behind: Tally,
    /// What is refused, by object.
    pub refused: Vec<Refused>,
}

impl Tally {
    fn count(&mut self, workload: &str, published: &Published) {
        self.all += 1;
        let namespace = workload.split_once('/').map_or("", |(namespace, _)| namespace);
        *self.namespaces.entry(namespace.to_owned()).or_default() += 1;
        let inbound = published.resource(&Key::new(ResourceType::Inbound, workload));
        if let Some(Resource::Inbound(inbound)) = inbound {
            for policy in &inbound.authorizations {
                *self.authorizations.entry(policy.clone()).or_default() += 1;
            }
        }
    }

    fn of(&self, key: &ObjectKey) -> u32 {
        match key.kind {
            Kind::AuthorizationPolicy => self.authorizations.get(&key.path()).copied().unwrap_or(0),
            Kind::TlsPolicy if key.namespace != crate::tls::OWN_NAMESPACE => {
                self.namespaces.get(&key.namespace).copied().unwrap_or(0)
            }
            _ => self.all,
        }
    }
}

impl Summary {
    /// What this replica's own sidecars make of what it publishes; `behind` tells which of them have been
    /// late for some time.
    pub fn of(sidecars: &[Sidecar], published: &Published, behind: impl Fn(&Sidecar) -> bool) -> Self {
        let mut summary = Self::default();
        let mut refused: BTreeMap<Origin, Refused> = BTreeMap::new();
        for sidecar in sidecars {
            summary.connected.count(&sidecar.workload, published);
            if behind(sidecar) {
                summary.behind.count(&sidecar.workload, published);
            }
            for (origin, reason) in status::refused_origins(sidecar, published) {
                if refused.len() < REFUSALS || refused.contains_key(&origin) {
                    refused.entry(origin).or_default().note(&sidecar.workload, &reason);
                }
            }
        }
        let named = |(origin, refused): (Origin, Refused)| {
            let Origin { kind, namespace, name } = origin;
            Refused { kind, namespace, name, ..refused }
        };
        summary.refused = refused.into_iter().map(named).collect();
        summary
    }

    /// How far an object has come, by what all replicas tell.
    pub fn reach(all: &[Self], key: &ObjectKey) -> Reach {
        let mut reach = Reach::default();
        let mut behind = 0_u32;
        for summary in all {
            reach.total = reach.total.saturating_add(summary.connected.of(key));
            behind = behind.saturating_add(summary.behind.of(key));
            for refused in summary.refused.iter().filter(|refused| refused.is(key)) {
                reach.refuse = reach.refuse.saturating_add(refused.count);
                reach.refusing.extend(refused.samples.iter().cloned());
            }
        }
        reach.refusing.sort_unstable();
        reach.refusing.dedup();
        reach.refusing.truncate(MAX_REFUSALS);
        reach.total = reach.total.max(reach.refuse);
        reach.applied = reach.total.saturating_sub(reach.refuse).saturating_sub(behind);
        reach
    }
}

impl Refused {
    fn note(&mut self, workload: &str, reason: &str) {
        self.count += 1;
        if self.samples.len() < MAX_REFUSALS {
            let reason = reason.get(..reason.floor_char_boundary(REASON)).unwrap_or(reason);
            self.samples.push(Refusing { workload: workload.to_owned(), reason: reason.to_owned() });
        }
    }

    fn is(&self, key: &ObjectKey) -> bool {
        self.kind == key.kind.as_str() && self.namespace == key.namespace && self.name == key.name
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "applied on {} of {} sidecars; {} refuse", self.applied, self.total, self.refuse)?;
        for (index, refusing) in self.refusing.iter().take(3).enumerate() {
            let before = if index == 0 { ": " } else { "; " };
            write!(f, "{before}{}: {}", refusing.workload, refusing.reason)?;
        }
        Ok(())
    }
}
