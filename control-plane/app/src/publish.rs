//! Holds the current configuration, encoded once, and tells all streams when it changes.
//!
//! Before it: `reload` compiled a new state. After it: `serve` asks each session what it is owed.
//!
//! Invariant: what does not differ is not published; what does keeps the bytes of all that is equal.
//! Invariant: what is published holds the trust of the moment, whichever of the two changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weft_control_plane_core::config::{Config, Key, Resource, ResourceType, Trust};
use weft_control_plane_core::session::Published;
use weft_proto::names::Workload;

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
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), trust: Arc::default() }
    }
}

impl Publisher {
    /// A reading side.
    pub fn reader(&self) -> Reader {
        self.sender.subscribe()
    }

    /// Publishes a config if it differs; returns what is published now and whether that is new.
    pub fn publish(&self, config: Config) -> (Arc<Published>, bool) {
        let trust = self.trust();
        self.send(config, trust.as_ref())
    }

    /// From now on whatever is published holds this trust; what is published already gets it at once.
    pub fn trust_in(&self, trust: Trust) {
        let mut held = self.trust();
        let published = self.sender.borrow().clone();
        if let Some(published) = published {
            self.send(Config::clone(published.config()), Some(&trust));
        }
        *held = Some(trust);
    }

    fn send(&self, mut config: Config, trust: Option<&Trust>) -> (Arc<Published>, bool) {
        if let Some(trust) = trust {
            let key = Key::new(ResourceType::Trust, trust.trust_domain.clone());
            config.resources.insert(key, Resource::Trust(trust.clone()));
        }
        let config = Arc::new(config);
        let before = self.sender.borrow().clone();
        let next = match before {
            None => Published::new(FIRST, config, encode),
            Some(before) => match before.after(config) {
                None => return (before, false),
                Some(next) => next,
            },
        };
        let next = Arc::new(next);
        self.sender.send_replace(Some(Arc::clone(&next)));
        (next, true)
    }

    /// Held while something is published, so that neither of two publications loses the other's change.
    fn trust(&self) -> MutexGuard<'_, Option<Trust>> {
        // Trust is replaced whole, so a panic elsewhere leaves it sound.
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    match published.config().resources.get(&key)? {
        Resource::Inbound(inbound) => Some(&inbound.service_account),
        _ => None,
    }
}
