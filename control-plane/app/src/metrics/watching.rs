//! What is counted of the watches on an API server.
//!
//! Invariant: labels are closed sets: the kinds that are watched, and a few classes of failure.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use weft_control_plane_core::model::Kind;

use crate::clock::unix_now;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    kind: &'static str,
    event: Seen,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    kind: &'static str,
    reason: Failed,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names are the label's values")]
pub enum Seen {
    Applied,
    Removed,
}

/// Why a list or a watch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
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
    events: Family<Event, Counter>,
    lists: Family<Of, Counter>,
    failures: Family<Failure, Counter>,
    contact: Family<Of, Gauge>,
    /// 1 once every kind that has to be there was listed.
    pub synced: Gauge,
    /// Objects that could not be read and are not in force.
    pub unreadable: Gauge,
}

impl WatchMetrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("watch_events", "Events of watches by kind", metrics.events.clone());
        registry.register(
            "watch_lists",
            "Lists begun by kind; one at the start, more after an expiry or an outage",
            metrics.lists.clone(),
        );
        registry.register(
            "watch_failures",
            "Lists and watches that failed, by kind and why",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "watch_contact_timestamp",
            "When the API server was last heard of for a kind, since 1970",
            Unit::Seconds,
            metrics.contact.clone(),
        );
        registry.register(
            "synced",
            "1 once every kind that has to be there was listed",
            metrics.synced.clone(),
        );
        registry.register(
            "objects_unreadable",
            "Objects that could not be read and are not in force",
            metrics.unreadable.clone(),
        );
        metrics
    }

    /// An object was seen or went.
    pub fn seen(&self, kind: Kind, event: Seen) {
        self.events.get_or_create(&Event { kind: kind.as_str(), event }).inc();
        self.well(kind);
    }

    /// A list begins.
    pub fn listed(&self, kind: Kind) {
        self.lists.get_or_create(&Of { kind: kind.as_str() }).inc();
        self.well(kind);
    }

    /// A list or a watch failed.
    pub fn failed(&self, kind: Kind, reason: Failed) {
        self.failures.get_or_create(&Failure { kind: kind.as_str(), reason }).inc();
    }

    /// The server answered.
    pub fn well(&self, kind: Kind) {
        let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
        self.contact.get_or_create(&Of { kind: kind.as_str() }).set(now);
    }
}
