//! The live table: what is on each edge now, for `weft demo` and for a person at the admin server.
//!
//! Invariant: rates and quantiles are of the last seconds, totals of the process's life.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use weft_proxy_core::Moment;

use super::Metrics;
use super::edge::EdgeLabels;
use super::latency::Tally;
use super::render::{Sum, sums};

/// One edge, as the live table shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// What is spoken.
    pub protocol: &'static str,
    /// How the hop between sidecars is secured.
    pub security: &'static str,
    /// The workload that calls.
    pub source: String,
    /// Its identity.
    pub source_identity: Option<String>,
    /// The workload that is called.
    pub destination: String,
    /// Its identity.
    pub destination_identity: Option<String>,
    /// The service that is called.
    pub service: String,
    /// The route taken.
    pub route: String,
    /// Requests so far.
    pub requests: u64,
    /// Requests so far that failed.
    pub failures: u64,
    /// Requests a second, lately.
    pub rate: f64,
    /// Share of requests that did not fail, lately; none when there was no request.
    pub success: Option<f64>,
    /// Median duration in milliseconds, lately.
    pub p50_ms: Option<f64>,
    /// Duration that 99 of 100 requests did not exceed, in milliseconds, lately.
    pub p99_ms: Option<f64>,
    /// Retries so far.
    pub retries: u64,
    /// Connections open, where bytes are relayed.
    pub connections: u64,
    /// Bytes so far, towards upstream.
    pub bytes_up: u64,
    /// Bytes so far, towards downstream.
    pub bytes_down: u64,
    /// Ejections from the service's backend so far.
    pub ejections: u64,
    /// Endpoints of the backend that are ejected now.
    pub ejected: i64,
    /// Whether the circuit to the backend is open.
    pub circuit_open: bool,
}

/// Remembers enough of the past to tell what happened lately.
#[derive(Debug, Default)]
pub struct Table(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    before: Snapshot,
    now: Snapshot,
}

#[derive(Clone, Debug, Default)]
struct Snapshot {
    at: Moment,
    edges: BTreeMap<EdgeLabels, Mark>,
}

#[derive(Clone, Debug, Default)]
struct Mark {
    requests: u64,
    failures: u64,
    latency: Tally,
}

impl Table {
    /// The rows as they are now, sorted.
    pub fn rows(&self, metrics: &Metrics, now: Moment) -> Vec<Row> {
        let sums = sums(metrics);
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(window.now.at) >= STEP {
            let edges = sums.iter().map(|(labels, sum)| (labels.clone(), mark(sum))).collect();
            window.before = std::mem::replace(&mut window.now, Snapshot { at: now, edges });
        }
        let before = &window.before;
        let span = now.since(before.at);
        let backends: BTreeMap<_, _> = metrics.backends.entries().into_iter().collect();
        let rows = sums.iter().map(|(labels, sum)| {
            let mut row = row(labels, sum, before.edges.get(labels), span);
            if let Some(backend) = backends.get(&labels.service) {
                row.ejections = backend.ejections();
                row.ejected = backend.out();
                row.circuit_open = backend.is_open();
            }
            row
        });
        rows.collect()
    }
}

/// What one edge has counted since the sidecar started, and how its backend stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// By the first digit of the status; 0: there was none.
    pub(crate) classes: [u64; 6],
    /// Ended with a reason of the sidecar's own.
    pub(crate) refused: u64,
    pub(crate) retries: u64,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) bytes: (u64, u64),
    pub(crate) latency: Tally,
    pub(crate) first_byte: Tally,
    pub(crate) ejected: u64,
    pub(crate) circuit_open: bool,
}

/// What all edges have counted, summed over workers and sorted.
pub(crate) fn counted(metrics: &Metrics) -> BTreeMap<EdgeLabels, Counted> {
    let backends: BTreeMap<_, _> = metrics.backends.entries().into_iter().collect();
    let one = |(labels, sum): (EdgeLabels, Sum)| {
        let mut counted = Counted {
            retries: sum.retries,
            opened: sum.opened,
            closed: sum.closed,
            bytes: sum.bytes,
            first_byte: sum.first_byte(),
            ..Counted::default()
        };
        for (outcome, count) in &sum.outcomes {
            counted.requests += count;
            counted.failures += if outcome.failed() { *count } else { 0 };
            counted.refused += if outcome.reason().is_some() { *count } else { 0 };
            if let Some(class) = counted.classes.get_mut(usize::from(outcome.status() / 100)) {
                *class += count;
            }
        }
        counted.latency = sum.latency;
        if let Some(backend) = backends.get(&labels.service) {
            counted.ejected = u64::try_from(backend.out()).unwrap_or(0);
            counted.circuit_open = backend.is_open();
        }
        (labels, counted)
    };
    sums(metrics).into_iter().map(one).collect()
}

fn mark(sum: &Sum) -> Mark {
    let failed = sum.outcomes.iter().filter(|(outcome, _)| outcome.failed());
    Mark {
        requests: sum.outcomes.values().sum(),
        failures: failed.map(|(_, count)| count).sum(),
        latency: sum.latency.clone(),
    }
}

fn row(labels: &EdgeLabels, sum: &Sum, before: Option<&Mark>, span: Duration) -> Row {
    let total = mark(sum);
    let nothing = Mark::default();
    let before = before.unwrap_or(&nothing);
    let requests = total.requests.saturating_sub(before.requests);
    let failures = total.failures.saturating_sub(before.failures);
    let latency = total.latency.since(&before.latency);
    let identity = |party: &super::edge::Party| party.identity.as_ref().map(ToString::to_string);
    Row {
        direction: labels.direction.name(),
        protocol: labels.protocol.name(),
        security: labels.security.name(),
        source: labels.source.workload.to_string(),
        source_identity: identity(&labels.source),
        destination: labels.destination.workload.to_string(),
        destination_identity: identity(&labels.destination),
        service: labels.service.to_string(),
        route: labels.route.to_string(),
        requests: total.requests,
        failures: total.failures,
        rate: if span.is_zero() { 0.0 } else { requests as f64 / span.as_secs_f64() },
        success: (requests > 0).then(|| 1.0 - failures as f64 / requests as f64),
        p50_ms: latency.quantile(0.5).map(|micros| micros / 1e3),
        p99_ms: latency.quantile(0.99).map(|micros| micros / 1e3),
        retries: sum.retries,
        connections: sum.opened.saturating_sub(sum.closed),
        bytes_up: sum.bytes.0,
        bytes_down: sum.bytes.1,
        ejections: 0,
        ejected: 0,
        circuit_open: false,
    }
}

/// How often the past moves on; "lately" is between one and two of these.
/// Source: long enough for a p99 at fifty requests a second, short enough to watch.
const STEP: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::backend::Standing;
    use crate::metrics::edge::{Direction, Outcome, Protocol};

    #[test]
    fn rates_and_quantiles_are_of_the_last_seconds() {
        let (metrics, table) = (Metrics::default(), Table::default());
        let mut labels = EdgeLabels::unknown(Direction::Outbound, Protocol::Http);
        labels.service = weft_proxy_core::Name::from("shop/catalog:80");
        let edge = metrics.edge(0, &labels);
        let backend = metrics.backend(&labels.service);
        backend.ejected();
        backend.stands(Standing::default(), Standing { ready: 1, ejected: 1, waiting: 0 });
        let second = |n: u64| Moment(n * 1_000_000_000);
        for _ in 0..100 {
            edge.request(Outcome::new(500, None, None), Duration::from_millis(900), 1, 1);
        }
        let first = table.rows(&metrics, second(2)).remove(0);
        assert_eq!((first.requests, first.failures, first.success), (100, 100, Some(0.0)));
        table.rows(&metrics, second(4));
        for _ in 0..200 {
            edge.request(Outcome::new(200, None, None), Duration::from_millis(2), 1, 1);
        }
        let later = table.rows(&metrics, second(6)).remove(0);
        assert_eq!((later.requests, later.failures, later.success), (300, 100, Some(1.0)));
        assert_eq!(later.rate, 100.0);
        assert!(later.p99_ms.unwrap() < 3.0, "{later:?}");
        assert_eq!((later.ejections, later.ejected, later.circuit_open), (1, 1, false));
    }
}
