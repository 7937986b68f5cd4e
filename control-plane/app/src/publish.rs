//! Holds the current configuration, encoded once, and tells all streams when it changes.
//!
//! Before it: `reload` compiled a new state. After it: `serve` asks each session what it is owed.
//!
//! Invariant: what does not differ is not published; what does keeps the bytes of all that is equal.

use std::sync::Arc;

use tokio::sync::watch;
use weft_control_plane_core::config::{Config, Key, Resource, ResourceType};
use weft_control_plane_core::session::Published;
use weft_proto::names::Workload;

use crate::encode::encode;

/// The first generation of a process. Source: the contract; 0 means none yet.
const FIRST: u64 = 1;

/// What every stream reads: nothing before the first good state.
pub type Reader = watch::Receiver<Option<Arc<Published>>>;

/// The publishing side; one.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Option<Arc<Published>>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None) }
    }
}

impl Publisher {
    /// A reading side.
    pub fn reader(&self) -> Reader {
        self.sender.subscribe()
    }

    /// Publishes a config if it differs; returns what is published now and whether that is new.
    pub fn publish(&self, config: Config) -> (Arc<Published>, bool) {
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
}

/// The service account of a workload in a published state; none: the workload is not known.
pub fn account<'a>(published: &'a Published, workload: &Workload) -> Option<&'a str> {
    let key = Key::new(ResourceType::Inbound, workload.to_string());
    match published.config().resources.get(&key)? {
        Resource::Inbound(inbound) => Some(&inbound.service_account),
        _ => None,
    }
}
