//! How the sidecar itself stands: its configuration, its certificate, the roots it trusts.
//!
//! The chores thread writes what certifier and subscriber report, whole, each time it changes.
//!
//! Invariant: totals are the reporters' own, so that nothing is counted twice when a report is repeated.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// State of the configuration.
#[derive(Debug, Default)]
pub struct Config(Mutex<ConfigState>);

/// What is known of the configuration; times are seconds since 1970, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigState {
    /// The epoch in use.
    pub generation: u64,
    /// Since when.
    pub adopted_at: u64,
    /// Epochs taken into use.
    pub adopted: u64,
    /// Resources refused, each time.
    pub refused: u64,
    /// Resources refused now.
    pub refused_now: u64,
    /// Whether the stream to the control plane is open.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: u64,
    /// Streams that brought configuration.
    pub connects: u64,
    /// Streams that ended or did not open.
    pub disconnects: u64,
}

impl Config {
    /// It stands so now.
    pub fn set(&self, state: ConfigState) {
        *lock(&self.0) = state;
    }

    /// How it stands.
    #[must_use]
    pub fn read(&self) -> ConfigState {
        *lock(&self.0)
    }
}

/// State of the own certificate, and of the roots.
#[derive(Debug, Default)]
pub struct Certificate(Mutex<CertificateState>);

/// What is known of certificate and roots; times are seconds since 1970, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateState {
    /// Certificates obtained.
    pub obtained: u64,
    /// Attempts to obtain one that failed.
    pub failed: u64,
    /// When the one in use was obtained.
    pub issued: u64,
    /// When it is to be renewed.
    pub renew_after: u64,
    /// When it expires.
    pub not_after: u64,
    /// Roots that are trusted.
    pub roots: u64,
    /// When they last changed.
    pub roots_changed: u64,
    /// When the first of them expires.
    pub root_not_after: u64,
}

impl Certificate {
    /// It stands so now.
    pub fn set(&self, state: CertificateState) {
        *lock(&self.0) = state;
    }

    /// How it stands.
    #[must_use]
    pub fn read(&self) -> CertificateState {
        *lock(&self.0)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
