//! From a model to a published state: compile, publish, and say what became of every object. The one
//! place that does, for a folder and for a cluster.
//!
//! Before it: `reload` or the cluster's feed changed the model. After it: `serve` brings the difference
//! to the sidecars, `status` and the objects' own conditions tell the people.
//!
//! Invariant: who sees an epoch finds its objects in the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use weft_control_plane_core::config::{Config, Key, Resource, ResourceType, Trust};
use weft_control_plane_core::model::{Model, Object, ObjectKey};
use weft_control_plane_core::report::{ObjectReport, Report};
use weft_control_plane_core::{Compiled, build};
use weft_k8s::{Mesh, MeshSpec};

use crate::authority::Authority;
use crate::metrics::{Metrics, Outcome};
use crate::publish::Publisher;
use crate::status::{self, Manifests, Status};

/// Trust domain of a mesh without a Mesh object. Source: the contract's default.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Name of the one Mesh object. Source: the Mesh kind, which refuses any other.
pub const MESH_NAME: &str = "mesh";

/// What became of every object, with each published state and each state that changes no config.
pub type Reports = watch::Receiver<Arc<Report>>;

/// The trust bundle that sidecars are told; changes when a root is added or taken away.
pub type Bundle = watch::Receiver<Trust>;

/// What turns models into published states.
pub struct Take {
    bundle: Bundle,
    publisher: Publisher,
    status: Arc<Status>,
    metrics: Metrics,
    reports: watch::Sender<Arc<Report>>,
}

/// What a model came to.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Generation that is published now.
    pub generation: u64,
    /// Whether it differs from the one before.
    pub new: bool,
}

impl Take {
    /// Starts without a state.
    pub fn new(bundle: Bundle, publisher: Publisher, status: Arc<Status>, metrics: Metrics) -> Self {
        Self { bundle, publisher, status, metrics, reports: watch::Sender::default() }
    }

    /// What became of every object, from now on.
    pub fn reports(&self) -> Reports {
        self.reports.subscribe()
    }

    /// Changes of the trust bundle.
    pub fn bundle(&self) -> Bundle {
        self.bundle.clone()
    }

    /// Counts and states of the control plane.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What `/status` shows.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Trust domain of the authority, which every identity of the mesh has.
    pub fn trust_domain(&self) -> String {
        self.bundle.borrow().trust_domain.clone()
    }

    /// Compiles a model, and adds what was refused before it could reach the model.
    pub fn compile(&self, model: &Model, refused: &BTreeMap<ObjectKey, ObjectReport>) -> Compiled {
        let started = Instant::now();
        let mut compiled = build(model);
        self.metrics.compile_duration.observe(started.elapsed().as_secs_f64());
        let trust = self.bundle.borrow().clone();
        let key = Key::new(ResourceType::Trust, trust.trust_domain.clone());
        compiled.config.resources.insert(key, Resource::Trust(trust));
        let refused = refused.iter().map(|(key, report)| (key.clone(), report.clone()));
        compiled.report.objects.extend(refused);
        compiled
    }

    /// Publishes what was compiled. `manifests` without its objects, which are the report's.
    pub fn publish(&mut self, compiled: Compiled, mut manifests: Manifests, noticed: Instant) -> Taken {
        manifests.objects = status::objects(&compiled.report);
        self.told(&manifests);
        self.status.set_manifests(manifests);
        self.reports.send_replace(Arc::new(compiled.report));
        let (published, new) = self.publisher.publish(compiled.config);
        Metrics::count(&self.metrics.reloads, if new { Outcome::Good } else { Outcome::Unchanged });
        self.metrics.config_generation.set(i64::try_from(published.generation()).unwrap_or(i64::MAX));
        self.metrics.reload_duration.observe(noticed.elapsed().as_secs_f64());
        Taken { generation: published.generation(), new }
    }

    /// Sets the gauges of a taken state.
    fn told(&self, manifests: &Manifests) {
        let refused = manifests.objects.iter().filter(|object| !object.accepted).count();
        self.metrics.manifest_errors.set(0);
        self.metrics.objects_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
        self.metrics.last_good_reload.set(i64::try_from(manifests.last_good_reload).unwrap_or(i64::MAX));
    }
}

/// The trust bundle of an authority whose roots do not change while it runs.
pub fn bundle(authority: &Authority) -> Trust {
    Trust {
        trust_domain: authority.trust_domain().to_owned(),
        roots: authority.roots().iter().map(|root| root.to_vec()).collect(),
    }
}

/// The Mesh of a mesh that has none: all defaults, in the authority's trust domain.
pub fn default_mesh(trust_domain: &str) -> Object {
    let spec = MeshSpec { trust_domain: Some(trust_domain.to_owned()), ..MeshSpec::default() };
    Object::Mesh(Box::new(Mesh::new(MESH_NAME, spec)))
}

/// Whether a mesh of this trust domain needs a Mesh object that says so.
pub fn needs_mesh(trust_domain: &str) -> bool {
    trust_domain != DEFAULT_TRUST_DOMAIN
}

/// The trust domain that a config's Mesh says.
pub fn domain_of(config: &Config) -> Option<&str> {
    match config.resources.get(&Key::mesh()) {
        Some(Resource::Mesh(mesh)) => Some(&mesh.trust_domain),
        _ => None,
    }
}

/// Why a Mesh of another trust domain is not in force.
pub fn foreign(theirs: &str, ours: &str) -> String {
    format!(
        "the Mesh's trustDomain is {theirs:?}, the authority's is {ours:?}: correct one of them (--trust-domain)"
    )
}
