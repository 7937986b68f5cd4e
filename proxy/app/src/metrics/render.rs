//! How a scrape reads the counters.
//!
//! `admin` sends a [`Scrape`] part by part; the data threads are not disturbed, their numbers are only read.
//! What the families are called and mean stands in `catalog`.
//!
//! Invariant: rows are sorted, so two scrapes of the same numbers are the same bytes.
//! Invariant: of a text, a part is held at a time, not the page: a thousand edges are tens of megabytes.

mod rows;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_exposition::{Family, Format, Page, Set, process};
use weft_proxy_core::Identity;

use super::Metrics;
use super::catalog::{self, CATALOG, EDGE};
use super::edge::{Edge, EdgeLabels, Outcome, Party, Protocol, UNKNOWN};
use super::latency::Tally;
use rows::{PARTS, Row};

/// All counters of a sidecar as they are now, for a scraper that reads this form.
#[must_use]
pub fn page(metrics: &Arc<Metrics>, format: Format) -> Vec<u8> {
    let mut whole = Vec::new();
    Scrape::begin(Arc::clone(metrics), format).for_each(|part| whole.extend(part));
    whole
}

/// One scrape: gives the page in parts, each of whole lines or messages.
#[derive(Debug)]
pub struct Scrape {
    metrics: Arc<Metrics>,
    format: Format,
    page: Page,
    http: Vec<Row>,
    tcp: Vec<Row>,
    /// Which family of edges comes next, and from which edge on.
    part: usize,
    from: usize,
}

/// Edges of one part. Source: measured: 21 rows of 600 bytes for each make 200 KB.
const AT_A_TIME: usize = 16;

impl Scrape {
    /// Reads the edges; the page comes with each call of `next`.
    #[must_use]
    pub fn begin(metrics: Arc<Metrics>, format: Format) -> Self {
        let page = Page::new(&CATALOG, format);
        let (mut http, mut tcp) = (Vec::new(), Vec::new());
        for (labels, sum) in sums(&metrics) {
            let of =
                if matches!(labels.protocol, Protocol::Http | Protocol::Grpc) { &mut http } else { &mut tcp };
            of.push((edge_labels(&page, &labels), sum));
        }
        Self { metrics, format, page, http, tcp, part: 0, from: 0 }
    }

    fn rest(&mut self) {
        let (metrics, page) = (&self.metrics, &mut self.page);
        page.family(&catalog::SERIES_OVERFLOW).one(metrics.overflowed.load(Ordering::Relaxed));
        state::backends(metrics, page);
        state::decisions(metrics, page);
        state::plain(metrics, page);
        state::own(metrics, page);
        process::write(page);
        page.end();
    }
}

impl Iterator for Scrape {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let Some(part) = PARTS.get(self.part) else {
            let behind = self.part > PARTS.len();
            self.part = PARTS.len() + 1;
            return (!behind).then(|| {
                self.rest();
                self.page.take()
            });
        };
        let rows = if part.http { &self.http } else { &self.tcp };
        // A message is behind its length, so a family of protobuf is whole; it is a fifth of the text.
        let to =
            if self.format == Format::Protobuf { rows.len() } else { rows.len().min(self.from + AT_A_TIME) };
        part.write(&mut self.page, self.from == 0, rows.get(self.from..to).unwrap_or_default());
        if to == rows.len() {
            (self.part, self.from) = (self.part + 1, 0);
        } else {
            self.from = to;
        }
        Some(self.page.take())
    }
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
    pub(super) edges: Vec<Arc<Edge>>,
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

#[cfg(test)]
mod tests;
