//! The two texts: OpenMetrics and Prometheus' classic one.
//!
//! Invariant: a label's value cannot end its line or its quotes.
//!
//! Source: OpenMetrics 1.0, "Text format"; Prometheus, "Exposition formats", text version 0.0.4.

use std::io::Write as _;

use crate::family::{Family, Kind};
use crate::format::Format;
use crate::histogram::{Exemplar, Reading};
use crate::page::Number;

/// The lines before a family's rows.
pub(crate) fn head(out: &mut Vec<u8>, family: &Family, format: Format) {
    // The classic text knows a counter by the name of its rows, and has no word for facts.
    let (suffix, kind) = match (format, family.kind) {
        (Format::Classic, Kind::Info) => (Kind::Info.suffix(), "gauge"),
        (Format::Classic, kind) => (kind.suffix(), kind.name()),
        (_, kind) => ("", kind.name()),
    };
    let name = family.name;
    push(out, &["# HELP ", name, suffix, " ", family.help, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
    if let Some(unit) = family.unit().filter(|_| format == Format::OpenMetrics) {
        push(out, &["# UNIT ", name, " ", unit, "\n"]);
    }
}

/// One label, with a comma behind it.
pub(crate) fn label(out: &mut Vec<u8>, name: &str, value: &str) {
    push(out, &[name, "=\""]);
    if value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        for byte in value.bytes() {
            match byte {
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'"' => out.extend_from_slice(b"\\\""),
                b'\n' => out.extend_from_slice(b"\\n"),
                other => out.push(other),
            }
        }
    } else {
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\",");
}

/// A row of a counter, a gauge or a fact.
pub(crate) fn number(out: &mut Vec<u8>, family: &Family, labels: &[u8], value: Number) {
    start(out, family, family.kind.suffix(), labels, None);
    out.push(b' ');
    write_number(out, value);
    out.push(b'\n');
}

/// The rows of a histogram.
pub(crate) fn histogram(
    out: &mut Vec<u8>,
    family: &Family,
    labels: &[u8],
    reading: &Reading<'_>,
    exemplars: bool,
) {
    let mut cumulative = 0u64;
    for bucket in reading.buckets {
        cumulative = cumulative.saturating_add(bucket.count);
        start(out, family, "_bucket", labels, Some(bucket.upper));
        out.push(b' ');
        write_number(out, Number::Whole(cumulative));
        if let Some(exemplar) = bucket.exemplar.as_ref().filter(|_| exemplars) {
            write_exemplar(out, exemplar);
        }
        out.push(b'\n');
    }
    for (suffix, value) in [("_sum", Number::Real(reading.sum)), ("_count", Number::Whole(cumulative))] {
        start(out, family, suffix, labels, None);
        out.push(b' ');
        write_number(out, value);
        out.push(b'\n');
    }
}

fn start(out: &mut Vec<u8>, family: &Family, suffix: &str, labels: &[u8], upper: Option<f64>) {
    push(out, &[family.name, suffix]);
    // Labels were written with a comma behind each.
    match (labels.strip_suffix(b","), upper) {
        (None, None) => {}
        (Some(labels), None) => {
            out.push(b'{');
            out.extend_from_slice(labels);
            out.push(b'}');
        }
        (_, Some(upper)) => {
            out.push(b'{');
            out.extend_from_slice(labels);
            out.extend_from_slice(b"le=\"");
            write_bound(out, upper);
            out.extend_from_slice(b"\"}");
        }
    }
}

fn write_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend_from_slice(b" # {trace_id=\"");
    out.extend_from_slice(&exemplar.trace_id);
    out.extend_from_slice(b"\"} ");
    write_number(out, Number::Real(exemplar.value));
    out.push(b' ');
    // A vector takes every byte.
    let _ = write!(out, "{:.3}", exemplar.timestamp);
}

/// Source: OpenMetrics 1.0, "Canonical numbers": a whole bound has a fraction of zero.
fn write_bound(out: &mut Vec<u8>, bound: f64) {
    let whole = bound.is_finite() && bound.fract() == 0.0;
    write_number(out, Number::Real(bound));
    if whole {
        out.extend_from_slice(b".0");
    }
}

fn write_number(out: &mut Vec<u8>, value: Number) {
    // A vector takes every byte.
    let _ = match value {
        Number::Whole(value) => write!(out, "{value}"),
        Number::Signed(value) => write!(out, "{value}"),
        Number::Real(value) if value == f64::INFINITY => write!(out, "+Inf"),
        Number::Real(value) if value == f64::NEG_INFINITY => write!(out, "-Inf"),
        Number::Real(value) => write!(out, "{value}"),
    };
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
