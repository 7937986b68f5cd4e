//! The sidecar's edges, in all and lately, as the control plane is told of them.
//!
//! Invariant: "lately" is between one and two of the times at which what was counted is remembered, or since
//! the start of the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weft_proto::v1;
use weft_proxy_core::Moment;

use super::decision::{known, party};
use crate::metrics::Metrics;
use crate::metrics::edge::EdgeLabels;
use crate::metrics::latency::{BOUNDS, Tally};
use crate::metrics::table::{Counted, counted};

/// What was counted at two times in the past.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    before: Mark,
    now: Mark,
}

#[derive(Debug, Default)]
struct Mark {
    at: Moment,
    edges: BTreeMap<EdgeLabels, Kept>,
}

/// An edge's numbers; of the buckets of its durations only those that count something.
#[derive(Clone, Debug, Default)]
struct Kept {
    signals: v1::Signals,
    buckets: Sparse,
    first_byte: Sparse,
}

/// Buckets by their place in the table.
type Sparse = Vec<(u8, u64)>;

impl Lately {
    /// Remembers what is counted now; what was remembered the time before the last is forgotten.
    pub(super) fn remember(&self, metrics: &Metrics, now: Moment) {
        let edges = counted(metrics).into_iter().map(|(labels, counted)| (labels, kept(&counted))).collect();
        let mut past = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        past.before = std::mem::replace(&mut past.now, Mark { at: now, edges });
    }
}

/// The edges as they are now.
pub(super) fn reading(lately: &Lately, metrics: &Metrics, now: Moment) -> v1::Reading {
    let counted = counted(metrics);
    let past = lately.0.lock().unwrap_or_else(PoisonError::into_inner);
    let recent = now.since(past.before.at);
    let edges = counted.iter().map(|(labels, counted)| edge(labels, counted, past.before.edges.get(labels)));
    v1::Reading {
        recent_millis: millis(recent),
        bounds_nanos: BOUNDS.to_vec(),
        edges: edges.collect(),
        left_out: 0,
    }
}

fn edge(labels: &EdgeLabels, counted: &Counted, before: Option<&Kept>) -> v1::EdgeReading {
    let total = signals(counted);
    let nothing = Kept::default();
    let before = before.unwrap_or(&nothing);
    v1::EdgeReading {
        direction: labels.direction.name().to_owned(),
        protocol: labels.protocol.name().to_owned(),
        security: labels.security.name().to_owned(),
        source: Some(party(&labels.source)),
        destination: Some(party(&labels.destination)),
        service: known(&labels.service),
        route: known(&labels.route),
        recent: Some(since(&total, &before.signals)),
        total: Some(total),
        buckets: lately(&counted.latency, &before.buckets),
        first_byte_buckets: lately(&counted.first_byte, &before.first_byte),
        connections: counted.opened.saturating_sub(counted.closed),
        ejected: counted.ejected,
        circuit_open: counted.circuit_open,
    }
}

fn kept(counted: &Counted) -> Kept {
    Kept {
        signals: signals(counted),
        buckets: sparse(&counted.latency),
        first_byte: sparse(&counted.first_byte),
    }
}

fn sparse(tally: &Tally) -> Sparse {
    let some = tally.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
    some.filter_map(|(at, count)| Some((u8::try_from(at).ok()?, *count))).collect()
}

/// What was counted since; nothing where nothing was ever counted.
fn lately(tally: &Tally, before: &Sparse) -> Vec<u64> {
    if tally.count() == 0 {
        return Vec::new();
    }
    let mut buckets = tally.buckets.to_vec();
    for (at, count) in before {
        if let Some(bucket) = buckets.get_mut(usize::from(*at)) {
            *bucket = bucket.saturating_sub(*count);
        }
    }
    buckets
}

fn signals(counted: &Counted) -> v1::Signals {
    v1::Signals {
        requests: counted.requests,
        failures: counted.failures,
        classes: counted.classes.to_vec(),
        refused: counted.refused,
        retries: counted.retries,
        connections: counted.opened,
        bytes_up: counted.bytes.0,
        bytes_down: counted.bytes.1,
    }
}

fn since(now: &v1::Signals, before: &v1::Signals) -> v1::Signals {
    let class =
        |(at, count): (usize, &u64)| count.saturating_sub(before.classes.get(at).copied().unwrap_or(0));
    v1::Signals {
        requests: now.requests.saturating_sub(before.requests),
        failures: now.failures.saturating_sub(before.failures),
        classes: now.classes.iter().enumerate().map(class).collect(),
        refused: now.refused.saturating_sub(before.refused),
        retries: now.retries.saturating_sub(before.retries),
        connections: now.connections.saturating_sub(before.connections),
        bytes_up: now.bytes_up.saturating_sub(before.bytes_up),
        bytes_down: now.bytes_down.saturating_sub(before.bytes_down),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::edge::{Direction, Outcome, Protocol};
    use weft_proxy_core::Reason;

    #[test]
    fn what_was_remembered_is_taken_off_and_totals_stay() {
        let (metrics, lately) = (Metrics::default(), Lately::default());
        let edge = metrics.edge(0, &EdgeLabels::unknown(Direction::Outbound, Protocol::Http));
        let request = |status: u16, reason: Option<Reason>, millis: u64| {
            edge.request(Outcome::new(status, None, reason), Duration::from_millis(millis), 10, 20);
        };
        let second = |n: u64| Moment(n * 1_000_000_000);
        (0..5).for_each(|_| request(500, None, 900));
        let first = reading(&lately, &metrics, second(3));
        assert_eq!(first.recent_millis, 3_000, "since the start");
        assert_eq!(first.edges[0].recent, first.edges[0].total);
        lately.remember(&metrics, second(10));
        lately.remember(&metrics, second(20));
        (0..3).for_each(|_| request(200, None, 2));
        request(403, Some(Reason::DeniedByPolicy), 1);
        let later = reading(&lately, &metrics, second(25));
        let edge = &later.edges[0];
        let (total, recent) = (edge.total.as_ref().unwrap(), edge.recent.as_ref().unwrap());
        assert_eq!(later.recent_millis, 15_000);
        assert_eq!((total.requests, total.failures, total.refused), (9, 5, 1));
        assert_eq!((recent.requests, recent.failures, recent.bytes_down), (4, 0, 80));
        assert_eq!(recent.classes, [0, 0, 3, 0, 1, 0]);
        assert_eq!(edge.buckets.iter().sum::<u64>(), 4);
        assert_eq!(edge.buckets.len(), later.bounds_nanos.len() + 1);
    }
}
