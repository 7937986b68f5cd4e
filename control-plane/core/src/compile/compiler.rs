//! The compiler: facts come and go one by one, and only what depends on them is compiled again.
//!
//! Where it stands: between *index*, which brings objects, and *publish*, which takes the difference.
//!
//! ```text
//! apply, remove ─→ work ─compile→ step ─→ Delta
//! ```
//!
//! Invariant: after every compile, config and report equal [`build`](super::build) of the same model.
//! Invariant: a fact that is equal to the one before makes no work.

use std::{mem, sync::Arc};

use super::{
    index::Index,
    state::{Delta, State},
    step,
    work::Work,
};
use crate::{
    config::{Config, Key, Resource},
    model::{Kind, Model, Object, ObjectKey, Position},
    report::Report,
};

/// A model with all that was compiled of it.
#[derive(Debug, Clone)]
pub struct Compiler {
    model: Model,
    index: Index,
    state: State,
    work: Work,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(Model::default())
    }
}

impl Compiler {
    /// A compiler with these facts, all of them to be compiled.
    pub fn new(model: Model) -> Self {
        let index = Index::of(&model);
        let work = Work { everything: true, ..Work::default() };
        Self { model, index, state: State::default(), work }
    }

    /// Takes an object in, in place of an earlier one of the same kind, namespace and name; returns
    /// whether that makes a difference to the facts.
    pub fn apply(&mut self, object: Object, position: Option<Position>) -> bool {
        let mut one = Model::default();
        one.apply(object, position);
        let keys: Vec<ObjectKey> = one.keys().cloned().collect();
        let mut changed = false;
        for key in keys {
            changed |= self.change(&key, &mut one);
        }
        changed
    }

    /// Forgets an object; an unknown one is no error. Returns whether it was known.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.change(&ObjectKey::new(kind, namespace, name), &mut Model::default())
    }

    /// Takes another model in place of this one; what is equal in both makes no work.
    pub fn replace(&mut self, mut model: Model) {
        if self.model.root_namespace != model.root_namespace {
            self.model.root_namespace.clone_from(&model.root_namespace);
            self.work.everything = true;
        }
        let mut keys: Vec<ObjectKey> = self.model.keys().chain(model.keys()).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            self.change(&key, &mut model);
        }
    }

    /// Compiles what has changed, and tells the difference.
    pub fn compile(&mut self) -> Delta {
        let work = mem::take(&mut self.work);
        step::run(&self.model, &self.index, work, &mut self.state);
        mem::take(&mut self.state.delta)
    }

    /// The facts.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What became of each object, as of the last compile.
    pub fn report(&self) -> &Report {
        &self.state.report
    }

    /// A resource, as of the last compile.
    pub fn resource(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.state.resources.get(key)
    }

    /// The whole config, copied, as of the last compile.
    pub fn config(&self) -> Config {
        let resources = self.state.resources.iter();
        Config {
            resources: resources.map(|(key, resource)| (key.clone(), Resource::clone(resource))).collect(),
            pods: self.state.pods.iter().map(|(address, pods)| (*address, pods.to_vec())).collect(),
        }
    }

    /// Config and report, as of the last compile.
    pub(super) fn into_parts(self) -> (Config, Report) {
        (self.config(), self.state.report)
    }

    /// Makes a fact what it is in another model, which loses it.
    fn change(&mut self, key: &ObjectKey, other: &mut Model) -> bool {
        if self.model.fact(key) == other.fact(key) {
            return false;
        }
        if let Some(before) = self.model.fact(key) {
            self.work.touch(&self.model, &self.index, key, before);
            self.index.unlink(key, before);
            self.model.remove(key.kind, &key.namespace, &key.name);
        }
        if let Some(now) = other.fact(key) {
            self.index.link(key, now);
            self.model.take(key, other);
            if let Some(now) = self.model.fact(key) {
                self.work.touch(&self.model, &self.index, key, now);
            }
        }
        true
    }
}
