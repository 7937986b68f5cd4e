//! How far an object has come among the sidecars, and who refuses it: each replica counts its own, and
//! the leader adds up what the others tell.
//!
//! What is told is small whatever the mesh's size: counts for the mesh, for each namespace and for each
//! AuthorizationPolicy, and a bounded list of refusals.
//!
//! Whom an object concerns: an AuthorizationPolicy the pods it applies to; a TlsPolicy or TelemetryPolicy
//! those of its namespace, or of the mesh; routes and TrafficPolicies are for clients, and any sidecar may be one.
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

/// What all replicas tell.
#[derive(Debug, Clone, Default)]
pub struct Summaries {
    /// Namespace of the installation, whose policies may be for the whole mesh.
    pub root: String,
    /// Each replica's own.
    pub all: Vec<Summary>,
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

    /// How many of these an object concerns; one of the root namespace may be for the whole mesh.
    fn of(&self, key: &ObjectKey, root: &str) -> u32 {
        match key.kind {
            Kind::AuthorizationPolicy => self.authorizations.get(&key.path()).copied().unwrap_or(0),
            Kind::TlsPolicy | Kind::TelemetryPolicy if key.namespace != root => {
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
}

impl Summaries {
    /// How far an object has come.
    pub fn reach(&self, key: &ObjectKey) -> Reach {
        let mut reach = Reach::default();
        let mut behind = 0_u32;
        for summary in &self.all {
            reach.total = reach.total.saturating_add(summary.connected.of(key, &self.root));
            behind = behind.saturating_add(summary.behind.of(key, &self.root));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_control_plane_core::model::{Model, read};

    use super::*;
    use crate::encode::encode;
    use crate::status::RefusalStatus;

    const SHOP: [&str; 3] = [
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-0", "namespace": "shop",
            "labels": {"app": "cart"}}, "spec": {"containers": []}, "status": {"podIP": "10.0.0.1"}}"#,
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "front"},
            "spec": {"containers": []}, "status": {"podIP": "10.0.0.2"}}"#,
        r#"{"apiVersion": "weft.dev/v1alpha1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "only-web", "namespace": "shop"},
            "spec": {"targetRefs": [{"kind": "Workload", "selector": {"app": "cart"}}], "action": "Allow",
                     "rules": []}}"#,
    ];

    fn published() -> Published {
        let mut model = Model::default();
        for text in SHOP {
            let read = read(serde_json::from_str(text).unwrap()).unwrap().unwrap();
            model.apply(read.object, None);
        }
        Published::new(1, Arc::new(weft_control_plane_core::compile(&model)), encode)
    }

    fn sidecar(workload: &str, generation: u64) -> Sidecar {
        Sidecar { workload: workload.to_owned(), generation, ..Sidecar::default() }
    }

    fn refuses(mut sidecar: Sidecar, policy: &str) -> Sidecar {
        sidecar.refusals.push(RefusalStatus {
            r#type: "RESOURCE_TYPE_AUTHORIZATION",
            name: policy.to_owned(),
            reason: "no".to_owned(),
            key: Key::new(ResourceType::Authorization, policy),
        });
        sidecar
    }

    fn key(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(kind, namespace, name)
    }

    fn together(all: Vec<Summary>) -> Summaries {
        Summaries { root: "weft-system".to_owned(), all }
    }

    fn counts(reach: &Reach) -> (u32, u32, u32) {
        (reach.total, reach.applied, reach.refuse)
    }

    #[test]
    fn an_object_counts_the_sidecars_that_it_concerns_on_all_replicas() {
        let published = published();
        let here = Summary::of(&[sidecar("shop/cart-0", 1)], &published, |_| false);
        let there = Summary::of(&[sidecar("front/web-0", 1), sidecar("shop/late-0", 0)], &published, |it| {
            it.generation == 0
        });
        // What another replica tells has crossed the wire.
        let there: Summary = serde_json::from_str(&serde_json::to_string(&there).unwrap()).unwrap();
        let mut all = together(vec![here, there]);
        let reach = |key: ObjectKey| counts(&all.reach(&key));
        assert_eq!(reach(key(Kind::AuthorizationPolicy, "shop", "only-web")), (1, 1, 0));
        assert_eq!(reach(key(Kind::AuthorizationPolicy, "shop", "other")), (0, 0, 0));
        assert_eq!(reach(key(Kind::TlsPolicy, "shop", "strict")), (2, 1, 0));
        assert_eq!(reach(key(Kind::TlsPolicy, "weft-system", "strict")), (3, 2, 0));
        assert_eq!(reach(key(Kind::HttpRoute, "shop", "split")), (3, 2, 0));
        assert_eq!(reach(key(Kind::Mesh, "", "mesh")), (3, 2, 0));
        all.root = "shop".to_owned();
        let reach = |key: ObjectKey| counts(&all.reach(&key));
        assert_eq!(reach(key(Kind::TlsPolicy, "shop", "strict")), (3, 2, 0), "the mesh is ruled from there");
        assert_eq!(reach(key(Kind::TlsPolicy, "weft-system", "strict")), (0, 0, 0));
    }

    #[test]
    fn who_refuses_is_counted_once_on_the_object_it_was_made_of() {
        let published = published();
        let sidecars = [refuses(sidecar("shop/cart-0", 1), "shop/only-web"), sidecar("front/web-0", 1)];
        let all = together(vec![Summary::of(&sidecars, &published, |_| false)]);
        let reach = all.reach(&key(Kind::AuthorizationPolicy, "shop", "only-web"));
        assert_eq!(counts(&reach), (1, 0, 1));
        assert_eq!(reach.to_string(), "applied on 0 of 1 sidecars; 1 refuse: shop/cart-0: no");
        let other = all.reach(&key(Kind::AuthorizationPolicy, "shop", "other"));
        assert_eq!(counts(&other), (0, 0, 0));
    }

    #[test]
    fn a_status_lists_some_and_counts_all() {
        let published = published();
        let many: Vec<Sidecar> =
            (0..100).map(|n| refuses(sidecar(&format!("shop/cart-{n:03}"), 1), "shop/only-web")).collect();
        let all = together(vec![Summary::of(&many, &published, |_| false)]);
        let reach = all.reach(&key(Kind::AuthorizationPolicy, "shop", "only-web"));
        assert_eq!((reach.refuse, reach.refusing.len()), (100, MAX_REFUSALS));
        assert_eq!((reach.total, reach.applied), (100, 0));
    }
}
