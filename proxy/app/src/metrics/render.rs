//! How a scrape reads the counters.
//!
//! `admin` calls [`page`]; the data threads are not disturbed, their numbers are only read. What the
//! families are called and mean stands in `catalog`.
//!
//! Invariant: rows are sorted, so two scrapes of the same numbers are the same bytes.

mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_exposition::{Family, Format, Page, Reading, Set, process};
use weft_proxy_core::{Identity, reason};

use super::Metrics;
use super::catalog::{self, CATALOG, EDGE};
use super::edge::{Edge, EdgeLabels, Outcome, Party, Protocol, UNKNOWN};
use super::latency::{SHOWN, SHOWN_COARSE, Tally};
use super::sizes;

/// All counters of a sidecar as they are now, for a scraper that reads this form.
#[must_use]
pub fn page(metrics: &Metrics, format: Format) -> Vec<u8> {
    let mut page = Page::new(&CATALOG, format);
    edges(metrics, &mut page);
    state::backends(metrics, &mut page);
    state::decisions(metrics, &mut page);
    state::plain(metrics, &mut page);
    state::own(metrics, &mut page);
    process::write(&mut page);
    page.finish()
}

/// A family with one number for each row, and where the number stands.
type Column<T, V> = (&'static Family, fn(&T) -> V);

/// One edge over all workers.
#[derive(Debug, Default)]
pub(super) struct Sum {
    /// Requests by how they ended.
    pub(super) outcomes: BTreeMap<Outcome, u64>,
    pub(super) latency: Tally,
    pub(super) bytes: (u64, u64),
    pub(super) retries: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    /// Each worker's, for what only a scrape reads.
    edges: Vec<Arc<Edge>>,
}

impl Sum {
    /// How long the heads of answers took.
    pub(super) fn first_byte(&self) -> Tally {
        let mut tally = Tally::default();
        for shapes in self.edges.iter().filter_map(|edge| edge.shapes()) {
            shapes.first_byte.read(&mut tally);
        }
        tally
    }

    fn add(&mut self, edge: Arc<Edge>) {
        for (outcome, count) in edge.outcomes() {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        if let Some(shapes) = edge.shapes() {
            shapes.duration.read(&mut self.latency);
        }
        self.bytes.0 += edge.bytes_up.load(Ordering::Relaxed);
        self.bytes.1 += edge.bytes_down.load(Ordering::Relaxed);
        self.retries += edge.retries.load(Ordering::Relaxed);
        self.opened += edge.opened.load(Ordering::Relaxed);
        self.closed += edge.closed.load(Ordering::Relaxed);
        self.edges.push(edge);
    }
}

/// All edges on which anything happened, summed over workers and sorted.
pub(super) fn sums(metrics: &Metrics) -> BTreeMap<EdgeLabels, Sum> {
    let mut sums: BTreeMap<EdgeLabels, Sum> = BTreeMap::new();
    let entries = metrics.edges.entries().into_iter().chain(metrics.overflowing.entries());
    for ((_, labels), edge) in entries {
        sums.entry(labels).or_default().add(edge);
    }
    sums.retain(|_, sum| !sum.outcomes.is_empty() || sum.opened > 0);
    sums
}

fn edge_labels(page: &Page, labels: &EdgeLabels) -> Set {
    let (namespace, service) = labels.service_parts();
    let route = Some(labels.route.as_str()).filter(|route| !route.is_empty());
    let values = [
        labels.direction.name(),
        labels.source.workload.as_str(),
        labels.source.namespace.as_str(),
        principal(&labels.source),
        labels.destination.workload.as_str(),
        labels.destination.namespace.as_str(),
        principal(&labels.destination),
        labels.service.as_str(),
        service,
        namespace,
        labels.protocol.name(),
        labels.security.name(),
        route.unwrap_or("default"),
    ];
    page.set(&EDGE, &values)
}

fn principal(party: &Party) -> &str {
    party.identity.as_ref().map_or(UNKNOWN, Identity::as_str)
}

fn edges(metrics: &Metrics, page: &mut Page) {
    let sums = sums(metrics);
    let is_http = |labels: &EdgeLabels| matches!(labels.protocol, Protocol::Http | Protocol::Grpc);
    let rows = sums.iter().map(|(labels, sum)| (is_http(labels), edge_labels(page, labels), sum));
    let (http, tcp): (Vec<_>, Vec<_>) = rows.partition(|(http, ..)| *http);
    requests(&http, page);
    durations(&http, page);
    body_sizes(&http, page);
    let columns: [(&[_], Column<Sum, u64>); 7] = [
        (&http, (&catalog::REQUEST_BYTES, |sum| sum.bytes.0)),
        (&http, (&catalog::RESPONSE_BYTES, |sum| sum.bytes.1)),
        (&http, (&catalog::RETRIES, |sum| sum.retries)),
        (&tcp, (&catalog::TCP_OPENED, |sum| sum.opened)),
        (&tcp, (&catalog::TCP_CLOSED, |sum| sum.closed)),
        (&tcp, (&catalog::TCP_RECEIVED, |sum| sum.bytes.0)),
        (&tcp, (&catalog::TCP_SENT, |sum| sum.bytes.1)),
    ];
    for (rows, (family, value)) in columns {
        let mut family = page.family(family);
        for (_, labels, sum) in rows {
            family.add(labels, &[], value(sum));
        }
    }
    page.family(&catalog::SERIES_OVERFLOW).one(metrics.overflowed.load(Ordering::Relaxed));
}

/// Whether it is HTTP, its labels, its numbers.
type Row<'a> = (bool, Set, &'a Sum);

fn requests(rows: &[Row<'_>], page: &mut Page) {
    let mut family = page.family(&catalog::REQUESTS);
    for (_, labels, sum) in rows {
        for (outcome, count) in &sum.outcomes {
            let (code, grpc) = (code(*outcome), grpc(*outcome));
            let flags = outcome.reason().map_or("-", reason::Reason::flags);
            let reason = outcome.reason().map_or("", reason::Reason::name);
            family.add(labels, &[&code, &grpc, flags, reason], *count);
        }
    }
}

fn code(outcome: Outcome) -> String {
    if outcome == Outcome::OTHER { "other".to_owned() } else { outcome.status().to_string() }
}

fn grpc(outcome: Outcome) -> String {
    match outcome.grpc() {
        None => String::new(),
        Some(code @ 0..=16) => code.to_string(),
        Some(_) => "other".to_owned(),
    }
}

fn durations(rows: &[Row<'_>], page: &mut Page) {
    let mut family = page.family(&catalog::DURATION);
    for (_, labels, sum) in rows {
        let mut newest = [None; SHOWN.len() + 1];
        for exemplars in sum.edges.iter().filter_map(|edge| edge.exemplars()) {
            exemplars.read(&mut newest);
        }
        let mut buckets = sum.latency.shown(&SHOWN);
        for (bucket, seen) in buckets.iter_mut().zip(newest) {
            bucket.exemplar = seen.map(super::exemplars::Seen::exemplar);
        }
        let powers = sum.latency.powers();
        let native = Some(Tally::native(&powers));
        family.histogram(labels, &[], &Reading { sum: sum.latency.seconds(), buckets: &buckets, native });
    }
    drop(family);
    let mut family = page.family(&catalog::FIRST_BYTE);
    for (_, labels, sum) in rows {
        let tally = sum.first_byte();
        if tally.count() > 0 {
            let (buckets, powers) = (tally.shown(&SHOWN_COARSE), tally.powers());
            let native = Some(Tally::native(&powers));
            family.histogram(labels, &[], &Reading { sum: tally.seconds(), buckets: &buckets, native });
        }
    }
}

fn body_sizes(rows: &[Row<'_>], page: &mut Page) {
    for request in [true, false] {
        let family = if request { &catalog::REQUEST_SIZE } else { &catalog::RESPONSE_SIZE };
        let mut family = page.family(family);
        for (_, labels, sum) in rows {
            let mut counts = [0; sizes::BUCKETS];
            for shapes in sum.edges.iter().filter_map(|edge| edge.shapes()) {
                if request { &shapes.request } else { &shapes.response }.read(&mut counts);
            }
            let bytes = if request { sum.bytes.0 } else { sum.bytes.1 };
            let (buckets, native) = (sizes::shown(&counts), Some(sizes::native(&counts)));
            family.histogram(labels, &[], &Reading { sum: bytes as f64, buckets: &buckets, native });
        }
    }
}

#[cfg(test)]
mod tests;
