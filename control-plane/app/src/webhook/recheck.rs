//! Tells of pods that run without the sidecar they should have.
//!
//! Before it: the feed changed the model and says which object; or this replica leads now, or has other
//! settings. After it: a gauge, a list for `/status`, and, from the leader, an event about each pod.
//!
//! Invariant: each pod is told of once while it lacks its sidecar, by the leader alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use tokio::sync::watch;
use weft_control_plane_core::inject::{Injector, Unmeshed};
use weft_control_plane_core::model::{Model, ObjectKey};

use super::{InjectMetrics, Notice, Settings};
use crate::status::Status;

/// Reason of the event about a pod without its sidecar.
const MISSING: &str = "SidecarMissing";

/// One pod, for `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

/// The list for `/status`: replaced whole when it changes.
pub type Lacks = ArcSwap<Vec<Lack>>;

/// What tells.
pub struct Recheck {
    settings: Arc<Settings>,
    injector: Option<Arc<Injector>>,
    notice: Notice,
    metrics: InjectMetrics,
    leading: watch::Receiver<bool>,
    taken: watch::Receiver<()>,
    found: Unmeshed,
    told: BTreeSet<ObjectKey>,
    status: Arc<Status>,
}

impl Recheck {
    /// Nothing is found yet.
    pub fn new(
        settings: Arc<Settings>,
        notice: Notice,
        metrics: InjectMetrics,
        leading: watch::Receiver<bool>,
        status: Arc<Status>,
    ) -> Self {
        let (taken, injector) = (settings.changes(), settings.current());
        let (found, told) = (Unmeshed::default(), BTreeSet::new());
        Self { settings, injector, notice, metrics, leading, taken, found, told, status }
    }

    /// Waits until something else than an object has changed: [`changed`](Self::changed) is then to be
    /// called, if only with no object.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn due(&mut self) {
        tokio::select! {
            Ok(()) = self.leading.changed() => {}
            Ok(()) = self.taken.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Takes note of the objects that changed, as the model stands now.
    pub fn changed<'a>(&mut self, model: &Model, keys: impl Iterator<Item = &'a ObjectKey>) {
        let Some(current) = self.settings.current() else { return };
        let config = current.config();
        let mut any = false;
        if self.injector.as_ref().is_some_and(|injector| Arc::ptr_eq(injector, &current)) {
            for key in keys {
                any |= self.found.changed(model, config, key);
            }
        } else {
            let found = Unmeshed::of(model, config);
            any = found != self.found;
            self.found = found;
        }
        if any {
            self.show();
        }
        self.injector = Some(current);
        self.tell(model);
    }

    fn show(&mut self) {
        let line = |(key, reason): (&ObjectKey, &str)| Lack {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            reason: reason.to_owned(),
        };
        let lines: Vec<Lack> = self.found.pods().map(line).collect();
        self.metrics.unmeshed.set(i64::try_from(lines.len()).unwrap_or(i64::MAX));
        self.status.unmeshed.store(Arc::new(lines));
        let found: BTreeSet<&ObjectKey> = self.found.pods().map(|(key, _)| key).collect();
        self.told.retain(|key| found.contains(key));
    }

    fn tell(&mut self, model: &Model) {
        if !*self.leading.borrow() || self.told.len() == self.found.pods().len() {
            return;
        }
        for (key, reason) in self.found.pods() {
            if !self.told.insert(key.clone()) {
                continue;
            }
            let uid = model.pod(&key.namespace, &key.name).map(|pod| pod.uid.clone());
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: uid.filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            };
            (self.notice)(about, MISSING, format!("no sidecar: {reason}"));
        }
    }
}
