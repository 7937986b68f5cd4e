//! From a look at the folder to a published state: build the model, compile, publish, and say what
//! became of it.
//!
//! Before it: `watch` and `index`. After it: `publish`. Runs on the watching thread.
//!
//! Invariant: a folder with a problem publishes nothing; the status says which.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use weft_control_plane_core::build;
use weft_control_plane_core::config::{Config, Key, Resource};
use weft_control_plane_core::model::{Kind, Model, Object, Position};
use weft_k8s::{Mesh, MeshSpec};

use crate::authority::Authority;
use crate::clock::unix_now;
use crate::index::{Index, Look, Placed};
use crate::metrics::{Metrics, Outcome};
use crate::publish::Publisher;
use crate::read::Problem;
use crate::status::{self, Manifests, Status};
use crate::watch::{Cause, Seen};

/// Trust domain of a mesh without a Mesh object. Source: the contract's default.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Name of the one Mesh object. Source: the Mesh kind, which refuses any other.
const MESH_NAME: &str = "mesh";

/// What turns looks into published states.
pub struct Reload {
    index: Index,
    trust_domain: String,
    publisher: Publisher,
    status: Arc<Status>,
    metrics: Metrics,
    warned: BTreeMap<String, usize>,
}

impl Reload {
    /// Starts without a state.
    pub fn new(
        folder: &Path,
        authority: &Authority,
        publisher: Publisher,
        status: Arc<Status>,
        metrics: Metrics,
    ) -> Self {
        publisher.trust_in(authority.trust());
        let trust_domain = authority.trust_domain().to_owned();
        Self { index: Index::new(folder), trust_domain, publisher, status, metrics, warned: BTreeMap::new() }
    }

    /// Looks at the folder and takes what is there.
    pub fn look(&mut self, cause: Cause, settled: bool, noticed: Instant) -> Seen {
        match self.index.look(settled) {
            Look::Unchanged => self.unchanged(cause),
            Look::Writing => return Seen::Unsettled,
            Look::Broken(problems) => self.broken(problems),
            Look::Good(placed) => self.take(&placed, noticed),
        }
        Seen::Settled
    }

    /// A folder that is back as it was after it could not be read is good again.
    fn unchanged(&mut self, cause: Cause) {
        if cause != Cause::Poll {
            Metrics::count(&self.metrics.reloads, Outcome::Unchanged);
        }
    }

    fn broken(&mut self, problems: Vec<Problem>) {
        let mut manifests = Manifests::clone(&self.status.manifests());
        if manifests.problems == problems {
            return;
        }
        Metrics::count(&self.metrics.reloads, Outcome::Broken);
        for problem in &problems {
            tracing::error!(
                file = problem.file,
                line = problem.line,
                reason = problem.reason,
                "the manifests are broken; the last good state stays"
            );
        }
        self.metrics.manifest_errors.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
        manifests.problems = problems;
        self.status.set_manifests(manifests);
    }

    fn take(&mut self, placed: &[Placed], noticed: Instant) {
        let mut manifests = Manifests { last_good_reload: unix_now(), ..Manifests::default() };
        let model = self.model(placed, &mut manifests);
        let started = Instant::now();
        let compiled = build(&model);
        self.metrics.compile_duration.observe(started.elapsed().as_secs_f64());
        if let Some(problem) = self.foreign_domain(&compiled.config, placed) {
            return self.broken(vec![problem]);
        }
        manifests.objects = status::objects(&compiled.report);
        for line in compiled.report.lines() {
            tracing::warn!(problem = line, "an object is not in force as it was written");
        }
        // Told before it is published: who sees an epoch finds its objects in the status.
        self.told(&manifests);
        self.status.set_manifests(manifests);
        let (published, new) = self.publisher.publish(compiled.config);
        Metrics::count(&self.metrics.reloads, if new { Outcome::Good } else { Outcome::Unchanged });
        self.metrics.config_generation.set(i64::try_from(published.generation()).unwrap_or(i64::MAX));
        self.metrics.reload_duration.observe(noticed.elapsed().as_secs_f64());
        let (generation, objects) = (published.generation(), placed.len());
        let millis = u64::try_from(noticed.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(generation, new, objects, millis, "the manifests were taken");
    }

    fn model(&mut self, placed: &[Placed], manifests: &mut Manifests) -> Model {
        let mut model = Model::default();
        for Placed { file, document } in placed {
            let Some(object) = &document.object else {
                *manifests.ignored.entry(document.kind.clone()).or_default() += 1;
                continue;
            };
            for field in &document.unknown_fields {
                let (file, line, object) = (file.as_ref(), document.line, object.key().to_string());
                tracing::warn!(file, line, object, field, "a field that is not known here is ignored");
            }
            *manifests.taken.entry(document.kind.clone()).or_default() += 1;
            let line = u32::try_from(document.line).unwrap_or(u32::MAX);
            let object = self.at_home(object.clone());
            model.apply(object, Some(Position { file: Arc::clone(file), line }));
        }
        if !manifests.taken.contains_key(Kind::Mesh.as_str()) && self.trust_domain != DEFAULT_TRUST_DOMAIN {
            let mesh = Mesh::new(MESH_NAME, MeshSpec::default());
            model.apply(self.at_home(Object::Mesh(Box::new(mesh))), None);
        }
        for (kind, count) in &manifests.ignored {
            if self.warned.insert(kind.clone(), *count).is_none() {
                tracing::warn!(kind, count, "objects of a kind that is not the mesh's are ignored");
            }
        }
        model
    }

    /// A Mesh that names no trust domain is of the authority's.
    fn at_home(&self, mut object: Object) -> Object {
        if let Object::Mesh(mesh) = &mut object
            && mesh.spec.trust_domain.is_none()
        {
            mesh.spec.trust_domain = Some(self.trust_domain.clone());
        }
        object
    }

    /// A mesh of another trust domain than the authority's could not shake a single hand.
    fn foreign_domain(&self, config: &Config, placed: &[Placed]) -> Option<Problem> {
        let Some(Resource::Mesh(mesh)) = config.resources.get(&Key::mesh()) else { return None };
        let (theirs, ours) = (&mesh.trust_domain, &self.trust_domain);
        let is_mesh = |placed: &&Placed| matches!(placed.document.object, Some(Object::Mesh(_)));
        let place = placed.iter().find(is_mesh);
        (theirs != ours).then(|| Problem {
            file: place.map(|placed| placed.file.to_string()).unwrap_or_default(),
            line: place.map_or(0, |placed| placed.document.line),
            reason: format!(
                "the Mesh's trustDomain is {theirs:?}, the authority's is {ours:?}: correct one of them \
                 (--trust-domain)"
            ),
        })
    }

    /// Sets the gauges of a taken state.
    fn told(&self, manifests: &Manifests) {
        let refused = manifests.objects.iter().filter(|object| !object.accepted).count();
        self.metrics.manifest_errors.set(0);
        self.metrics.objects_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
        self.metrics.last_good_reload.set(i64::try_from(manifests.last_good_reload).unwrap_or(i64::MAX));
    }
}
