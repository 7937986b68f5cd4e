//! How a scrape reads the counters: the families, their names, labels and help.
//!
//! `admin` calls [`Page::render`]; the data threads are not disturbed, their numbers are only read.
//!
//! Invariant: names and labels are part of what operators build on: they change by addition only.
//! Invariant: rows are sorted, so two scrapes of the same numbers are the same text.

mod state;

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use weft_proxy_core::{Identity, reason};

use super::Metrics;
use super::edge::{Edge, EdgeLabels, Outcome, Party, Protocol, UNKNOWN};
use super::latency::Tally;
use super::process;

/// Renders all counters of a sidecar in OpenMetrics text.
#[derive(Debug)]
pub struct Page(Registry);

impl Page {
    /// A page of these counters and of the process.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        registry.sub_registry_with_prefix("weft").register_collector(Box::new(Scrape(metrics)));
        Self(registry)
    }

    /// The page as it is now.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        // A string takes every byte; an encoder that fails leaves what it wrote.
        let _ = text::encode(&mut page, &self.0);
        page
    }

    /// Source: OpenMetrics 1.0, "Content-Type".
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

#[derive(Debug)]
struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        edges(&self.0, &mut families)?;
        state::backends(&self.0, &mut families)?;
        state::decisions(&self.0, &mut families)?;
        state::plain(&self.0, &mut families)?;
        state::own(&self.0, &mut families)
    }
}

/// A family with one number for each row: its name, its help, and where the number stands.
type Column<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// Labels of one row.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes families, one after another.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    /// A counter; `_total` is added to its name.
    pub(super) fn counter<'l, V: EncodeCounterValue>(
        &mut self,
        (name, help): (&'static str, &str),
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, V, u64>(&value, None)?;
            } else {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, V, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    /// A gauge.
    pub(super) fn gauge<'l, V: EncodeGaugeValue>(
        &mut self,
        (name, help): (&'static str, &str),
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

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
}

impl Sum {
    fn add(&mut self, edge: &Edge) {
        for (outcome, count) in edge.outcomes() {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        if let Some(latency) = edge.latency() {
            latency.read(&mut self.latency);
        }
        self.bytes.0 += edge.bytes_up.load(Ordering::Relaxed);
        self.bytes.1 += edge.bytes_down.load(Ordering::Relaxed);
        self.retries += edge.retries.load(Ordering::Relaxed);
        self.opened += edge.opened.load(Ordering::Relaxed);
        self.closed += edge.closed.load(Ordering::Relaxed);
    }
}

/// All edges on which anything happened, summed over workers and sorted.
pub(super) fn sums(metrics: &Metrics) -> BTreeMap<EdgeLabels, Sum> {
    let mut sums: BTreeMap<EdgeLabels, Sum> = BTreeMap::new();
    let entries = metrics.edges.entries().into_iter().chain(metrics.overflowing.entries());
    for ((_, labels), edge) in entries {
        sums.entry(labels).or_default().add(&edge);
    }
    sums.retain(|_, sum| !sum.outcomes.is_empty() || sum.opened > 0);
    sums
}

fn edge_labels(labels: &EdgeLabels) -> Labels<'_> {
    let (namespace, service) = labels.service_parts();
    vec![
        ("direction", labels.direction.name()),
        ("source_workload", labels.source.workload.as_str()),
        ("source_workload_namespace", labels.source.namespace.as_str()),
        ("source_principal", principal(&labels.source)),
        ("destination_workload", labels.destination.workload.as_str()),
        ("destination_workload_namespace", labels.destination.namespace.as_str()),
        ("destination_principal", principal(&labels.destination)),
        ("destination_service", labels.service.as_str()),
        ("destination_service_name", service),
        ("destination_service_namespace", namespace),
        ("request_protocol", labels.protocol.name()),
        ("connection_security_policy", labels.security.name()),
        ("route", labels.route.as_str()),
    ]
}

fn principal(party: &Party) -> &str {
    party.identity.as_ref().map_or(UNKNOWN, Identity::as_str)
}

fn edges(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
    let sums = sums(metrics);
    let is_http = |labels: &EdgeLabels| matches!(labels.protocol, Protocol::Http | Protocol::Grpc);
    let (http, tcp): (Vec<_>, Vec<_>) = sums.iter().partition(|(labels, _)| is_http(labels));
    requests(&http, families)?;
    durations(&http, families)?;
    let column = |rows: &[(&'_ EdgeLabels, &'_ Sum)], value: fn(&Sum) -> u64| -> Vec<u64> {
        rows.iter().map(|(_, sum)| value(sum)).collect()
    };
    let tables: [(&[_], Column<Sum, u64>); 7] = [
        (&http, ("request_bytes", "Bytes of request bodies", |sum| sum.bytes.0)),
        (&http, ("response_bytes", "Bytes of response bodies", |sum| sum.bytes.1)),
        (&http, ("retries", "Attempts beyond the first", |sum| sum.retries)),
        (&tcp, ("tcp_connections_opened", "Connections opened that are relayed as bytes", |sum| sum.opened)),
        (&tcp, ("tcp_connections_closed", "Connections closed that were relayed as bytes", |sum| sum.closed)),
        (&tcp, ("tcp_received_bytes", "Bytes relayed from downstream", |sum| sum.bytes.0)),
        (&tcp, ("tcp_sent_bytes", "Bytes relayed to downstream", |sum| sum.bytes.1)),
    ];
    for (rows, (name, help, value)) in tables {
        let values = column(rows, value);
        let labels = rows.iter().map(|(labels, _)| edge_labels(labels));
        families.counter((name, help), labels.zip(values))?;
    }
    let overflowed = metrics.overflowed.load(Ordering::Relaxed);
    families.counter(
        ("series_overflow", "Edges counted as overflow because the bound on series was reached"),
        [(vec![], overflowed)],
    )
}

fn requests(rows: &[(&EdgeLabels, &Sum)], families: &mut Families<'_>) -> Result<(), Error> {
    let (name, help) = ("requests", "Requests that ended");
    let mut family = families.0.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, sum) in rows {
        for (outcome, count) in &sum.outcomes {
            let (code, grpc) = (code(*outcome), grpc(*outcome));
            let mut labels = edge_labels(labels);
            labels.extend([
                ("response_code", code.as_str()),
                ("grpc_response_status", grpc.as_str()),
                ("response_flags", outcome.reason().map_or("-", reason::Reason::flags)),
                ("reason", outcome.reason().map_or("", reason::Reason::name)),
            ]);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(count, None)?;
        }
    }
    Ok(())
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

fn durations(rows: &[(&EdgeLabels, &Sum)], families: &mut Families<'_>) -> Result<(), Error> {
    let (name, help) = ("request_duration_seconds", "Time from a request's head to the end of its answer");
    let mut family = families.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, sum) in rows {
        let buckets: Vec<_> = sum.latency.shown().collect();
        let labels = edge_labels(labels);
        let mut row = family.encode_family(&labels)?;
        row.encode_histogram::<NoLabelSet>(
            sum.latency.sum_micros as f64 / 1e6,
            sum.latency.count(),
            &buckets,
            None,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
