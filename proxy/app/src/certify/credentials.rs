//! What the sidecar proves itself with and whom it trusts, both swapped live.
//!
//! Written by certify (leaf, first trust) and subscribe (later trust); read by whoever opens or
//! accepts a TLS connection.
//!
//! Invariant: a connection reads one leaf and one bundle; a swap touches only later handshakes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use weft_proto::names::SpiffeId;

use crate::adopt::Trust;

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    /// Chain and signing key, as rustls takes them.
    pub key: Arc<CertifiedKey>,
    /// The identity it carries.
    pub identity: SpiffeId,
    /// End of its life, seconds since 1970.
    pub not_after: u64,
}

/// The current leaf and trust bundle.
#[derive(Debug)]
pub struct Credentials {
    leaf: ArcSwapOption<Leaf>,
    trust: ArcSwapOption<Trust>,
    changes: watch::Sender<u64>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { leaf: ArcSwapOption::empty(), trust: ArcSwapOption::empty(), changes: watch::Sender::new(0) }
    }
}

impl Credentials {
    /// The leaf, whether or not its life is over; `None`: none was issued yet.
    pub fn leaf(&self) -> Option<Arc<Leaf>> {
        self.leaf.load_full()
    }

    /// The leaf, if it is alive at `now`.
    pub fn alive(&self, now: SystemTime) -> Option<Arc<Leaf>> {
        self.leaf().filter(|leaf| unix(now) < leaf.not_after)
    }

    /// The trust bundle; `None`: none arrived yet.
    pub fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.load_full()
    }

    /// Takes a new leaf for all handshakes from now on.
    pub fn set_leaf(&self, leaf: Leaf) {
        self.leaf.store(Some(Arc::new(leaf)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes a new trust bundle for all handshakes from now on; equal bundles change nothing.
    pub fn set_trust(&self, trust: Trust) {
        if self.trust.load().as_deref() == Some(&trust) {
            return;
        }
        tracing::info!(trust_domain = trust.trust_domain, roots = trust.roots.len(), "trust bundle taken");
        self.trust.store(Some(Arc::new(trust)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Wakes at every change of leaf or trust.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Seconds since 1970.
pub(crate) fn unix(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
