//! Holds the current configuration, encoded once, and tells the streams that a change concerns.
//!
//! Before it: `reload` compiled a new state. After it: `serve` asks each session what it is owed.
//!
//! Invariant: what does not differ is not published; what does keeps the bytes of all that is equal.

mod interest;

use std::sync::Arc;

use tokio::sync::watch;
use weft_control_plane_core::Delta;
use weft_control_plane_core::config::{Config, Key, Resource, ResourceType};
use weft_control_plane_core::session::Published;
use weft_proto::names::Workload;

pub use self::interest::{Interests, Progress, Seat};
use crate::encode::encode;

/// The first generation of a process. Source: the contract; 0 means none yet.
const FIRST: u64 = 1;

/// What every stream reads: nothing before the first good state.
pub type Reader = watch::Receiver<Option<Arc<Published>>>;

/// The publishing side; one.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Option<Arc<Published>>>,
    interests: Arc<Interests>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), interests: Arc::default() }
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
    pub fn publish(&self, config: Config) -> (Arc<Published>, bool) {
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
        let before = self.sender.borrow().clone();
        let next = match &before {
            None => Published::nothing(encode).apply(delta),
            Some(before) => before.apply(delta),
        };
        self.show(before, next)
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
}

/// The service account of a workload in a published state; none: the workload is not known.
pub fn account<'a>(published: &'a Published, workload: &Workload) -> Option<&'a str> {
    let key = Key::new(ResourceType::Inbound, workload.to_string());
    match published.resource(&key)? {
        Resource::Inbound(inbound) => Some(&inbound.service_account),
        _ => None,
    }
}
