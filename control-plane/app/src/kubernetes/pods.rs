//! The pods that the control plane has seen, as far as certificates need them: found at once, without
//! waiting for a published state.
//!
//! Before it: `feed` notes every pod that comes, changes or goes. After it: `token_review` and `certify`
//! ask whose pod a caller is.
//!
//! Invariant: a pod is known here from its first event on, and not after its last.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use weft_control_plane_core::model::Pod;
use weft_proto::names::Workload;

/// What is known of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What tells it from another pod of the same name.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// The node it runs on; empty: not known yet.
    pub node: String,
    /// It has ended and will not come back.
    pub ended: bool,
}

impl Known {
    fn of(pod: &Pod) -> Self {
        Self {
            uid: pod.uid.clone(),
            service_account: pod.service_account.clone(),
            node: pod.node.clone(),
            ended: pod.ended,
        }
    }
}

/// The pods, shared by who notes and who asks.
#[derive(Debug, Clone, Default)]
pub struct Pods {
    known: Arc<RwLock<HashMap<String, Known>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Pods {
    /// Notes a pod as it is now.
    pub fn note(&self, pod: &Pod) {
        let (path, next) = (pod.path(), Known::of(pod));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.get(&path) != Some(&next) {
            known.insert(path, next);
            self.changed.send_replace(());
        }
    }

    /// Notes that a pod is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.remove(&format!("{namespace}/{name}")).is_some() {
            self.changed.send_replace(());
        }
    }

    /// A pod by its name.
    pub fn find(&self, workload: &Workload) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&workload.to_string()).cloned()
    }

    /// Waits until `good` holds for what is known of a pod; the caller bounds the wait.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wait(&self, workload: &Workload, good: impl Fn(&Known) -> bool) -> Known {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(known) = self.find(workload).filter(&good) {
                return known;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
}
