//! One line of the access log: a JSON object with dotted names that stay as they are, out of [`super::fields`].
//!
//! Written when a record closes, straight into the sheet; read by Elasticsearch, Loki and people.
//!
//! Invariant: one line is one object and ends with one line feed; no foreign byte can end it, open a
//! field, or reach a terminal as a control or direction character.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use weft_proxy_core::Moment;

use super::digits;
use super::fields::{self as f, Field};
use super::policy::Format;
use crate::metrics::edge::{EdgeLabels, Party, Security, UNKNOWN};
use crate::record::clock::Clock;
use crate::record::entry::{Entry, version_name};

/// How a line is written.
#[derive(Clone, Copy, Debug)]
pub struct Style<'a> {
    /// Under which names.
    pub format: Format,
    /// The process's clock.
    pub clock: &'a Clock,
}

/// Writes the line of an entry that ended.
pub fn write(out: &mut Vec<u8>, entry: &Entry, ended: Moment, style: Style<'_>) {
    let mut line = Line { out, ecs: style.format == Format::Ecs };
    line.open(style.clock.unix_nanos(ended), entry);
    line.word(&f::KIND, if entry.connection { "connection" } else { "request" });
    line.name_of(entry);
    line.word(&f::DIRECTION, entry.direction.name());
    line.word(&f::PROTOCOL, entry.protocol.name());
    request(&mut line, entry);
    if let Some(reason) = entry.reason {
        line.word(&f::REASON, reason.name());
        line.word(&f::BLAME, reason.blame().name());
        line.word(&f::FLAGS, reason.flags());
    }
    line.name(&f::POLICY, entry.policy.as_ref());
    if let Some(probe) = entry.probe {
        line.word(&f::PROBE, probe.name());
    }
    line.address(&f::SRC_ADDRESS, entry.client);
    line.address(&f::DST_ADDRESS, entry.destination);
    if let Some(endpoint) = entry.endpoint {
        line.field(f::DST_ENDPOINT.name(line.ecs));
        line.socket(endpoint);
    }
    match &entry.edge {
        Some(edge) => parties(&mut line, edge.labels()),
        None => line.word(&f::SECURITY, Security::Unknown.name()),
    }
    line.name(&f::RULE, entry.rule.as_ref());
    line.name(&f::BACKEND, entry.backend.as_ref());
    numbers(&mut line, entry, ended);
    if let Some(trace) = &entry.trace {
        line.bare(&f::TRACE_ID, &trace.trace.hex());
        line.bare(&f::SPAN_ID, &trace.span.hex());
    }
    for (name, value) in &entry.fields {
        line.header(name, value);
    }
    out.extend_from_slice(b"}\n");
}

fn request(line: &mut Line<'_>, entry: &Entry) {
    if let (Some(method), Some(version)) = (&entry.method, entry.version) {
        line.word(&f::HTTP_VERSION, version_name(version));
        line.text(&f::HTTP_METHOD, method.as_str());
        line.text(&f::HTTP_PATH, &entry.path);
        if !entry.query.is_empty() {
            line.text(&f::HTTP_QUERY, &entry.query);
        }
        line.text(&f::HTTP_HOST, &entry.authority);
    }
    if let Some(status) = entry.status {
        line.number(&f::HTTP_STATUS, u64::from(status.as_u16()));
    }
    if let Some(grpc) = entry.grpc {
        line.number(&f::GRPC_STATUS, u64::from(grpc));
    }
}

fn parties(line: &mut Line<'_>, labels: &EdgeLabels) {
    party(line, [&f::SRC_WORKLOAD, &f::SRC_NAMESPACE, &f::SRC_IDENTITY], &labels.source);
    party(line, [&f::DST_WORKLOAD, &f::DST_NAMESPACE, &f::DST_IDENTITY], &labels.destination);
    line.known(&f::DST_SERVICE, labels.service.as_str());
    line.word(&f::SECURITY, labels.security.name());
    line.known(&f::ROUTE, labels.route.as_str());
}

fn party(line: &mut Line<'_>, [workload, namespace, identity]: [&Field; 3], party: &Party) {
    line.known(workload, party.workload.as_str());
    line.known(namespace, party.namespace.as_str());
    if let Some(known) = &party.identity {
        line.text(identity, known.as_str());
    }
}

fn numbers(line: &mut Line<'_>, entry: &Entry, ended: Moment) {
    if entry.attempts > 0 {
        line.number(&f::ATTEMPTS, u64::from(entry.attempts));
    }
    line.number(&f::BYTES_UP, entry.up);
    line.number(&f::BYTES_DOWN, entry.down);
    let took = ended.since(entry.started);
    if line.ecs {
        line.number(&f::DURATION, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    } else {
        line.millis(&f::DURATION, took);
    }
    if let Some(first_byte) = entry.first_byte {
        line.millis(&f::FIRST_BYTE, first_byte.since(entry.started));
        if let Some(sent) = entry.sent {
            line.millis(&f::UPSTREAM, first_byte.since(sent));
        }
    }
    if let Some(sent) = entry.sent {
        line.millis(&f::OWN, sent.since(entry.started));
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    ecs: bool,
}

impl Line<'_> {
    /// The object's beginning: when, and by which schema.
    fn open(&mut self, unix_nanos: u64, entry: &Entry) {
        self.out.push(b'{');
        self.quoted(f::TIME.name(self.ecs));
        self.out.extend_from_slice(b":\"");
        write_time(self.out, unix_nanos);
        self.out.push(b'"');
        if self.ecs {
            let outcome = if entry.went_wrong() { "failure" } else { "success" };
            self.print(format_args!(",\"ecs.version\":\"{ECS}\",\"event.outcome\":\"{outcome}\""));
        }
    }

    fn name_of(&mut self, entry: &Entry) {
        self.field(f::REQUEST_ID.name(self.ecs));
        // A name is visible ASCII, of which two characters mean something within a string.
        self.out.push(b'"');
        match entry.id.given() {
            Some(given) => escape(self.out, given),
            None => self.out.extend_from_slice(&entry.id.made_hex()),
        }
        self.out.push(b'"');
    }

    /// A field whose value comes from the code.
    fn word(&mut self, field: &Field, word: &str) {
        self.bare(field, word.as_bytes());
    }

    /// A field whose value needs no escaping.
    fn bare(&mut self, field: &Field, value: &[u8]) {
        self.field(field.name(self.ecs));
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    /// A field whose value comes from outside.
    fn text(&mut self, field: &Field, text: &str) {
        self.field(field.name(self.ecs));
        self.string(text);
    }

    /// A header field; both its name and its value come from outside.
    fn header(&mut self, name: &str, value: &str) {
        let before = if self.ecs { "labels." } else { "header." };
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(before.as_bytes());
        escape(self.out, name);
        self.out.extend_from_slice(b"\":");
        self.string(value);
    }

    fn known(&mut self, field: &Field, text: &str) {
        if text != UNKNOWN {
            self.text(field, text);
        }
    }

    fn name(&mut self, field: &Field, value: Option<&weft_proxy_core::Name>) {
        if let Some(value) = value {
            self.text(field, value.as_str());
        }
    }

    /// An address: one text, or two fields in the Elastic Common Schema.
    fn address(&mut self, field: &Field, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        if self.ecs {
            let (of, ip, port) = (field.ecs, address.ip(), address.port());
            self.print(format_args!(",\"{of}.ip\":\"{ip}\",\"{of}.port\":{port}"));
        } else {
            self.field(field.weft);
            self.socket(address);
        }
    }

    fn socket(&mut self, address: SocketAddr) {
        self.out.push(b'"');
        digits::address(self.out, address);
        self.out.push(b'"');
    }

    fn number(&mut self, field: &Field, number: u64) {
        self.field(field.name(self.ecs));
        digits::number(self.out, number);
    }

    fn millis(&mut self, field: &Field, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.field(field.name(self.ecs));
        digits::number(self.out, micros / 1_000);
        self.out.push(b'.');
        digits::padded(self.out, micros, 3);
    }

    fn field(&mut self, name: &str) {
        self.out.push(b',');
        self.quoted(name);
        self.out.push(b':');
    }

    /// A name that comes from the code.
    fn quoted(&mut self, name: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'"');
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        escape(self.out, text);
        self.out.push(b'"');
    }

    fn print(&mut self, what: std::fmt::Arguments<'_>) {
        // A vector takes every byte.
        let _ = self.out.write_fmt(what);
    }
}

/// Version of the Elastic Common Schema whose names are used. Source: ECS 8.11, in which all of them stand.
const ECS: &str = "8.11.0";

/// Writes text inside a JSON string.
fn escape(out: &mut Vec<u8>, text: &str) {
    // Nearly all text is: one look over its bytes, and one copy.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        return out.extend_from_slice(text.as_bytes());
    }
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
    for (number, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3_600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (micros, 6, b'Z'),
    ] {
        digits::padded(out, number, width);
        out.push(after);
    }
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
