//! What the chores towards Kubernetes count, under the prefix `weft_control_plane_`.
//!
//! Invariant: every write that can fail and everything that is dropped has a number here; labels are
//! small closed sets.

use std::borrow::Cow;

use weft_exposition::handles::{Counter, Each, Gauge, Registry, Words};

use crate::metrics::catalog;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl Words for Outcome {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![format!("{self:?}").into()]
    }
}

/// Handles of everything that is counted here.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
    /// How often this replica began to lead.
    pub elected: Counter,
    /// Events by what became of them.
    pub events: Each<Outcome, Counter>,
    /// Status writes by what became of them.
    pub status: Each<Outcome, Counter>,
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
        let counts = Self::default();
        registry.register(&catalog::LEADER, counts.leader.clone());
        registry.register(&catalog::ELECTED, counts.elected.clone());
        registry.register(&catalog::EVENTS, counts.events.clone());
        registry.register(&catalog::STATUS_WRITES, counts.status.clone());
        registry.register(&catalog::STATUS_WAITING, counts.status_waiting.clone());
        registry.register(&catalog::SIGNER_END, counts.signer_not_after.clone());
        registry.register(&catalog::ROOT_END, counts.root_not_after.clone());
        registry.register(&catalog::ROOTS, counts.roots.clone());
        registry.register(&catalog::ROOT_REFUSED, counts.root_refused.clone());
        counts
    }

    /// Counts one write in a family.
    pub fn wrote(family: &Each<Outcome, Counter>, outcome: Outcome) {
        family.of(&outcome).inc();
    }
}
