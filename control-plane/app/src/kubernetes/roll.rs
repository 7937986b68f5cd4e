//! Who is there: pods, as far as certificates need them, and namespaces, as far as the injector does.
//! Found at once, without waiting for a published state.
//!
//! Before it: `feed` notes what comes, changes or goes. After it: `token_review` and `certify` ask whose
//! pod a caller is, the webhook asks what a namespace wishes.
//!
//! Invariant: a pod is on the roll from its first event on, and not after its last.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use weft_control_plane_core::model::{Namespace, Pod};
use weft_proto::names::Workload;

/// What is known of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPod {
    /// What tells it from another pod of the same name.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// The node it runs on; empty: not known yet.
    pub node: String,
    /// It has ended and will not come back.
    pub ended: bool,
}

impl From<&Pod> for KnownPod {
    fn from(pod: &Pod) -> Self {
        Self {
            uid: pod.uid.clone(),
            service_account: pod.service_account.clone(),
            node: pod.node.clone(),
            ended: pod.ended,
        }
    }
}

/// The roll, shared by who notes and who asks.
#[derive(Debug, Clone, Default)]
pub struct Roll {
    pods: Arc<RwLock<HashMap<(String, String), KnownPod>>>,
    namespaces: Arc<RwLock<HashMap<String, Namespace>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Roll {
    /// Notes a pod as it is now; none: it is gone.
    pub fn note_pod(&self, namespace: &str, name: &str, pod: Option<&Pod>) {
        let at = (namespace.to_owned(), name.to_owned());
        if put(&self.pods, at, pod.map(KnownPod::from)) {
            self.changed.send_replace(());
        }
    }

    /// Notes a namespace as it is now; none: it is gone.
    pub fn note_namespace(&self, name: &str, namespace: Option<&Namespace>) {
        put(&self.namespaces, name.to_owned(), namespace.cloned());
    }

    /// A pod.
    pub fn pod(&self, workload: &Workload) -> Option<KnownPod> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.get(&(workload.namespace.clone(), workload.pod.clone())).cloned()
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Waits until something good is known of a pod; the caller bounds the wait.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wait_for(&self, workload: &Workload, good: impl Fn(&KnownPod) -> bool) -> KnownPod {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(known) = self.pod(workload).filter(&good) {
                return known;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
}

/// Puts an entry or takes it away; whether that changed anything. A panic elsewhere leaves a map sound.
fn put<K: Hash + Eq, V: PartialEq>(map: &RwLock<HashMap<K, V>>, at: K, next: Option<V>) -> bool {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    if map.get(&at) == next.as_ref() {
        return false;
    }
    match next {
        Some(next) => drop(map.insert(at, next)),
        None => drop(map.remove(&at)),
    }
    true
}
