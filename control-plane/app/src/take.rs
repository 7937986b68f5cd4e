//! What follows from a compiled state: it is published, and what became of every object is said. The
//! one place for that, whether the facts come from a folder or from a cluster.
//!
//! Before it: `reload` or the cluster's feed compiled. After it: `serve` brings the difference to the
//! sidecars; `status` and the objects' own conditions tell the people.
//!
//! Invariant: who sees an epoch finds its objects in the status.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use weft_control_plane_core::Delta;
use weft_control_plane_core::model::Object;
use weft_control_plane_core::report::Report;
use weft_k8s::{Mesh, MeshSpec};

use crate::metrics::{Metrics, Outcome};
use crate::publish::Publisher;
use crate::status::{Manifests, Status};

/// Trust domain of a mesh without a Mesh object. Source: the contract's default.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Name of the one Mesh object. Source: the Mesh kind, which refuses any other.
const MESH_NAME: &str = "mesh";

/// What became of every object; changes when something else is to be said of one.
pub type Reports = watch::Receiver<Arc<Report>>;

/// Publishes and tells.
pub struct Take {
    publisher: Publisher,
    status: Arc<Status>,
    metrics: Metrics,
    reports: watch::Sender<Arc<Report>>,
}

/// What taking came to.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Generation that is published now.
    pub generation: u64,
    /// Whether sidecars see a difference.
    pub new: bool,
}

impl Take {
    /// Starts without a state.
    pub fn new(publisher: Publisher, status: Arc<Status>, metrics: Metrics) -> Self {
        Self { publisher, status, metrics, reports: watch::Sender::default() }
    }

    /// What became of every object, from now on.
    pub fn reports(&self) -> Reports {
        self.reports.subscribe()
    }

    /// Counts and states of the control plane.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What `/status` shows.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Says what became of every object.
    pub fn report(&self, report: Report) {
        let refused = report.objects.values().filter(|object| !object.is_accepted()).count();
        self.metrics.objects_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
        let report = Arc::new(report);
        self.status.set_report(Arc::clone(&report));
        self.reports.send_replace(report);
    }

    /// Publishes what was compiled.
    pub fn publish(&self, delta: &Delta, manifests: Manifests, noticed: Instant) -> Taken {
        self.metrics.manifest_errors.set(0);
        self.metrics.last_good_reload.set(i64::try_from(manifests.last_good_reload).unwrap_or(i64::MAX));
        self.status.set_manifests(manifests);
        let (published, new) = self.publisher.apply(delta);
        Metrics::count(&self.metrics.reloads, if new { Outcome::Good } else { Outcome::Unchanged });
        self.metrics.config_generation.set(i64::try_from(published.generation()).unwrap_or(i64::MAX));
        self.metrics.reload_duration.observe(noticed.elapsed().as_secs_f64());
        Taken { generation: published.generation(), new }
    }
}

/// The Mesh of a mesh in which nobody wrote one, where the trust domain has to be told.
pub fn default_mesh(trust_domain: &str) -> Option<Object> {
    let spec = MeshSpec { trust_domain: Some(trust_domain.to_owned()), ..MeshSpec::default() };
    (trust_domain != DEFAULT_TRUST_DOMAIN).then(|| Object::Mesh(Box::new(Mesh::new(MESH_NAME, spec))))
}

/// Why a Mesh of another trust domain than the authority's cannot be in force.
pub fn foreign(theirs: &str, ours: &str) -> String {
    format!(
        "the Mesh's trustDomain is {theirs:?}, the authority's is {ours:?}: correct one of them (--trust-domain)"
    )
}
