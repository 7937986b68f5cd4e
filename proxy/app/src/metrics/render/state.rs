//! The families that are not of edges: backends, policies, refusals, and the sidecar's own state.
//!
//! The second half of a scrape.
//!
//! Invariant: as its parent's.

use std::fmt::Error;
use std::sync::atomic::Ordering;

use weft_proxy_core::reason;

use super::{Column, Families};
use crate::metrics::Metrics;
use crate::metrics::backend::BackendMeter;
use crate::metrics::labels::Direction;
use weft_proxy_core::Probe;

use crate::metrics::plain::{Dropped, Guess, Handshake, Lookup};

pub(super) fn backends(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
    let mut entries = metrics.backends.entries();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let rows: Vec<(&str, &BackendMeter)> =
        entries.iter().map(|(name, meter)| (name.as_str(), meter.as_ref())).collect();
    let labels = |name| vec![("destination_service", name)];
    let counters: [Column<BackendMeter, u64>; 5] = [
        ("ejections", "Endpoints ejected", |b| b.ejected.load(Ordering::Relaxed)),
        ("restorations", "Ejected endpoints taken back", |b| b.restored.load(Ordering::Relaxed)),
        ("backend_overflows", "Requests refused by a limit of the backend", |b| {
            b.overflow.load(Ordering::Relaxed)
        }),
        ("fallbacks", "Requests sent to the fallback", |b| b.fallback.load(Ordering::Relaxed)),
        ("retry_budget_spent", "Retries not made because the budget was spent", |b| {
            b.budget_spent.load(Ordering::Relaxed)
        }),
    ];
    for (name, help, value) in counters {
        families.counter((name, help), rows.iter().map(|(name, meter)| (labels(*name), value(meter))))?;
    }
    let gauges: [Column<BackendMeter, i64>; 3] = [
        ("endpoints_ejected", "Endpoints ejected now, over all workers", BackendMeter::out),
        ("circuit_open", "1 while all endpoints are ejected on a worker", |b| i64::from(b.is_open())),
        ("requests_pending", "Requests waiting for a connection", |b| b.pending.load(Ordering::Relaxed)),
    ];
    for (name, help, value) in gauges {
        families.gauge((name, help), rows.iter().map(|(name, meter)| (labels(*name), value(meter))))?;
    }
    Ok(())
}

pub(super) fn decisions(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
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

pub(super) fn plain(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
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
        ("probes", "Probes of the kubelet, by kind; they are no requests"),
        Probe::ALL.map(|probe| (vec![("kind", probe.name())], plain.probes(probe).read())),
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

pub(super) fn own(metrics: &Metrics, families: &mut Families<'_>) -> Result<(), Error> {
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
        (
            "control_connected",
            "1 while the stream to the control plane is open",
            i64::from(config.connected()),
        ),
        (
            "certificate_expiry_timestamp_seconds",
            "When the certificate expires",
            whole(certificate.not_after()),
        ),
        (
            "trust_expiry_timestamp_seconds",
            "When the first root expires",
            whole(certificate.trust_not_after()),
        ),
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
