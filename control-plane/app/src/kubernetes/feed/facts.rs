//! The model of a cluster, kept by what the watches tell.
//!
//! Invariant: the compiler's model is the only store. A list that is complete removes what it did not
//! name.
//! Invariant: nothing is ready to be published before every kind was listed once.

use std::collections::{BTreeMap, BTreeSet};

use weft_control_plane_core::Compiler;
use weft_control_plane_core::compile::Delta;
use weft_control_plane_core::model::{Kind, Model, Object, ObjectKey};
use weft_control_plane_core::report::{Condition, ObjectReport, Reason, Report, Subject, Verdict};

use crate::kubernetes::roll::Roll;
use crate::kubernetes::watch::Event;
use crate::kubernetes::watch::kinds::{Need, WATCHED};
use crate::kubernetes::watch::sight::Sight;
use crate::take;
use crate::webhook::Recheck;

/// The facts of a cluster.
pub struct Facts {
    compiler: Compiler,
    trust_domain: String,
    refused: BTreeMap<ObjectKey, ObjectReport>,
    listing: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    awaited: BTreeSet<Kind>,
    trouble: BTreeMap<Kind, String>,
    roll: Roll,
    recheck: Option<Recheck>,
    retold: bool,
}

impl Facts {
    /// No facts yet, of a mesh whose root namespace and trust domain are these.
    pub fn new(root_namespace: &str, trust_domain: &str, roll: Roll) -> Self {
        let mut facts = Self {
            compiler: Compiler::new(Model::ruled_from(root_namespace)),
            trust_domain: trust_domain.to_owned(),
            refused: BTreeMap::new(),
            listing: BTreeMap::new(),
            awaited: WATCHED.iter().map(|watched| watched.kind).collect(),
            trouble: BTreeMap::new(),
            roll,
            recheck: None,
            retold: false,
        };
        facts.default_mesh();
        facts
    }

    /// Tells who looks for pods without sidecars of every change.
    pub fn rechecked_by(self, recheck: Option<Recheck>) -> Self {
        Self { recheck, ..self }
    }

    /// Waits until pods without sidecars are to be looked for although no object changed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recheck_due(&mut self) {
        match &mut self.recheck {
            Some(recheck) => recheck.due().await,
            None => std::future::pending().await,
        }
    }

    /// Looks for pods without sidecars, for a reason that is no object's.
    pub fn recheck(&mut self) {
        if let Some(recheck) = &mut self.recheck {
            recheck.changed(self.compiler.model(), std::iter::empty());
        }
    }

    /// Compiles what has changed: how it differs for sidecars, and what became of every object if
    /// something else is to be said of one.
    pub fn compile(&mut self) -> (Delta, Option<Report>) {
        let delta = self.compiler.compile();
        let retold = std::mem::take(&mut self.retold) || !delta.reports.is_empty();
        let report = retold.then(|| {
            let mut report = self.compiler.report().clone();
            let refused = self.refused.iter().map(|(key, report)| (key.clone(), report.clone()));
            report.objects.extend(refused);
            report
        });
        (delta, report)
    }

    /// How many objects are not in force as written because they cannot be read.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Whether every kind was listed once.
    pub fn synced(&self) -> bool {
        self.awaited.is_empty()
    }

    /// What keeps the facts from being complete or fresh, by kind.
    pub fn trouble(&self) -> BTreeMap<Kind, &str> {
        let waiting = self.awaited.iter().map(|kind| (*kind, "not listed yet"));
        waiting.chain(self.trouble.iter().map(|(kind, text)| (*kind, text.as_str()))).collect()
    }

    /// How many kinds cannot be followed for now.
    pub fn failing(&self) -> usize {
        self.trouble.len()
    }

    /// Objects by kind.
    pub fn count(&self) -> BTreeMap<String, usize> {
        self.compiler.model().counts().into_iter().map(|(kind, count)| (kind.to_string(), count)).collect()
    }

    /// Takes what a watch told. Whether that changes what is to be published or said.
    pub fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Begun(kind) => {
                self.listing.insert(kind, BTreeSet::new());
                false
            }
            Event::Complete(kind) => self.complete(kind),
            Event::Seen(sight) => self.seen(sight),
            Event::Gone(key) => {
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.remove(&key);
                }
                self.forget(&key)
            }
            Event::Absent(kind) => self.absent(kind),
            Event::Failing(kind, reason) => {
                self.trouble.insert(kind, reason);
                false
            }
            Event::Well(kind) => {
                self.trouble.remove(&kind);
                false
            }
        }
    }

    fn seen(&mut self, sight: Sight) -> bool {
        match sight {
            Sight::Good(object) => {
                let key = object.key();
                self.note(&key);
                match self.at_home(*object) {
                    (object, None) => self.accept(&key) | self.apply(&key, object),
                    (object, Some(report)) => self.apply(&key, object) | self.refuse(key, report),
                }
            }
            Sight::Refused { key, report, stand_in } => {
                self.note(&key);
                let changed = match stand_in {
                    Some(object) => self.apply(&key, *object),
                    None => self.remove(&key),
                };
                self.refuse(key, report) || changed
            }
        }
    }

    /// Keeps in mind that the list under way names an object.
    fn note(&mut self, key: &ObjectKey) {
        if let Some(seen) = self.listing.get_mut(&key.kind) {
            seen.insert(key.clone());
        }
    }

    fn apply(&mut self, key: &ObjectKey, object: Object) -> bool {
        let changed = self.compiler.apply(object, None);
        if changed {
            self.enrol(key);
        }
        changed
    }

    fn remove(&mut self, key: &ObjectKey) -> bool {
        let removed = self.compiler.remove(key.kind, &key.namespace, &key.name);
        if removed {
            self.enrol(key);
        }
        if key.kind == Kind::Mesh {
            self.default_mesh();
        }
        removed
    }

    /// Notes who is there before it is published: a pod asks for its certificate at once.
    fn enrol(&mut self, key: &ObjectKey) {
        let (model, namespace, name) = (self.compiler.model(), key.namespace.as_str(), key.name.as_str());
        match key.kind {
            Kind::Pod => self.roll.note_pod(namespace, name, model.pod(namespace, name)),
            Kind::Namespace => self.roll.note_namespace(name, model.namespace(name)),
            _ => return,
        }
        if let Some(recheck) = &mut self.recheck {
            recheck.changed(model, std::iter::once(key));
        }
    }

    fn refuse(&mut self, key: ObjectKey, report: ObjectReport) -> bool {
        let changed = self.refused.get(&key) != Some(&report);
        self.refused.insert(key, report);
        self.retold |= changed;
        changed
    }

    fn accept(&mut self, key: &ObjectKey) -> bool {
        let changed = self.refused.remove(key).is_some();
        self.retold |= changed;
        changed
    }

    fn forget(&mut self, key: &ObjectKey) -> bool {
        self.accept(key) | self.remove(key)
    }

    /// The list of a kind is complete: what it did not name is gone.
    fn complete(&mut self, kind: Kind) -> bool {
        self.trouble.remove(&kind);
        let first = self.awaited.remove(&kind);
        let seen = self.listing.remove(&kind).unwrap_or_default();
        let gone = self.held(kind).into_iter().filter(|key| !seen.contains(key)).collect::<Vec<_>>();
        let removed = gone.iter().filter(|key| self.forget(key)).count();
        removed > 0 || (first && self.synced())
    }

    fn absent(&mut self, kind: Kind) -> bool {
        self.listing.remove(&kind);
        let removed = self.held(kind).iter().filter(|key| self.forget(key)).count();
        let need = WATCHED.iter().find(|watched| watched.kind == kind).map(|watched| watched.need);
        if need != Some(Need::Optional) {
            self.trouble.insert(kind, "not installed: install Weft's CRDs".to_owned());
            return removed > 0;
        }
        self.trouble.remove(&kind);
        let first = self.awaited.remove(&kind);
        removed > 0 || (first && self.synced())
    }

    /// Everything that is held of a kind, read or refused.
    fn held(&self, kind: Kind) -> BTreeSet<ObjectKey> {
        let known = self.compiler.model().keys().chain(self.refused.keys());
        known.filter(|key| key.kind == kind).cloned().collect()
    }

    /// Without a Mesh of the users' there is one of all defaults; it goes where theirs comes.
    fn default_mesh(&mut self) {
        if let Some(mesh) = take::default_mesh(&self.trust_domain)
            && !self.compiler.model().keys().any(|key| key.kind == Kind::Mesh)
        {
            self.compiler.apply(mesh, None);
        }
    }

    /// A Mesh is of the authority's trust domain, whatever it says: identities of another could not
    /// shake a single hand.
    fn at_home(&self, mut object: Object) -> (Object, Option<ObjectReport>) {
        let Object::Mesh(mesh) = &mut object else { return (object, None) };
        let ours = &self.trust_domain;
        let foreign = mesh.spec.trust_domain.as_ref().filter(|theirs| *theirs != ours);
        let report = foreign.map(|theirs| {
            let text = format!("{}; everything else in it is in force", take::foreign(theirs, ours));
            let conditions = vec![Condition::refused(Reason::Invalid, text)];
            let verdicts = vec![Verdict { subject: Subject::Object, conditions }];
            ObjectReport { generation: mesh.metadata.generation, verdicts, ..ObjectReport::default() }
        });
        mesh.spec.trust_domain = Some(ours.clone());
        (object, report)
    }
}

#[cfg(test)]
mod tests;
