//! Holds the current configuration, encoded once, and tells the streams that a change concerns.
//!
//! Before it: `reload` compiled a new state. After it: `serve` asks each session what it is owed.
//!
//! Invariant: what does not differ is not published; what does keeps the bytes of all that is equal.
//! Invariant: what is published holds the trust of the moment, whichever of the two changes.

mod interest;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weft_control_plane_core::Delta;
use weft_control_plane_core::config::{Config, Key, Resource, ResourceType, Trust};
use weft_control_plane_core::session::Published;
use weft_proto::names::Workload;

pub use self::interest::{Interests, Progress, Seat};
use crate::authority::Authority;
use crate::encode::encode;

/// The first generation of a process. Source: the contract; 0 means none yet.
const FIRST: u64 = 1;

/// What every stream reads: nothing before the first good state.
pub type Reader = watch::Receiver<Option<Arc<Published>>>;

/// The publishing side. Clones publish to the same readers, one after the other.
#[derive(Debug, Clone)]
pub struct Publisher {
    sender: watch::Sender<Option<Arc<Published>>>,
    trust: Arc<Mutex<Option<Trust>>>,
    interests: Arc<Interests>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), trust: Arc::default(), interests: Arc::default() }
    }
}

impl Publisher {
    /// Where streams say what they live on.
    pub fn interests(&self) -> Arc<Interests> {
        Arc::clone(&self.interests)
    }

    /// A reading side.
    pub fn reader(&self) -> Reader {
        self.sender.subscribe()
    }

    /// Publishes a config if it differs; returns what is published now and whether that is new.
    pub fn publish(&self, mut config: Config) -> (Arc<Published>, bool) {
        let trust = self.trust();
        if let Some((key, resource)) = trust.as_ref().map(resource) {
            config.resources.insert(key, resource);
        }
        let config = Arc::new(config);
        let before = self.sender.borrow().clone();
        let next = match &before {
            None => Some(Published::new(FIRST, config, encode)),
            Some(before) => before.after(config),
        };
        self.show(before, next)
    }

    /// Publishes a difference, if sidecars can see it; returns what is published now and whether that is
    /// new. It costs what the difference is.
    pub fn apply(&self, delta: &Delta) -> (Arc<Published>, bool) {
        let trust = self.trust();
        let before = self.sender.borrow().clone();
        let next = match &before {
            None => {
                let mut first = delta.clone();
                first.upserts.extend(trust.as_ref().map(resource).map(|(key, it)| (key, Arc::new(it))));
                Published::nothing(encode).apply(&first)
            }
            Some(before) => before.apply(delta),
        };
        self.show(before, next)
    }

    /// From now on whatever is published holds this trust; what is published already gets it at once.
    pub fn trust_in(&self, trust: Trust) {
        let mut held = self.trust();
        let before = self.sender.borrow().clone();
        if let Some(next) = before.as_ref().and_then(|before| before.apply(&only(&trust))) {
            self.show(before, Some(next));
        }
        *held = Some(trust);
    }

    fn show(&self, before: Option<Arc<Published>>, next: Option<Published>) -> (Arc<Published>, bool) {
        match (before, next) {
            (Some(before), None) => (before, false),
            (_, next) => {
                let next = Arc::new(next.unwrap_or_else(|| Published::nothing(encode)));
                self.sender.send_replace(Some(Arc::clone(&next)));
                let before = next.generation().saturating_sub(1);
                self.interests.rouse(next.generation(), next.changes_since(before));
                (next, true)
            }
        }
    }

    /// Held while something is published, so that neither of two publications loses the other's change.
    fn trust(&self) -> MutexGuard<'_, Option<Trust>> {
        // Trust is replaced whole, so a panic elsewhere leaves it sound.
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Trust as a resource.
fn resource(trust: &Trust) -> (Key, Resource) {
    (Key::new(ResourceType::Trust, trust.trust_domain.clone()), Resource::Trust(trust.clone()))
}

/// A difference in trust, and in nothing else.
fn only(trust: &Trust) -> Delta {
    let (key, resource) = resource(trust);
    let mut delta = Delta::default();
    delta.upserts.insert(key, Arc::new(resource));
    delta
}

/// Publishes the authority's roots whenever they change.
///
/// # Cancel safety
/// Dropping it ends that; what is published stays.
pub async fn follow(publisher: Publisher, authority: Arc<Authority>) {
    let mut changes = authority.changes();
    while changes.changed().await.is_ok() {
        let trust = authority.trust();
        tracing::info!(roots = trust.roots.len(), "the trusted roots are published anew");
        publisher.trust_in(trust);
    }
}

/// The service account of a workload in a published state; none: the workload is not known.
pub fn account<'a>(published: &'a Published, workload: &Workload) -> Option<&'a str> {
    let key = Key::new(ResourceType::Inbound, workload.to_string());
    match published.resource(&key)? {
        Resource::Inbound(inbound) => Some(&inbound.service_account),
        _ => None,
    }
}
