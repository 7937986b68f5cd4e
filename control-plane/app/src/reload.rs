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

use weft_control_plane_core::Compiler;
use weft_control_plane_core::compile::settings;
use weft_control_plane_core::model::{Kind, Model, Object, Position};

use crate::clock::unix_now;
use crate::index::{Index, Look, Placed};
use crate::metrics::{Metrics, Outcome};
use crate::read::Problem;
use crate::status::Manifests;
use crate::take::{self, Take};
use crate::watch::{Cause, Seen};

/// What turns looks into published states.
pub struct Reload {
    index: Index,
    trust_domain: String,
    compiler: Compiler,
    take: Take,
    warned: BTreeMap<String, usize>,
}

impl Reload {
    /// Starts without a state.
    pub fn new(folder: &Path, trust_domain: &str, take: Take) -> Self {
        Self {
            index: Index::new(folder),
            trust_domain: trust_domain.to_owned(),
            compiler: Compiler::default(),
            take,
            warned: BTreeMap::new(),
        }
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
            Metrics::count(&self.take.metrics().reloads, Outcome::Unchanged);
        }
    }

    fn broken(&mut self, problems: Vec<Problem>) {
        let mut manifests = Manifests::clone(&self.take.status().manifests());
        if manifests.problems == problems {
            return;
        }
        Metrics::count(&self.take.metrics().reloads, Outcome::Broken);
        for problem in &problems {
            tracing::error!(
                file = problem.file,
                line = problem.line,
                reason = problem.reason,
                "the manifests are broken; the last good state stays"
            );
        }
        self.take.metrics().manifest_errors.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
        manifests.problems = problems;
        self.take.status().set_manifests(manifests);
    }

    fn take(&mut self, placed: &[Placed], noticed: Instant) {
        let mut manifests = Manifests { last_good_reload: unix_now(), ..Manifests::default() };
        let model = self.model(placed, &mut manifests);
        let started = Instant::now();
        // Looked at before the compiler takes the model: what it took, it tells as a difference.
        if let Some(problem) = self.foreign_domain(&model, placed) {
            return self.broken(vec![problem]);
        }
        self.compiler.replace(model);
        let delta = self.compiler.compile();
        self.take.metrics().compile_duration.observe(started.elapsed().as_secs_f64());
        for line in self.compiler.report().lines() {
            tracing::warn!(problem = line, "an object is not in force as it was written");
        }
        self.take.report(self.compiler.report().clone());
        let taken = self.take.publish(&delta, manifests, noticed);
        let (generation, new, objects) = (taken.generation, taken.new, placed.len());
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
        if !manifests.taken.contains_key(Kind::Mesh.as_str())
            && let Some(mesh) = take::default_mesh(&self.trust_domain)
        {
            model.apply(mesh, None);
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
    fn foreign_domain(&self, model: &Model, placed: &[Placed]) -> Option<Problem> {
        let (theirs, ours) = (&settings(model).trust_domain, &self.trust_domain);
        let is_mesh = |placed: &&Placed| matches!(placed.document.object, Some(Object::Mesh(_)));
        let place = placed.iter().find(is_mesh);
        (theirs != ours).then(|| Problem {
            file: place.map(|placed| placed.file.to_string()).unwrap_or_default(),
            line: place.map_or(0, |placed| placed.document.line),
            reason: take::foreign(theirs, ours),
        })
    }
}
