//! The families that are not of edges: backends, policies, refusals, and the sidecar's own state.
//!
//! The second half of a scrape.
//!
//! Invariant: as its parent's.

use std::sync::atomic::Ordering;

use weft_exposition::{Family, Number, Page, Set};
use weft_proxy_core::{Probe, reason};

use super::Column;
use crate::metrics::Metrics;
use crate::metrics::backend::BackendMeter;
use crate::metrics::catalog::{self, BACKEND};
use crate::metrics::labels::Direction;
use crate::metrics::plain::{Count, Dropped, Group, Guess, Handshake, Lookup, Naming, Purpose};

const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

pub(super) fn backends(metrics: &Metrics, page: &mut Page) {
    let mut entries = metrics.backends.entries();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let rows: Vec<(Set, &BackendMeter)> =
        entries.iter().map(|(name, meter)| (page.set(&BACKEND, &[name.as_str()]), meter.as_ref())).collect();
    let columns: [Column<BackendMeter, Number>; 10] = [
        (&catalog::EJECTIONS, |b| b.ejected.load(Ordering::Relaxed).into()),
        (&catalog::RESTORATIONS, |b| b.restored.load(Ordering::Relaxed).into()),
        (&catalog::BACKEND_OVERFLOWS, |b| b.overflow.load(Ordering::Relaxed).into()),
        (&catalog::FALLBACKS, |b| b.fallback.load(Ordering::Relaxed).into()),
        (&catalog::BUDGET_SPENT, |b| b.budget_spent.load(Ordering::Relaxed).into()),
        (&catalog::CIRCUIT_OPENINGS, |b| b.openings.load(Ordering::Relaxed).into()),
        (&catalog::ENDPOINTS_READY, |b| b.ready.load(Ordering::Relaxed).into()),
        (&catalog::ENDPOINTS_EJECTED, |b| b.out().into()),
        (&catalog::CIRCUIT_OPEN, |b| b.is_open().into()),
        (&catalog::PENDING, |b| b.pending.load(Ordering::Relaxed).into()),
    ];
    for (family, value) in columns {
        let mut family = page.family(family);
        for (labels, meter) in &rows {
            family.add(labels, &[], value(meter));
        }
    }
}

pub(super) fn decisions(metrics: &Metrics, page: &mut Page) {
    let mut rules = metrics.rules.entries();
    rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut family = page.family(&catalog::VERDICTS);
    for (labels, meter) in &rules {
        let row = [labels.policy.as_str(), labels.rule.as_str(), labels.verdict.name()];
        family.add(&Set::NONE, &row, meter.0.load(Ordering::Relaxed));
    }
    let beyond = metrics.rules_beyond.0.load(Ordering::Relaxed);
    if beyond > 0 {
        family.add(&Set::NONE, &["overflow"; 3], beyond);
    }
    drop(family);
    let mut family = page.family(&catalog::REFUSALS);
    for (direction, counts) in DIRECTIONS.into_iter().zip(&metrics.refused) {
        for (reason, count) in reason::ALL.into_iter().zip(counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let row = [direction.name(), reason.name(), reason.blame().name()];
                family.add(&Set::NONE, &row, count);
            }
        }
    }
}

pub(super) fn plain(metrics: &Metrics, page: &mut Page) {
    let plain = metrics.plain();
    let both = |page: &mut Page, family, rows: &dyn Fn(Direction) -> Vec<(Vec<&'static str>, u64)>| {
        let mut family = page.family(family);
        for direction in DIRECTIONS {
            for (own, value) in rows(direction) {
                let labels: Vec<&str> = [direction.name()].into_iter().chain(own).collect();
                family.add(&Set::NONE, &labels, value);
            }
        }
    };
    both(page, &catalog::HANDSHAKES, &|direction| {
        Handshake::ALL.map(|how| (vec![how.name()], plain.handshakes(direction, how).read())).to_vec()
    });
    both(page, &catalog::TLS_CONNECTIONS, &|direction| {
        Group::ALL.map(|group| (vec![TLS, group.name()], plain.agreed(direction, group).read())).to_vec()
    });
    both(page, &catalog::TLS_FAILURES, &|direction| {
        plain.failures(direction).all().iter().map(|(cause, count)| (vec![*cause], count.read())).collect()
    });
    both(page, &catalog::GUESSES, &|direction| {
        Guess::ALL.map(|guess| (vec![guess.name()], plain.guesses(direction, guess).read())).to_vec()
    });
    let mut one = |family, rows: Vec<(Vec<&str>, &Count)>| {
        let mut family = page.family(family);
        for (labels, count) in rows {
            family.add(&Set::NONE, &labels, count.read());
        }
    };
    one(&catalog::PROBES, Probe::ALL.map(|probe| (vec![probe.name()], plain.probes(probe))).into());
    one(&catalog::LOOKUPS, Lookup::ALL.map(|how| (vec![how.name()], plain.lookups(how))).into());
    let names = Purpose::ALL.into_iter().flat_map(|purpose| {
        Naming::ALL.map(|how| (vec![purpose.name(), how.name()], plain.names(purpose, how)))
    });
    one(&catalog::DNS, names.collect());
    let dropped = Dropped::ALL.map(|kind| {
        let (what, stage) = kind.names();
        (vec![what, stage], plain.dropped(kind))
    });
    one(&catalog::DROPPED, dropped.into());
    one(&catalog::SPANS_EXPORTED, vec![(vec![], &plain.spans_exported)]);
    let limits = plain.limits();
    one(&catalog::LIMITS, limits.iter().map(|(name, count)| (vec![*name], count.as_ref())).collect());
}

pub(super) fn own(metrics: &Metrics, page: &mut Page) {
    let (config, certificate) = (metrics.plain().config.read(), metrics.plain().certificate.read());
    let has = |moment: u64| (moment > 0).then_some(Number::Whole(moment));
    let always = |number: u64| Some(Number::Whole(number));
    let rows: [(&'static Family, Option<Number>); 17] = [
        (&catalog::ADOPTIONS, always(config.adopted)),
        (&catalog::CONFIG_REFUSALS, always(config.refused)),
        (&catalog::CONFIG_REFUSED, always(config.refused_now)),
        (&catalog::GENERATION, always(config.generation)),
        (&catalog::CONFIG_ADOPTED, always(config.adopted_at)),
        (&catalog::CONNECTS, always(config.connects)),
        (&catalog::DISCONNECTS, always(config.disconnects)),
        (&catalog::CONNECTED, Some(config.connected.into())),
        (&catalog::CONTROL_SINCE, has(config.since)),
        (&catalog::RENEWALS, always(certificate.obtained)),
        (&catalog::RENEWAL_FAILURES, always(certificate.failed)),
        (&catalog::CERTIFICATE_ISSUED, has(certificate.issued)),
        (&catalog::CERTIFICATE_RENEWAL, has(certificate.renew_after)),
        (&catalog::CERTIFICATE_EXPIRY, has(certificate.not_after)),
        (&catalog::TRUST_ROOTS, always(certificate.roots)),
        (&catalog::TRUST_ADOPTED, has(certificate.roots_changed)),
        (&catalog::TRUST_EXPIRY, has(certificate.root_not_after)),
    ];
    for (family, value) in rows {
        let mut family = page.family(family);
        if let Some(value) = value {
            family.one(value);
        }
    }
    page.family(&catalog::BUILD).add(&Set::NONE, &[VERSION], true);
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Source: rustls' word; no other version is spoken between sidecars.
const TLS: &str = "TLSv1.3";
