//! Everything the sidecar counts, and how a scrape reads it.
//!
//! The rooms hold handles: an edge for each route with a peer, a meter for each backend and rule, and
//! the plain counters here. `admin` renders.
//!
//! Invariant: adding to a handle takes no lock and looks nothing up.
//! Invariant: at most [`SERIES`] series of edges, [`BACKENDS`] backends and [`RULES`] rules; who comes
//! later is counted together under "overflow".

pub mod backend;
pub mod catalog;
pub mod edge;
pub mod exemplars;
pub mod labels;
pub mod latency;
pub mod own;
pub mod plain;
pub mod render;
pub mod shelf;
pub mod sizes;
pub mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_proxy_core::{Name, Reason, reason};

use backend::{BackendMeter, RuleLabels, RuleMeter};
use edge::{Budget, Direction, Edge, EdgeLabels};
use plain::Plain;
use shelf::Shelf;

/// All counters of a sidecar.
#[derive(Debug)]
pub struct Metrics {
    edges: Shelf<(u16, EdgeLabels), Edge>,
    overflowing: Shelf<(u16, EdgeLabels), Edge>,
    budget: Arc<Budget>,
    overflowed: AtomicU64,
    backends: Shelf<Name, BackendMeter>,
    backends_beyond: Arc<BackendMeter>,
    rules: Shelf<RuleLabels, RuleMeter>,
    rules_beyond: Arc<RuleMeter>,
    refused: [[AtomicU64; reason::ALL.len()]; 2],
    plain: Plain,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with_series(SERIES)
    }
}

impl Metrics {
    /// Counters with room for `series` series of edges.
    #[must_use]
    pub fn with_series(series: usize) -> Self {
        Self {
            edges: Shelf::new(usize::MAX),
            overflowing: Shelf::new(usize::MAX),
            budget: Arc::new(Budget::new(series)),
            overflowed: AtomicU64::new(0),
            backends: Shelf::new(BACKENDS),
            backends_beyond: Arc::default(),
            rules: Shelf::new(RULES),
            rules_beyond: Arc::default(),
            refused: std::array::from_fn(|_| [const { AtomicU64::new(0) }; reason::ALL.len()]),
            plain: Plain::default(),
        }
    }

    /// The counters of one worker for one edge. Takes a lock and hashes texts: to be kept, not asked for
    /// with every request ([`edge::Kept`]).
    pub fn edge(&self, worker: u16, labels: &EdgeLabels) -> Arc<Edge> {
        let key = (worker, labels.clone());
        if let Some(known) = self.edges.find(&key) {
            return known;
        }
        if !self.budget.take(1) {
            return self.overflow(worker, labels);
        }
        let new = || Edge::new(labels.clone(), Arc::clone(&self.budget));
        self.edges.take(&key, new).unwrap_or_else(|| self.overflow(worker, labels))
    }

    fn overflow(&self, worker: u16, labels: &EdgeLabels) -> Arc<Edge> {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let beyond = EdgeLabels::overflow(labels.direction, labels.protocol);
        let new = || Edge::new(beyond.clone(), Arc::clone(&self.budget));
        let key = (worker, beyond.clone());
        self.overflowing.take(&key, new).unwrap_or_else(|| Arc::new(new()))
    }

    /// The counters of a backend; held by the snapshot.
    pub fn backend(&self, name: &Name) -> Arc<BackendMeter> {
        self.backends.take(name, BackendMeter::default).unwrap_or_else(|| Arc::clone(&self.backends_beyond))
    }

    /// The count of what a rule decided; held by the snapshot.
    pub fn rule(&self, labels: &RuleLabels) -> Arc<RuleMeter> {
        self.rules.take(labels, RuleMeter::default).unwrap_or_else(|| Arc::clone(&self.rules_beyond))
    }

    /// A request or connection ended with a reason of the sidecar's own. Closing a record counts it.
    pub fn refused(&self, direction: Direction, reason: Reason) {
        let counts = match direction {
            Direction::Inbound => &self.refused[0],
            Direction::Outbound => &self.refused[1],
        };
        if let Some(count) = counts.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters that are not of edges, backends or rules.
    #[must_use]
    pub fn plain(&self) -> &Plain {
        &self.plain
    }

    /// Lets go of series that nobody uses any more; called every five minutes, or as `--series-idle` says.
    pub fn sweep(&self) {
        for edge in self.edges.sweep() {
            self.budget.give(edge.series());
        }
        self.backends.sweep();
        self.rules.sweep();
    }
}

/// Source: agreed bound on label cardinality; a mesh of 500 routes and 200 peers stays well within it.
pub const SERIES: usize = 10_000;
/// Source: as many Services as Kubernetes supports in a cluster (10,000), a tenth of them called by one pod.
pub const BACKENDS: usize = 1_000;
/// Source: a hundred policies of twenty rules, each allowing or denying.
pub const RULES: usize = 4_000;
