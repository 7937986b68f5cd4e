//! Prometheus' protobuf: messages `io.prometheus.client.MetricFamily`, each behind its length.
//!
//! Written by hand, because nine messages of numbers and texts need no generated types in both planes.
//!
//! Invariant: field numbers are those of the public protocol.
//!
//! Source: Prometheus, client_model, `io/prometheus/client/metrics.proto`.

use crate::family::{Family, Kind};
use crate::histogram::{Exemplar, Native, Reading};
use crate::page::Number;

/// `Metric.label`, with its name and value.
pub(crate) fn label(out: &mut Vec<u8>, name: &str, value: &str) {
    let length = text_length(name) + text_length(value);
    tag(out, 1, LENGTH);
    varint(out, length as u64);
    text(out, 1, name);
    text(out, 2, value);
}

/// `Metric.gauge` or `Metric.counter`, with its value.
pub(crate) fn number(out: &mut Vec<u8>, kind: Kind, value: Number) {
    tag(out, if kind == Kind::Counter { 3 } else { 2 }, LENGTH);
    varint(out, 9);
    double(out, 1, value.real());
}

/// `Metric.histogram`.
pub(crate) fn histogram(out: &mut Vec<u8>, reading: &Reading<'_>) {
    let (mut message, mut part) = (Vec::with_capacity(1024), Vec::with_capacity(128));
    whole(&mut message, 1, reading.count());
    double(&mut message, 2, reading.sum);
    let mut cumulative = 0u64;
    for bucket in reading.buckets {
        cumulative = cumulative.saturating_add(bucket.count);
        part.clear();
        whole(&mut part, 1, cumulative);
        double(&mut part, 2, bucket.upper);
        if let Some(exemplar) = &bucket.exemplar {
            write_exemplar(&mut part, exemplar);
        }
        nested(&mut message, 3, &part);
    }
    if let Some(native) = &reading.native {
        write_native(&mut message, native);
    }
    nested(out, 7, &message);
}

fn write_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let mut message = Vec::with_capacity(80);
    label(&mut message, "trace_id", std::str::from_utf8(&exemplar.trace_id).unwrap_or_default());
    double(&mut message, 2, exemplar.value);
    let mut moment = Vec::with_capacity(16);
    whole(&mut moment, 1, exemplar.timestamp.max(0.0) as u64);
    whole(&mut moment, 2, (exemplar.timestamp.max(0.0).fract() * 1e9) as u64);
    nested(&mut message, 3, &moment);
    nested(out, 3, &message);
}

fn write_native(out: &mut Vec<u8>, native: &Native<'_>) {
    signed(out, 5, i64::from(native.schema));
    double(out, 6, native.zero_threshold);
    whole(out, 7, native.zero);
    let mut part = Vec::with_capacity(16);
    for (offset, length) in spans(native) {
        part.clear();
        signed(&mut part, 1, i64::from(offset));
        whole(&mut part, 2, length);
        nested(out, 12, &part);
    }
    let mut before = 0i64;
    for count in native.counts.iter().filter(|count| **count > 0) {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        signed(out, 13, count - before);
        before = count;
    }
}

/// Runs of buckets that are not empty: how far each is from the one before (the first: from index 0), and
/// how long it is.
fn spans(native: &Native<'_>) -> Vec<(i32, u64)> {
    let (mut spans, mut end, mut next): (Vec<(i32, u64)>, i32, i32) = (Vec::new(), 0, native.first);
    for count in native.counts {
        let at = next;
        next += 1;
        if *count == 0 {
            continue;
        }
        match spans.last_mut().filter(|_| at == end) {
            Some((_, length)) => *length += 1,
            None => spans.push((at - end, 1)),
        }
        end = next;
    }
    spans
}

/// `MetricFamily.metric`, of its labels and its message.
pub(crate) fn metric(out: &mut Vec<u8>, labels: &[u8], message: &[u8]) {
    tag(out, 4, LENGTH);
    varint(out, (labels.len() + message.len()) as u64);
    out.extend_from_slice(labels);
    out.extend_from_slice(message);
}

/// A whole `MetricFamily` behind its length; `scratch` is only borrowed.
pub(crate) fn family(out: &mut Vec<u8>, family: &Family, rows: &[u8], scratch: &mut Vec<u8>) {
    scratch.clear();
    text(scratch, 1, &family.exposed());
    text(scratch, 2, family.help);
    whole(
        scratch,
        3,
        match family.kind {
            Kind::Counter => 0,
            Kind::Gauge | Kind::Info => 1,
            Kind::Histogram => 4,
        },
    );
    varint(out, (scratch.len() + rows.len()) as u64);
    out.extend_from_slice(scratch);
    out.extend_from_slice(rows);
}

/// Wire types. Source: Protocol Buffers, "Encoding".
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

fn tag(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn whole(out: &mut Vec<u8>, field: u64, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

/// A `sint32` or `sint64`: small numbers of either sign are short.
fn signed(out: &mut Vec<u8>, field: u64, value: i64) {
    whole(out, field, ((value << 1) ^ (value >> 63)) as u64);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn text(out: &mut Vec<u8>, field: u64, value: &str) {
    nested(out, field, value.as_bytes());
}

fn text_length(value: &str) -> usize {
    let mut length = 2 + value.len();
    let mut rest = value.len() >> 7;
    while rest > 0 {
        length += 1;
        rest >>= 7;
    }
    length
}

fn nested(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    tag(out, field, LENGTH);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_become_runs_with_their_distances() {
        let native =
            Native { schema: 2, zero_threshold: 0.1, zero: 0, first: -3, counts: &[0, 2, 1, 0, 0, 5] };
        assert_eq!(spans(&native), [(-2, 2), (2, 1)]);
        let empty = Native { counts: &[0, 0], ..native };
        assert_eq!(spans(&empty), []);
    }

    #[test]
    fn a_label_is_as_long_as_it_says() {
        for value in ["", "x", &"y".repeat(127), &"z".repeat(128), &"w".repeat(20_000)] {
            let mut out = Vec::new();
            label(&mut out, "name", value);
            let (length, used) = read(&out[1..]);
            assert_eq!(out.len(), 1 + used + length, "{}", value.len());
        }
    }

    fn read(bytes: &[u8]) -> (usize, usize) {
        let (mut value, mut used) = (0, 0);
        for byte in bytes {
            value |= usize::from(byte & 0x7f) << (7 * used);
            used += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        (value, used)
    }
}
