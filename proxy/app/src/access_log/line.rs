//! One line of the access log: a JSON object with dotted names that stay as they are.
//!
//! | field | meaning | absent when |
//! |---|---|---|
//! | `time` | end of the request, RFC 3339, UTC, microseconds | |
//! | `kind` | `request` or `connection` | |
//! | `direction` | `inbound` or `outbound`, seen from the pod | |
//! | `protocol` | `http`, `grpc`, `tls`, `tcp` | |
//! | `http.version` `http.method` `http.path` `http.host` | of the request as it came; the path without query | a connection, or an unreadable head |
//! | `http.status` | status sent downstream | none was sent |
//! | `grpc.status` | gRPC status sent downstream | not gRPC, or none was sent |
//! | `reason` `blame` `flags` | the sidecar's own reason, who has to look, Envoy's letters for it | the upstream's own answer |
//! | `policy` | what decided: `namespace/policy#rule`; without a rule the Allow policies of which none allows, the policy that has not arrived, the TlsPolicy or `mesh/name` that demands mTLS | none did |
//! | `probe` | the kubelet's probe that it is: `http`, `https`, `grpc`, `tcp` | it is none |
//! | `src.address` `src.workload` `src.namespace` `src.identity` | who called | not known |
//! | `dst.address` | address the caller wanted | not known |
//! | `dst.endpoint` | address the last attempt went to | no attempt |
//! | `dst.service` `dst.workload` `dst.namespace` `dst.identity` | who was called | not known |
//! | `security` | `mutual_tls`, `none`, `unknown` | |
//! | `route` `rule` `backend` | what was decided | not decided |
//! | `attempts` | attempts made | none |
//! | `bytes.up` `bytes.down` | bytes of body towards upstream and downstream | |
//! | `duration_ms` | start to end | |
//! | `first_byte_ms` | start to the first byte of the answer | no answer |
//! | `upstream_ms` | last attempt sent to the first byte of the answer | no answer from upstream |
//! | `trace.id` `span.id` | the trace, when it is kept | not kept |
//!
//! Written when a record closes, straight into the sheet; read by Elasticsearch, Loki and people.
//!
//! Invariant: one line is one object and ends with one line feed; no foreign byte can end it, open a
//! field, or reach a terminal as a control or direction character.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use http::Version;
use weft_proxy_core::Moment;

use crate::metrics::edge::{EdgeLabels, Party, Security, UNKNOWN};
use crate::record::clock::Clock;
use crate::record::entry::Entry;

/// Writes the line of an entry that ended.
pub fn write(out: &mut Vec<u8>, entry: &Entry, ended: Moment, clock: &Clock) {
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, clock.unix_nanos(ended));
    out.push(b'"');
    let mut line = Line { out };
    line.word("kind", if entry.connection { "connection" } else { "request" });
    line.word("direction", entry.direction.name());
    line.word("protocol", entry.protocol.name());
    request(&mut line, entry);
    if let Some(reason) = entry.reason {
        line.word("reason", reason.name());
        line.word("blame", reason.blame().name());
        line.word("flags", reason.flags());
    }
    line.name("policy", entry.policy.as_ref());
    if let Some(probe) = entry.probe {
        line.word("probe", probe.name());
    }
    line.address("src.address", entry.client);
    line.address("dst.address", entry.destination);
    line.address("dst.endpoint", entry.endpoint);
    match &entry.edge {
        Some(edge) => parties(&mut line, edge.labels()),
        None => line.word("security", Security::Unknown.name()),
    }
    line.name("rule", entry.rule.as_ref());
    line.name("backend", entry.backend.as_ref());
    numbers(&mut line, entry, ended);
    if let Some(trace) = &entry.trace {
        line.bare("trace.id", &trace.trace.hex());
        line.bare("span.id", &trace.span.hex());
    }
    out.extend_from_slice(b"}\n");
}

fn request(line: &mut Line<'_>, entry: &Entry) {
    if let (Some(method), Some(version)) = (&entry.method, entry.version) {
        line.word("http.version", version_name(version));
        line.text("http.method", method.as_str());
        line.text("http.path", &entry.path);
        line.text("http.host", &entry.authority);
    }
    if let Some(status) = entry.status {
        line.number("http.status", u64::from(status.as_u16()));
    }
    if let Some(grpc) = entry.grpc {
        line.number("grpc.status", u64::from(grpc));
    }
}

fn parties(line: &mut Line<'_>, labels: &EdgeLabels) {
    party(line, ["src.workload", "src.namespace", "src.identity"], &labels.source);
    party(line, ["dst.workload", "dst.namespace", "dst.identity"], &labels.destination);
    line.known("dst.service", labels.service.as_str());
    line.word("security", labels.security.name());
    line.known("route", labels.route.as_str());
}

fn party(line: &mut Line<'_>, [workload, namespace, identity]: [&str; 3], party: &Party) {
    line.known(workload, party.workload.as_str());
    line.known(namespace, party.namespace.as_str());
    if let Some(known) = &party.identity {
        line.text(identity, known.as_str());
    }
}

fn numbers(line: &mut Line<'_>, entry: &Entry, ended: Moment) {
    if entry.attempts > 0 {
        line.number("attempts", u64::from(entry.attempts));
    }
    line.number("bytes.up", entry.up);
    line.number("bytes.down", entry.down);
    line.millis("duration_ms", ended.since(entry.started));
    if let Some(first_byte) = entry.first_byte {
        line.millis("first_byte_ms", first_byte.since(entry.started));
        if let Some(sent) = entry.sent {
            line.millis("upstream_ms", first_byte.since(sent));
        }
    }
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// A field whose value comes from the code.
    fn word(&mut self, name: &str, word: &str) {
        self.bare(name, word.as_bytes());
    }

    /// A field whose value needs no escaping.
    fn bare(&mut self, name: &str, value: &[u8]) {
        self.field(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    /// A field whose value comes from outside.
    fn text(&mut self, name: &str, text: &str) {
        self.field(name);
        self.out.push(b'"');
        escape(self.out, text);
        self.out.push(b'"');
    }

    fn known(&mut self, name: &str, text: &str) {
        if text != UNKNOWN {
            self.text(name, text);
        }
    }

    fn name(&mut self, name: &str, value: Option<&weft_proxy_core::Name>) {
        if let Some(value) = value {
            self.text(name, value.as_str());
        }
    }

    fn address(&mut self, name: &str, address: Option<SocketAddr>) {
        if let Some(address) = address {
            self.field(name);
            self.print(format_args!("\"{address}\""));
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.field(name);
        self.print(format_args!("{number}"));
    }

    fn millis(&mut self, name: &str, span: Duration) {
        let micros = span.as_micros();
        self.field(name);
        self.print(format_args!("{}.{:03}", micros / 1_000, micros % 1_000));
    }

    fn field(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn print(&mut self, what: std::fmt::Arguments<'_>) {
        // A vector takes every byte.
        let _ = self.out.write_fmt(what);
    }
}

/// Writes text inside a JSON string.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut from = 0;
    for (at, character) in text.char_indices() {
        let plain = match character {
            '"' | '\\' => false,
            ' '..='~' => true,
            _ => character as u32 > 0x9f && !is_steering(character),
        };
        if plain {
            continue;
        }
        out.extend_from_slice(text.get(from..at).unwrap_or_default().as_bytes());
        from = at + character.len_utf8();
        // A vector takes every byte.
        let _ = match character {
            '"' => out.write_all(b"\\\""),
            '\\' => out.write_all(b"\\\\"),
            _ => write!(out, "\\u{:04x}", character as u32),
        };
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default().as_bytes());
}

/// Line separators and marks that turn the direction of text.
///
/// Source: Unicode TR #36 §2.6 and TR #9; all are within the basic plane.
fn is_steering(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Writes a time as RFC 3339 in UTC with microseconds.
///
/// Source: the calendar arithmetic is Howard Hinnant's `civil_from_days`, for days since 1970.
fn write_time(out: &mut Vec<u8>, unix_nanos: u64) {
    let (seconds, micros) = (unix_nanos / 1_000_000_000, unix_nanos / 1_000 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    // A vector takes every byte.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(unix_nanos: u64) -> String {
        let mut out = Vec::new();
        write_time(&mut out, unix_nanos);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(time(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999Z");
        assert_eq!(time(1_795_255_784_123_456_789), "2026-11-21T10:09:44.123456Z");
    }

    #[test]
    fn foreign_text_cannot_leave_its_string() {
        for text in [
            "/plain/path",
            "\",\"http.status\":200,\"x\":\"",
            "back\\slash\\",
            "line\nfeed\r\u{1b}[31mred\u{7f}\0",
            "\u{85}\u{9b}\u{2028}\u{202e}txt\u{2066}\u{feff}",
            "grüße/世界/🦀",
        ] {
            let mut out = b"\"".to_vec();
            escape(&mut out, text);
            out.push(b'"');
            let line = String::from_utf8(out).unwrap();
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            assert!(!line.chars().any(|c| c.is_control() || is_steering(c)), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_text_comes_back_from_its_string(text in ".*") {
            let mut out = b"\"".to_vec();
            escape(&mut out, &text);
            out.push(b'"');
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
