//! The families of edges: their rows, some edges at a time.
//!
//! The first and longest part of a scrape.
//!
//! Invariant: of a family whose rows come in several parts, the first part writes the family's head.

use weft_exposition::{Family, Page, Reading, Rows, Set};
use weft_proxy_core::reason;

use super::Sum;
use crate::metrics::catalog;
use crate::metrics::edge::Outcome;
use crate::metrics::exemplars::Seen;
use crate::metrics::latency::{SHOWN, SHOWN_COARSE, Tally};
use crate::metrics::sizes;

/// One edge: its labels, as this page has them, and its numbers.
pub(super) type Row = (Set, Sum);

/// A family of edges, and how an edge's rows are written.
pub(super) struct Part {
    pub(super) family: &'static Family,
    /// Whether it is of requests, or of connections.
    pub(super) http: bool,
    write: fn(&mut Rows<'_>, &Row),
}

/// All of them, in the catalog's order.
pub(super) static PARTS: [Part; 12] = [
    Part { family: &catalog::REQUESTS, http: true, write: requests },
    Part { family: &catalog::DURATION, http: true, write: durations },
    Part { family: &catalog::FIRST_BYTE, http: true, write: first_bytes },
    Part { family: &catalog::REQUEST_SIZE, http: true, write: |rows, row| body_sizes(rows, row, true) },
    Part { family: &catalog::RESPONSE_SIZE, http: true, write: |rows, row| body_sizes(rows, row, false) },
    Part {
        family: &catalog::REQUEST_BYTES,
        http: true,
        write: |rows, (set, sum)| rows.add(set, &[], sum.bytes.0),
    },
    Part {
        family: &catalog::RESPONSE_BYTES,
        http: true,
        write: |rows, (set, sum)| rows.add(set, &[], sum.bytes.1),
    },
    Part { family: &catalog::RETRIES, http: true, write: |rows, (set, sum)| rows.add(set, &[], sum.retries) },
    Part {
        family: &catalog::TCP_OPENED,
        http: false,
        write: |rows, (set, sum)| rows.add(set, &[], sum.opened),
    },
    Part {
        family: &catalog::TCP_CLOSED,
        http: false,
        write: |rows, (set, sum)| rows.add(set, &[], sum.closed),
    },
    Part {
        family: &catalog::TCP_RECEIVED,
        http: false,
        write: |rows, (set, sum)| rows.add(set, &[], sum.bytes.0),
    },
    Part {
        family: &catalog::TCP_SENT,
        http: false,
        write: |rows, (set, sum)| rows.add(set, &[], sum.bytes.1),
    },
];

impl Part {
    /// Writes these edges; `first`: the family begins with them.
    pub(super) fn write(&self, page: &mut Page, first: bool, edges: &[Row]) {
        let mut rows = if first { page.family(self.family) } else { page.more(self.family) };
        for edge in edges {
            (self.write)(&mut rows, edge);
        }
    }
}

fn requests(rows: &mut Rows<'_>, (set, sum): &Row) {
    for (outcome, count) in &sum.outcomes {
        let (code, grpc) = (code(*outcome), grpc(*outcome));
        let flags = outcome.reason().map_or("-", reason::Reason::flags);
        let reason = outcome.reason().map_or("", reason::Reason::name);
        rows.add(set, &[&code, &grpc, flags, reason], *count);
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

fn durations(rows: &mut Rows<'_>, (set, sum): &Row) {
    let mut newest = [None; SHOWN.len() + 1];
    for exemplars in sum.edges.iter().filter_map(|edge| edge.exemplars()) {
        exemplars.read(&mut newest);
    }
    let mut buckets = sum.latency.shown(&SHOWN);
    for (bucket, seen) in buckets.iter_mut().zip(newest) {
        bucket.exemplar = seen.map(Seen::exemplar);
    }
    let powers = sum.latency.powers();
    let native = Some(Tally::native(&powers));
    rows.histogram(set, &[], &Reading { sum: sum.latency.seconds(), buckets: &buckets, native });
}

fn first_bytes(rows: &mut Rows<'_>, (set, sum): &Row) {
    let tally = sum.first_byte();
    if tally.count() > 0 {
        let (buckets, powers) = (tally.shown(&SHOWN_COARSE), tally.powers());
        let native = Some(Tally::native(&powers));
        rows.histogram(set, &[], &Reading { sum: tally.seconds(), buckets: &buckets, native });
    }
}

fn body_sizes(rows: &mut Rows<'_>, (set, sum): &Row, request: bool) {
    let mut counts = [0; sizes::BUCKETS];
    for shapes in sum.edges.iter().filter_map(|edge| edge.shapes()) {
        if request { &shapes.request } else { &shapes.response }.read(&mut counts);
    }
    let bytes = if request { sum.bytes.0 } else { sum.bytes.1 };
    let (buckets, native) = (sizes::shown(&counts), Some(sizes::native(&counts)));
    rows.histogram(set, &[], &Reading { sum: bytes as f64, buckets: &buckets, native });
}
