//! What became of every object, and of which of them something new is to be said.
//!
//! Before it: whoever compiles tells each difference. After it: `conditions::writer`, on the replica
//! that leads.
//!
//! Invariant: every replica keeps all reports, so that a new leader knows them at once.
//! Invariant: telling never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weft_control_plane_core::model::{Kind, ObjectKey};
use weft_control_plane_core::report::ObjectReport;

/// All reports of one replica.
#[derive(Debug, Default)]
pub struct Reports {
    held: Mutex<Held>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Held {
    objects: BTreeMap<ObjectKey, Arc<ObjectReport>>,
    changed: BTreeSet<ObjectKey>,
    told: bool,
}

impl Reports {
    /// Takes what is said of objects now; absent: nothing is said any more. Call it after every compile,
    /// the first above all: nothing is written before it.
    pub fn apply(&self, changes: &BTreeMap<ObjectKey, Option<ObjectReport>>) {
        let mut held = self.held();
        held.told = true;
        for (key, report) in changes.iter().filter(|(key, _)| has_status(key.kind)) {
            match report {
                Some(report) => drop(held.objects.insert(key.clone(), Arc::new(report.clone()))),
                None => drop(held.objects.remove(key)),
            }
            held.changed.insert(key.clone());
        }
        drop(held);
        self.news.notify_one();
    }

    /// Whether anything was told yet.
    pub(super) fn is_told(&self) -> bool {
        self.held().told
    }

    /// What is said of an object.
    pub(super) fn of(&self, key: &ObjectKey) -> Option<Arc<ObjectReport>> {
        self.held().objects.get(key).cloned()
    }

    /// All objects of which something is said.
    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.held().objects.keys().cloned().collect()
    }

    /// Objects of which something else is said than at the last call.
    pub(super) fn take_changed(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.held().changed)
    }

    /// Waits until something was told.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn changed(&self) {
        self.news.notified().await;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change leaves the maps sound at each step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a kind has a status that is ours to write.
fn has_status(kind: Kind) -> bool {
    match kind {
        Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::AuthorizationPolicy
        | Kind::TrafficPolicy
        | Kind::TlsPolicy
        | Kind::Mesh => true,
        Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::Node | Kind::Namespace => false,
    }
}
