//! What is counted of the watches on an API server.
//!
//! Invariant: labels are closed sets: the kinds that are watched, and a few classes of failure.

use std::borrow::Cow;

use weft_control_plane_core::model::Kind;
use weft_exposition::handles::{Counter, Each, Gauge, Registry, Words};

use super::catalog;
use crate::clock::unix_now;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Of {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    kind: &'static str,
    event: Seen,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Failure {
    kind: &'static str,
    reason: Failed,
}

impl Words for Of {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![self.kind.into()]
    }
}

impl Words for Event {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![self.kind.into(), format!("{:?}", self.event).into()]
    }
}

impl Words for Failure {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![self.kind.into(), format!("{:?}", self.reason).into()]
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the label's values")]
pub enum Seen {
    Applied,
    Removed,
}

/// Why a list or a watch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the label's values")]
pub enum Failed {
    Request,
    Connection,
    Silent,
    Cut,
    Expired,
    Forbidden,
    Throttled,
    Server,
    Decode,
}

/// Handles of the watches' metrics.
#[derive(Debug, Clone, Default)]
pub struct WatchMetrics {
    events: Each<Event, Counter>,
    lists: Each<Of, Counter>,
    failures: Each<Failure, Counter>,
    contact: Each<Of, Gauge>,
    /// 1 once every kind that has to be there was listed.
    pub synced: Gauge,
    /// Objects that could not be read and are not in force.
    pub unreadable: Gauge,
}

impl WatchMetrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(&catalog::WATCH_EVENTS, metrics.events.clone());
        registry.register(&catalog::WATCH_LISTS, metrics.lists.clone());
        registry.register(&catalog::WATCH_FAILURES, metrics.failures.clone());
        registry.register(&catalog::WATCH_CONTACT, metrics.contact.clone());
        registry.register(&catalog::SYNCED, metrics.synced.clone());
        registry.register(&catalog::UNREADABLE, metrics.unreadable.clone());
        metrics
    }

    /// An object was seen or went.
    pub fn seen(&self, kind: Kind, event: Seen) {
        self.events.of(&Event { kind: kind.as_str(), event }).inc();
        self.well(kind);
    }

    /// A list begins.
    pub fn listed(&self, kind: Kind) {
        self.lists.of(&Of { kind: kind.as_str() }).inc();
        self.well(kind);
    }

    /// A list or a watch failed.
    pub fn failed(&self, kind: Kind, reason: Failed) {
        self.failures.of(&Failure { kind: kind.as_str(), reason }).inc();
    }

    /// The server answered.
    pub fn well(&self, kind: Kind) {
        let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
        self.contact.of(&Of { kind: kind.as_str() }).set(now);
    }
}
