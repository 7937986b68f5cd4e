//! A folder of manifests, read and compiled as the control plane would, for verbs that need no cluster.
//!
//! Where it stands: below `explain` and `check`. The control plane's own index reads the files, its own compiler
//! compiles them; a sidecar's own adoption makes the snapshot.
//!
//! Invariant: nothing is decided here, and nothing is sent.

mod lines;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use weft_control_plane::encode;
use weft_control_plane::index::{Index, Look, Placed};
use weft_control_plane_core::config::{Key, Resource, ResourceType, references};
use weft_control_plane_core::model::{Kind, Model, ObjectKey, Position};
use weft_control_plane_core::{Compiled, build};
use weft_proto::v1;
use weft_proxy::adopt::Adopter;
use weft_proxy_core::Snapshot;

/// A folder, compiled.
pub(crate) struct Folder {
    root: PathBuf,
    /// The facts.
    pub(crate) model: Model,
    /// What sidecars and users are told.
    pub(crate) compiled: Compiled,
    /// Documents of kinds that are not the mesh's, and how many there are of each.
    pub(crate) ignored: BTreeMap<String, usize>,
    /// Fields that are not known, with their place.
    pub(crate) unknown_fields: Vec<String>,
    positions: BTreeMap<ObjectKey, Position>,
    texts: RefCell<BTreeMap<Arc<str>, Arc<str>>>,
}

impl Folder {
    /// Reads and compiles a folder.
    ///
    /// # Errors
    /// It cannot be read, or a document in it is broken; every problem is named with file and line.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        ensure!(root.is_dir(), "{} is no folder; name the folder that holds the manifests", root.display());
        match Index::new(root).look(true) {
            Look::Good(placed) => Ok(Self::of(root, &placed)),
            Look::Broken(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                bail!("the manifests are broken:\n  {}", lines.join("\n  "))
            }
            Look::Unchanged | Look::Writing => bail!("{} changes while it is read", root.display()),
        }
    }

    fn of(root: &Path, placed: &[Placed]) -> Self {
        let mut model = Model::default();
        let (mut ignored, mut positions) = (BTreeMap::new(), BTreeMap::new());
        let mut unknown_fields = Vec::new();
        for Placed { file, document } in placed {
            let line = u32::try_from(document.line).unwrap_or(u32::MAX);
            let position = Position { file: Arc::clone(file), line };
            let Some(object) = &document.object else {
                *ignored.entry(document.kind.clone()).or_default() += 1;
                continue;
            };
            let unknown = document.unknown_fields.iter();
            unknown_fields.extend(unknown.map(|field| format!("{position}: {}: {field}", object.key())));
            positions.insert(object.key(), position.clone());
            model.apply(object.clone(), Some(position));
        }
        let compiled = build(&model);
        let (root, texts) = (root.to_owned(), RefCell::default());
        Self { root, model, compiled, ignored, unknown_fields, positions, texts }
    }

    /// Where an object is, by its kind's name.
    pub(crate) fn position(&self, kind: &str, namespace: &str, name: &str) -> Option<&Position> {
        let is_it = |key: &&ObjectKey| {
            key.kind.as_str() == kind
                && key.name == name
                && (key.namespace == namespace || !key.kind.is_namespaced())
        };
        let key = self.positions.keys().find(is_it)?;
        self.positions.get(key)
    }

    /// Where a field of an object is; the object's own place where the field is not written.
    pub(crate) fn field(&self, kind: &str, namespace: &str, name: &str, field: &str) -> Option<Position> {
        let position = self.position(kind, namespace, name)?;
        let line = self.text(&position.file).and_then(|text| lines::find(&text, position.line, field));
        Some(Position { line: line.unwrap_or(position.line), ..position.clone() })
    }

    fn text(&self, file: &Arc<str>) -> Option<Arc<str>> {
        if let Some(text) = self.texts.borrow().get(file) {
            return Some(Arc::clone(text));
        }
        let text: Arc<str> = std::fs::read_to_string(self.root.join(&**file)).ok()?.into();
        self.texts.borrow_mut().insert(Arc::clone(file), Arc::clone(&text));
        Some(text)
    }

    /// What the sidecar of a workload, `<namespace>/<pod>`, would hold that subscribes to these.
    ///
    /// # Errors
    /// The sidecar would refuse something; that it does is a bug of ours.
    pub(crate) fn snapshot(&self, workload: &str, subscriptions: &[Key]) -> anyhow::Result<Arc<Snapshot>> {
        self.snapshot_of(workload, subscriptions, |_| true)
    }

    /// The same, of those resources alone that have arrived.
    pub(crate) fn snapshot_of(
        &self,
        workload: &str,
        subscriptions: &[Key],
        arrived: impl Fn(&Key) -> bool,
    ) -> anyhow::Result<Arc<Snapshot>> {
        let namespace = workload.split_once('/').map_or("", |(namespace, _)| namespace);
        let config = &self.compiled.config;
        let mut wanted: Vec<Key> = vec![Key::mesh(), Key::new(ResourceType::Inbound, workload)];
        wanted.extend_from_slice(subscriptions);
        let (mut seen, mut upserts) = (BTreeSet::new(), Vec::new());
        while let Some(key) = wanted.pop() {
            if !seen.insert(key.clone()) || !arrived(&key) {
                continue;
            }
            let made;
            let resource = match key.kind {
                ResourceType::Address => {
                    made = Resource::Address(config.address(key.name.parse().context("an address")?));
                    Some(&made)
                }
                kind => config.resolve(kind, &key.name, namespace).map(|(_, resource)| resource),
            };
            let Some(resource) = resource else { continue };
            upserts.push(encode::resource(&key, &encode::encode(resource)));
            wanted.extend(references(resource));
        }
        let settings = weft_control_plane_core::compile::settings(&self.model);
        let mut adopter = Adopter::new(settings.trust_domain);
        let applied = adopter.apply(v1::Epoch { nonce: 1, generation: 1, upserts, removals: Vec::new() });
        if let Some(refusal) = applied.ack.refusals.first() {
            let name = refusal.key.as_ref().map(|key| key.name.clone()).unwrap_or_default();
            bail!("a sidecar would refuse {name}: {}", refusal.reason);
        }
        Ok(Arc::clone(adopter.snapshot()))
    }

    /// The place of an object for a person, `file:line`; empty: it has none.
    pub(crate) fn place(&self, key: &ObjectKey) -> String {
        self.positions.get(key).map(ToString::to_string).unwrap_or_default()
    }

    /// All objects of a kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
        self.positions.keys().filter(move |key| key.kind == kind)
    }
}
