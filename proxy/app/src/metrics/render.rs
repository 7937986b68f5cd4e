//! How a scrape reads the counters: the families, their names, labels and help.
//!
//! `admin` calls [`Page::render`]; the data threads are not disturbed, their numbers are only read.
//!
//! Invariant: names and labels are part of what operators build on: they change by addition only.
//! Invariant: rows are sorted, so two scrapes of the same numbers are the same text.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use weft_proxy_core::{Identity, reason};

use super::Metrics;
use super::backend::BackendMeter;
use super::edge::{Direction, Edge, EdgeLabels, Outcome, Party, Protocol, UNKNOWN};
use super::latency::Tally;
use super::plain::{Dropped, Guess, Handshake, Lookup};
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
        backends(&self.0, &mut families)?;
        decisions(&self.0, &mut families)?;
        plain(&self.0, &mut families)?;
        state(&self.0, &mut families)
    }
}

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
            let mut row = family.encode_family(&labels)?;
            row.encode_counter::<NoLabelSet, V, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauge<'l, V: EncodeGaugeValue>(
        &mut self,
        (name, help): (&'static str, &str),
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// One edge over all workers.
#[derive(Debug, Default)]
pub(super) struct Sum {
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
    let tables: [(&[_], &'static str, &str, fn(&Sum) -> u64); 7] = [
        (&http, "request_bytes", "Bytes of request bodies", |sum| sum.bytes.0),
        (&http, "response_bytes", "Bytes of response bodies", |sum| sum.bytes.1),
        (&http, "retries", "Attempts beyond the first", |sum| sum.retries),
        (&tcp, "tcp_connections_opened", "Connections opened that are relayed as bytes", |sum| sum.opened),
        (&tcp, "tcp_connections_closed", "Connections closed that were relayed as bytes", |sum| sum.closed),
        (&tcp, "tcp_received_bytes", "Bytes relayed from downstream", |sum| sum.bytes.0),
        (&tcp, "tcp_sent_bytes", "Bytes relayed to downstream", |sum| sum.bytes.1),
    ];
    for (rows, name, help, value) in tables {
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

fn backends(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
    let mut entries = metrics.backends.entries();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let rows: Vec<(&str, &BackendMeter)> =
        entries.iter().map(|(name, meter)| (name.as_str(), meter.as_ref())).collect();
    let labels = |name| vec![("destination_service", name)];
    let counters: [(&'static str, &str, fn(&BackendMeter) -> u64); 5] = [
        ("ejections", "Endpoints ejected", |b| b.ejected.load(Ordering::Relaxed)),
        ("restorations", "Ejected endpoints taken back", |b| b.restored.load(Ordering::Relaxed)),
        ("backend_overflows", "Requests refused by a limit of the backend", |b| b.overflow.load(Ordering::Relaxed)),
        ("fallbacks", "Requests sent to the fallback", |b| b.fallback.load(Ordering::Relaxed)),
        ("retry_budget_spent", "Retries not made because the budget was spent", |b| {
            b.budget_spent.load(Ordering::Relaxed)
        }),
    ];
    for (name, help, value) in counters {
        families.counter((name, help), rows.iter().map(|(name, meter)| (labels(*name), value(meter))))?;
    }
    let gauges: [(&'static str, &str, fn(&BackendMeter) -> i64); 3] = [
        ("endpoints_ejected", "Endpoints ejected now, over all workers", BackendMeter::out),
        ("circuit_open", "1 while all endpoints are ejected on a worker", |b| i64::from(b.is_open())),
        ("requests_pending", "Requests waiting for a connection", |b| b.pending.load(Ordering::Relaxed)),
    ];
    for (name, help, value) in gauges {
        families.gauge((name, help), rows.iter().map(|(name, meter)| (labels(*name), value(meter))))?;
    }
    Ok(())
}

fn decisions(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
    let mut rules = metrics.rules.entries();
    rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    let beyond = metrics.rules_beyond.0.load(Ordering::Relaxed);
    let overflow = (vec![("policy", "overflow"), ("rule", "overflow"), ("verdict", "overflow")], beyond);
    let rows = rules.iter().map(|(labels, meter)| {
        let row = vec![
            ("policy", labels.policy.as_str()),
            ("rule", labels.rule.as_str()),
            ("verdict", labels.verdict.name()),
        ];
        (row, meter.0.load(Ordering::Relaxed))
    });
    families.counter(
        ("policy_verdicts", "Decisions of authorization policies, by rule"),
        rows.chain((beyond > 0).then_some(overflow)),
    )?;
    let [inbound, outbound] = &metrics.refused;
    let refusals = [(Direction::Inbound, inbound), (Direction::Outbound, outbound)];
    let rows = refusals.into_iter().flat_map(|(direction, counts)| {
        reason::ALL.into_iter().zip(counts).map(move |(reason, count)| {
            let row = vec![
                ("direction", direction.name()),
                ("reason", reason.name()),
                ("blame", reason.blame().name()),
            ];
            (row, count.load(Ordering::Relaxed))
        })
    });
    families.counter(
        ("refusals", "Requests and connections that ended with a reason of the sidecar's own"),
        rows.filter(|(_, count)| *count > 0),
    )
}

fn plain(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
    let plain = metrics.plain();
    let directions = [Direction::Inbound, Direction::Outbound];
    let by_direction = |direction: Direction, outcome: &'static str| {
        vec![("direction", direction.name()), ("outcome", outcome)]
    };
    families.counter(
        ("tls_handshakes", "TLS handshakes of the mesh"),
        directions.into_iter().flat_map(|direction| {
            let row = move |outcome: Handshake| {
                (by_direction(direction, outcome.name()), plain.handshakes(direction, outcome).read())
            };
            Handshake::ALL.into_iter().map(row)
        }),
    )?;
    families.counter(
        ("protocol_guesses", "Connections whose protocol was not declared, by what was found"),
        directions.into_iter().flat_map(|direction| {
            let row = move |guess: Guess| {
                (by_direction(direction, guess.name()), plain.guesses(direction, guess).read())
            };
            Guess::ALL.into_iter().map(row)
        }),
    )?;
    families.counter(
        ("lookups", "Searches for a destination's configuration"),
        Lookup::ALL.map(|outcome| (vec![("outcome", outcome.name())], plain.lookups(outcome).read())),
    )?;
    families.counter(
        ("telemetry_dropped", "Log lines and spans dropped rather than waited for"),
        Dropped::ALL.map(|kind| {
            let (what, stage) = kind.names();
            (vec![("kind", what), ("stage", stage)], plain.dropped(kind).read())
        }),
    )?;
    families.counter(
        ("spans_exported", "Spans that a collector took"),
        [(vec![], plain.spans_exported.read())],
    )?;
    let mut limits = plain.limits();
    limits.sort_by_key(|(name, _)| *name);
    families.counter(
        ("limits_hit", "Times a limit of the sidecar was hit"),
        limits.iter().map(|(name, count)| (vec![("limit", *name)], count.read())),
    )
}

fn state(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
    let (config, certificate) = (&metrics.plain().config, &metrics.plain().certificate);
    let counters = [
        ("config_adoptions", "Epochs of configuration taken into use", &config.adopted),
        ("config_refusals", "Resources of the configuration refused", &config.refused),
        ("control_connects", "Times the stream to the control plane was opened", &config.connects),
        ("certificate_renewals", "Certificates obtained", &certificate.renewed),
        ("certificate_failures", "Attempts to obtain a certificate that failed", &certificate.failed),
    ];
    for (name, help, count) in counters {
        families.counter((name, help), [(vec![], count.read())])?;
    }
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let gauges = [
        ("config_generation", "Epoch of configuration in use", whole(config.generation())),
        ("control_connected", "1 while the stream to the control plane is open", i64::from(config.connected())),
        ("certificate_expiry_timestamp_seconds", "When the certificate expires", whole(certificate.not_after())),
        ("trust_expiry_timestamp_seconds", "When the first root expires", whole(certificate.trust_not_after())),
    ];
    for (name, help, value) in gauges {
        families.gauge((name, help), [(vec![], value)])?;
    }
    families.gauge(
        ("config_adopted_timestamp_seconds", "When the configuration in use was taken into use"),
        [(vec![], config.adopted_at() as f64 / 1e9)],
    )?;
    families.gauge(("build_info", "1; the version is in the label"), [(vec![("version", VERSION)], 1i64)])
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests;
