//! What the chores towards Kubernetes count, under the prefix `weft_control_plane_`.
//!
//! Invariant: every write that can fail and everything that is dropped has a number here; labels are
//! small closed sets.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// One label that tells what became of a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Wrote {
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// The API server took it.
    Written,
    /// Somebody else wrote first; it is tried again.
    Conflict,
    /// The API server refused it or could not be reached; it is tried again.
    Failed,
    /// The object holds it already.
    Unchanged,
    /// The object is gone.
    Gone,
    /// There was no room; it is lost.
    Dropped,
}

/// Handles of everything that is counted here.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
    /// How often this replica began to lead.
    pub elected: Counter,
    /// Events by what became of them.
    pub events: Family<Wrote, Counter>,
    /// Status writes by what became of them.
    pub status: Family<Wrote, Counter>,
    /// Objects whose status waits to be written.
    pub status_waiting: Gauge,
    /// End of the signing certificate, seconds since 1970.
    pub signer_not_after: Gauge,
    /// End of the root that ends first, seconds since 1970.
    pub root_not_after: Gauge,
    /// Roots that are trusted.
    pub roots: Gauge,
    /// 1 while the Secret of the authority cannot be used and the last good one stays.
    pub root_refused: Gauge,
}

impl Counts {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("weft_control_plane");
        let counts = Self::default();
        registry.register("leader", "1 while this replica holds the Lease", counts.leader.clone());
        registry.register("elected", "Times this replica began to lead", counts.elected.clone());
        registry.register("events", "Kubernetes events by outcome", counts.events.clone());
        registry.register("status_writes", "Writes of status by outcome", counts.status.clone());
        registry.register(
            "status_waiting",
            "Objects whose status waits to be written",
            counts.status_waiting.clone(),
        );
        counts.register_roots(registry);
        counts
    }

    fn register_roots(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "signer_not_after",
            "End of the signing certificate, since 1970",
            Unit::Seconds,
            self.signer_not_after.clone(),
        );
        registry.register_with_unit(
            "root_not_after",
            "End of the trusted root that ends first, since 1970",
            Unit::Seconds,
            self.root_not_after.clone(),
        );
        registry.register("roots", "Roots that are trusted", self.roots.clone());
        registry.register(
            "root_refused",
            "1 while the Secret of the authority cannot be used and the last good one stays",
            self.root_refused.clone(),
        );
    }

    /// Counts one write in a family.
    pub fn wrote(family: &Family<Wrote, Counter>, outcome: Outcome) {
        family.get_or_create(&Wrote { outcome }).inc();
    }
}
