//! What is counted on an edge of the mesh.
//!
//! A spine resolves its edge when it first sees a route with a peer, and keeps it; closing a record
//! then adds to a few numbers of the edge and looks nothing up.
//!
//! Invariant: an edge is written by its worker's thread alone; a scrape only reads.
//! Invariant: counting allocates nothing except the first time an edge sees its first duration or its
//! ninth kind of outcome.
//! Invariant: label sets are bounded; what is beyond the bound is counted on the overflow edge, or as
//! the outcome "other".

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustc_hash::FxHashMap;
use weft_proxy_core::{Reason, reason};

use super::exemplars::{Exemplars, Seen};
pub use super::labels::{Direction, EdgeLabels, Party, Protocol, Security, UNKNOWN};
use super::latency::Latency;
use super::sizes::Sizes;

/// How one request ended, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome(u32);

impl Outcome {
    /// An outcome; `status` 0 where there was no answer.
    #[must_use]
    pub fn new(status: u16, grpc: Option<u8>, reason: Option<Reason>) -> Self {
        let grpc = grpc.map_or(NOTHING, |code| u32::from(code.min(GRPC_BEYOND)));
        let reason = reason.map_or(NOTHING, |reason| reason as u32);
        Self(PRESENT | (u32::from(status.min(999)) << 16) | (grpc << 8) | reason)
    }

    /// Stands for outcomes beyond the bound.
    pub const OTHER: Self = Self(PRESENT | (1000 << 16) | (NOTHING << 8) | NOTHING);

    /// The HTTP status; 0 where there was no answer.
    #[must_use]
    pub fn status(self) -> u16 {
        u16::try_from((self.0 >> 16) & 0x3ff).unwrap_or(0)
    }

    /// The gRPC status, where there was one; above 16 it is none that gRPC defines.
    #[must_use]
    pub fn grpc(self) -> Option<u8> {
        u8::try_from((self.0 >> 8) & 0xff).ok().filter(|code| u32::from(*code) != NOTHING)
    }

    /// The sidecar's own reason, where it had one.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        reason::ALL.get((self.0 & 0xff) as usize).copied()
    }

    /// Whether an operator would call it a failure of the service: 5xx, a gRPC status that says so, or no
    /// answer at all, unless the downstream left.
    ///
    /// Source: OpenTelemetry's RPC conventions, which of the gRPC codes are a server's errors.
    #[must_use]
    pub fn failed(self) -> bool {
        if self == Self::OTHER || self.reason() == Some(Reason::Cancelled) {
            return false;
        }
        let grpc = matches!(self.grpc(), Some(2 | 4 | 12 | 13 | 14 | 15));
        grpc || self.status() >= 500 || self.status() == 0
    }
}

/// Marks a slot as taken.
const PRESENT: u32 = 1 << 31;
/// No gRPC status, or no reason.
const NOTHING: u32 = 0xff;
/// Any gRPC status that gRPC does not define.
const GRPC_BEYOND: u8 = 17;

/// How many series all edges may still open.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// Leave for `series` series.
    #[must_use]
    pub fn new(series: usize) -> Self {
        Self(AtomicUsize::new(series))
    }

    pub(super) fn take(&self, series: usize) -> bool {
        let taken = |left: usize| left.checked_sub(series);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    pub(super) fn give(&self, series: usize) {
        self.0.fetch_add(series, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU32,
    count: AtomicU64,
}

/// How requests of an edge are spread; made when the first of them ends.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    pub(super) duration: Latency,
    pub(super) first_byte: Latency,
    pub(super) request: Sizes,
    pub(super) response: Sizes,
}

/// Adds to a number that only this thread writes, and others read: a third of what an atomic addition costs.
pub(super) fn raise(number: &AtomicU64, by: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// One worker's counters of one edge.
#[derive(Debug)]
pub struct Edge {
    labels: EdgeLabels,
    budget: Arc<Budget>,
    near: [Slot; NEAR],
    far: OnceLock<Box<[Slot; FAR]>>,
    other: AtomicU64,
    shapes: OnceLock<Box<Shapes>>,
    exemplars: OnceLock<Box<Exemplars>>,
    lines: [OnceLock<Box<[u8]>>; 2],
    pub(super) bytes_up: AtomicU64,
    pub(super) bytes_down: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
}

/// Outcomes that an edge holds inline. Source: healthy services answer with fewer.
const NEAR: usize = 8;
/// Outcomes beyond those. Source: more than the status codes registered with IANA.
const FAR: usize = 64;

impl Edge {
    pub(super) fn new(labels: EdgeLabels, budget: Arc<Budget>) -> Self {
        Self {
            labels,
            budget,
            near: Default::default(),
            far: OnceLock::new(),
            other: AtomicU64::new(0),
            shapes: OnceLock::new(),
            exemplars: OnceLock::new(),
            lines: Default::default(),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
        }
    }

    /// What the edge is.
    #[must_use]
    pub fn labels(&self) -> &EdgeLabels {
        &self.labels
    }

    /// What every line of the access log about this edge has in common, in the one schema or the `other`; written
    /// with `write` when it is first asked for.
    pub fn in_common(&self, other: bool, write: impl FnOnce() -> Vec<u8>) -> &[u8] {
        let [one, another] = &self.lines;
        let line = if other { another } else { one };
        line.get_or_init(|| write().into_boxed_slice())
    }

    /// Counts one request that ended.
    pub fn request(&self, outcome: Outcome, took: Duration, bytes_up: u64, bytes_down: u64) {
        self.outcome(outcome);
        let shapes = self.shapes.get_or_init(Box::default);
        shapes.duration.add(took);
        shapes.request.add(bytes_up);
        shapes.response.add(bytes_down);
        self.bytes(bytes_up, bytes_down);
    }

    /// Counts how long a request waited for its answer's head.
    pub fn first_byte(&self, after: Duration) {
        self.shapes.get_or_init(Box::default).first_byte.add(after);
    }

    /// A request that is kept as a trace ended.
    pub fn traced(&self, seen: Seen) {
        self.exemplars.get_or_init(Box::default).see(seen);
    }

    /// Counts one attempt beyond a request's first.
    pub fn retry(&self) {
        raise(&self.retries, 1);
    }

    /// Counts one connection that opened.
    pub fn opened(&self) {
        raise(&self.opened, 1);
    }

    /// Counts one connection that closed, and what it carried since it was last counted.
    pub fn closed(&self, bytes_up: u64, bytes_down: u64) {
        raise(&self.closed, 1);
        self.bytes(bytes_up, bytes_down);
    }

    /// Counts bytes that were carried.
    pub fn bytes(&self, up: u64, down: u64) {
        if up > 0 {
            raise(&self.bytes_up, up);
        }
        if down > 0 {
            raise(&self.bytes_down, down);
        }
    }

    /// The outcomes counted so far.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let far = self.far.get().into_iter().flat_map(|far| far.iter());
        let slots = self
            .near
            .iter()
            .chain(far)
            .map(|slot| (slot.key.load(Ordering::Acquire), slot.count.load(Ordering::Relaxed)));
        let other = (Outcome::OTHER.0, self.other.load(Ordering::Relaxed));
        slots
            .filter(|(key, _)| *key != 0)
            .chain((other.1 > 0).then_some(other))
            .map(|(key, count)| (Outcome(key), count))
    }

    /// Durations and sizes, once there is one.
    pub(super) fn shapes(&self) -> Option<&Shapes> {
        self.shapes.get().map(Box::as_ref)
    }

    /// Requests that are traces, once there is one.
    pub(super) fn exemplars(&self) -> Option<&Exemplars> {
        self.exemplars.get().map(Box::as_ref)
    }

    /// How many series the edge took from the budget.
    pub(super) fn series(&self) -> usize {
        1 + self.outcomes().filter(|(outcome, _)| *outcome != Outcome::OTHER).count()
    }

    fn outcome(&self, outcome: Outcome) {
        if !self.count_in(&self.near, outcome) && !self.count_in(self.far(), outcome) {
            raise(&self.other, 1);
        }
    }

    #[cold]
    fn far(&self) -> &[Slot] {
        self.far.get_or_init(|| Box::new(std::array::from_fn(|_| Slot::default()))).as_slice()
    }

    /// Counts in the outcome's slot, or in the first free one; false when neither is to be had.
    fn count_in(&self, slots: &[Slot], outcome: Outcome) -> bool {
        for slot in slots {
            let mut key = slot.key.load(Ordering::Relaxed);
            if key == 0 {
                key = match self.claim(slot, outcome) {
                    Some(key) => key,
                    None => return false,
                };
            }
            if key == outcome.0 {
                raise(&slot.count, 1);
                return true;
            }
        }
        false
    }

    /// Claims a free slot; gives whose it then is, or `None` when the budget is spent.
    #[cold]
    fn claim(&self, slot: &Slot, outcome: Outcome) -> Option<u32> {
        if !self.budget.take(1) {
            return None;
        }
        let claimed = slot.key.compare_exchange(0, outcome.0, Ordering::AcqRel, Ordering::Acquire);
        Some(claimed.map_or_else(
            |theirs| {
                self.budget.give(1);
                theirs
            },
            |_| outcome.0,
        ))
    }
}

/// Handles that one thread or connection keeps, by two small numbers of the caller's choice (a rule and
/// an endpoint, say), for as long as one snapshot lasts.
#[derive(Debug)]
pub struct Kept<V> {
    epoch: u64,
    by_key: FxHashMap<(u64, u64), Arc<V>>,
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self { epoch: 0, by_key: FxHashMap::default() }
    }
}

impl<V> Kept<V> {
    /// Lets go of the handles of an older snapshot: what has no traffic would hold on to them.
    pub fn renew(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.by_key.clear();
            self.epoch = epoch;
        }
    }

    /// The handle for `key` in the snapshot `epoch`, resolved with `resolve` when it is first asked for.
    /// Handles of an older snapshot are let go.
    pub fn find(&mut self, epoch: u64, key: (u64, u64), resolve: impl FnOnce() -> Arc<V>) -> &Arc<V> {
        self.renew(epoch);
        if self.by_key.len() >= KEPT {
            self.by_key.clear();
        }
        self.by_key.entry(key).or_insert_with(resolve)
    }
}

/// Handles kept at once. Source: as many as there may be series, so a cache never outgrows the registry.
const KEPT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(series: usize) -> Edge {
        let labels = EdgeLabels::unknown(Direction::Inbound, Protocol::Http);
        Edge::new(labels, Arc::new(Budget::new(series)))
    }

    fn count(edge: &Edge, outcome: Outcome) -> u64 {
        edge.outcomes().filter(|(found, _)| *found == outcome).map(|(_, count)| count).sum()
    }

    #[test]
    fn an_outcome_keeps_its_parts() {
        for (status, grpc, reason) in [
            (200, None, None),
            (0, None, Some(Reason::Cancelled)),
            (999, Some(16), Some(Reason::MalformedRequest)),
            (503, Some(0), Some(Reason::Internal)),
        ] {
            let outcome = Outcome::new(status, grpc, reason);
            assert_eq!((outcome.status(), outcome.grpc(), outcome.reason()), (status, grpc, reason));
        }
        assert_eq!(Outcome::new(u16::MAX, Some(200), None).status(), 999);
        assert_eq!(Outcome::new(200, Some(200), None).grpc(), Some(17));
        assert_eq!(Outcome::OTHER.reason(), None);
    }

    #[test]
    fn a_failure_is_the_services_and_not_the_callers() {
        let failed = |status, grpc, reason| Outcome::new(status, grpc, reason).failed();
        assert!(failed(500, None, None) && failed(200, Some(14), None));
        assert!(failed(0, None, Some(Reason::UpstreamReset)));
        assert!(!failed(404, None, None) && !failed(200, Some(5), None) && !failed(200, Some(0), None));
        assert!(
            !failed(0, None, Some(Reason::Cancelled)) && !failed(403, None, Some(Reason::DeniedByPolicy))
        );
    }

    #[test]
    fn every_outcome_has_a_count_of_its_own_until_the_table_is_full() {
        let edge = edge(1_000);
        for round in 1..=3u64 {
            for status in 200..300 {
                edge.request(Outcome::new(status, None, None), Duration::from_millis(1), 2, 3);
            }
            assert_eq!(count(&edge, Outcome::new(200, None, None)), round);
            assert_eq!(count(&edge, Outcome::new(271, None, None)), round);
            assert_eq!(count(&edge, Outcome::OTHER), 28 * round, "those beyond the table count together");
        }
        assert_eq!(edge.series(), 1 + NEAR + FAR);
        assert_eq!(edge.bytes_up.load(Ordering::Relaxed), 600);
    }

    #[test]
    fn outcomes_beyond_the_budget_count_as_other() {
        let edge = edge(2);
        for status in [200, 404, 500, 503, 200] {
            edge.request(Outcome::new(status, None, None), Duration::ZERO, 0, 0);
        }
        assert_eq!(count(&edge, Outcome::new(200, None, None)), 2);
        assert_eq!(count(&edge, Outcome::OTHER), 2);
    }

    #[test]
    fn a_scrape_while_its_worker_counts_disturbs_nothing() {
        let edge = edge(1_000);
        let counted = || edge.outcomes().map(|(_, count)| count).sum::<u64>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..40_000u16 {
                    edge.request(Outcome::new(200 + n % 20, None, None), Duration::ZERO, 1, 0);
                }
            });
            scope.spawn(|| {
                let mut seen = 0;
                while seen < 40_000 {
                    let now = counted();
                    assert!((seen..=40_000).contains(&now), "{now} after {seen}");
                    seen = now;
                }
            });
        });
        assert_eq!((counted(), count(&edge, Outcome::new(219, None, None))), (40_000, 2_000));
    }

    #[test]
    fn kept_handles_last_as_long_as_the_snapshot() {
        let mut kept = Kept::default();
        let first = Arc::clone(kept.find(1, (1, 1), || Arc::new(1)));
        assert!(Arc::ptr_eq(&first, kept.find(1, (1, 1), || Arc::new(2))));
        assert_eq!(**kept.find(2, (1, 1), || Arc::new(3)), 3);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
