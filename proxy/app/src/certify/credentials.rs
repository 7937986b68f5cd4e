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
use rustls::time_provider::DefaultTimeProvider;
use tokio::sync::watch;
use weft_proxy_core::Identity;
use weft_proxy_net::tls::{BadIdentity, Generation, TlsIdentity};

use crate::adopt::Trust;

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    /// Chain and signing key, as rustls takes them.
    pub key: Arc<CertifiedKey>,
    /// The identity it carries.
    pub identity: Identity,
    /// End of its life, seconds since 1970.
    pub not_after: u64,
}

/// The current leaf and trust bundle.
#[derive(Debug)]
pub struct Credentials {
    leaf: ArcSwapOption<Leaf>,
    trust: ArcSwapOption<Trust>,
    tls: Arc<TlsIdentity>,
    /// Handshakes may resume earlier sessions.
    resumes: bool,
    changes: watch::Sender<u64>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Credentials {
    /// None yet; `resumes`: handshakes between sidecars may resume earlier sessions.
    pub fn new(resumes: bool) -> Self {
        Self {
            leaf: ArcSwapOption::empty(),
            trust: ArcSwapOption::empty(),
            tls: Arc::new(TlsIdentity::empty()),
            resumes,
            changes: watch::Sender::new(0),
        }
    }

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

    /// What handshakes between sidecars use, made of the current leaf and bundle.
    pub fn tls(&self) -> &Arc<TlsIdentity> {
        &self.tls
    }

    /// Takes a new leaf and the bundle that came with it, for all handshakes from now on.
    ///
    /// # Errors
    /// The two make no identity; what was in force stays.
    pub fn set(&self, leaf: Leaf, trust: Trust) -> Result<(), BadIdentity> {
        self.tls.set(self.generation(&leaf, &trust)?);
        self.leaf.store(Some(Arc::new(leaf)));
        self.trust.store(Some(Arc::new(trust)));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Takes a new trust bundle for all handshakes from now on; an equal one changes nothing.
    ///
    /// # Errors
    /// The current leaf and the bundle make no identity; what was in force stays.
    pub fn set_trust(&self, trust: Trust) -> Result<(), BadIdentity> {
        if self.trust.load().as_deref() == Some(&trust) {
            return Ok(());
        }
        if let Some(leaf) = self.leaf() {
            self.tls.set(self.generation(&leaf, &trust)?);
        }
        tracing::info!(trust_domain = trust.trust_domain, roots = trust.roots.len(), "trust bundle taken");
        self.trust.store(Some(Arc::new(trust)));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn generation(&self, leaf: &Leaf, trust: &Trust) -> Result<Generation, BadIdentity> {
        let key = CertifiedKey::clone(&leaf.key);
        let generation = Generation::of(key, &trust.roots, Arc::new(DefaultTimeProvider))?;
        Ok(if self.resumes { generation } else { generation.without_resumption() })
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
