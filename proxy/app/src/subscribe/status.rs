//! How current the configuration is: for metrics, `/ready` and `/config`.
//!
//! Invariant: "connected" means that an epoch came on the present stream.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio::sync::watch;
use weft_proto::v1;

use super::stream::End;
use crate::adopt::Key;
use crate::certify::unix;

/// Refusals that are remembered. Source: what a person reads.
const MAX_REFUSALS: usize = 256;

/// How current the configuration is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct StreamStatus {
    /// An epoch came on the present stream.
    pub connected: bool,
    /// Since when `connected` is what it is, seconds since 1970; 0: since the start.
    pub since: u64,
    /// The configuration is, at least, from the disk.
    pub configured: bool,
    /// When the last epoch was adopted, also by an earlier process, seconds since 1970; 0: never.
    pub last_epoch: u64,
    /// Generation of the control plane's model that is shown.
    pub generation: u64,
    /// Epochs adopted.
    pub epochs: u64,
    /// Streams that brought an epoch.
    pub connects: u64,
    /// Streams that ended or did not open.
    pub disconnects: u64,
    /// Resources that could not be taken, each time.
    pub refusals: u64,
    /// Resources whose newest version could not be taken, with the reason.
    pub refused: BTreeMap<String, String>,
    /// Why the last stream ended or did not open; `None`: nothing is wrong.
    pub problem: Option<String>,
}

/// The status, written.
#[derive(Debug, Default)]
pub(super) struct Progress(watch::Sender<StreamStatus>);

impl Progress {
    pub(super) fn status(&self) -> watch::Receiver<StreamStatus> {
        self.0.subscribe()
    }

    /// The disk gave a configuration.
    pub(super) fn restored(&self, written: Option<SystemTime>) {
        self.0.send_modify(|status| {
            status.configured = true;
            status.last_epoch = written.map_or(0, unix);
        });
    }

    /// An epoch is in force.
    pub(super) fn adopted(&self, generation: u64, touched: &[Key], refusals: &[v1::Refusal]) {
        self.0.send_modify(|status| {
            status.generation = generation;
            status.last_epoch = unix(SystemTime::now());
            status.epochs = status.epochs.saturating_add(1);
            status.refusals = status.refusals.saturating_add(refusals.len() as u64);
            for key in touched {
                status.refused.remove(&key.to_string());
            }
            for refusal in refusals {
                let key = refusal.key.as_ref().and_then(Key::of);
                let name =
                    key.map_or_else(|| "a resource of an unknown kind".to_owned(), |key| key.to_string());
                if status.refused.len() < MAX_REFUSALS {
                    status.refused.insert(name, refusal.reason.clone());
                }
            }
        });
    }

    /// The present stream has brought an epoch.
    pub(super) fn connected(&self) {
        self.0.send_if_modified(|status| {
            status.configured = true;
            status.problem = None;
            let changed = !status.connected;
            if changed {
                status.connected = true;
                status.connects = status.connects.saturating_add(1);
                status.since = unix(SystemTime::now());
            }
            changed
        });
    }

    /// The stream ended, or did not open.
    pub(super) fn disconnected(&self, end: &End) {
        self.0.send_modify(|status| {
            if status.connected || status.since == 0 {
                status.since = unix(SystemTime::now());
            }
            status.connected = false;
            status.disconnects = status.disconnects.saturating_add(1);
            status.problem = Some(end.to_string());
        });
    }
}

/// The keys an epoch speaks of.
pub(super) fn touched(epoch: &v1::Epoch) -> Vec<Key> {
    let upserts = epoch.upserts.iter().filter_map(|resource| resource.key.as_ref());
    upserts.chain(&epoch.removals).filter_map(Key::of).collect()
}
