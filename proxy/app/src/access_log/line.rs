//! One line of the access log: a JSON object with dotted names that stay as they are, out of [`super::fields`].
//!
//! Written when a record closes, straight into the sheet; read by Elasticsearch, Loki and people.
//!
//! Invariant: one line is one object and ends with one line feed; no foreign byte can end it, open a
//! field, or reach a terminal as a control or direction character.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use weft_proxy_core::Moment;

use super::escape::escape;
use super::fields::{self as f, Field};
use super::policy::Format;
use super::{digits, time};
use crate::metrics::edge::{Edge, EdgeLabels, Party, Security, UNKNOWN};
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
        line.field(&f::DST_ENDPOINT);
        line.socket(endpoint);
    }
    match &entry.edge {
        Some(edge) => in_common(&mut line, edge),
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

/// What is the same in every line of an edge, a third of each: formatted once, copied from then on.
fn in_common(line: &mut Line<'_>, edge: &Edge) {
    let ecs = line.ecs;
    let text = edge.in_common(ecs, || {
        let mut out = Vec::new();
        parties(&mut Line { out: &mut out, ecs }, edge.labels());
        out
    });
    line.out.extend_from_slice(text);
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
        let name = f::TIME.begin(self.ecs);
        self.out.extend_from_slice(name.strip_prefix(',').unwrap_or(name).as_bytes());
        self.out.push(b'"');
        time::write(self.out, unix_nanos);
        self.out.push(b'"');
        if self.ecs {
            let outcome = if entry.went_wrong() { "failure" } else { "success" };
            self.print(format_args!(",\"ecs.version\":\"{ECS}\",\"event.outcome\":\"{outcome}\""));
        }
    }

    fn name_of(&mut self, entry: &Entry) {
        self.field(&f::REQUEST_ID);
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
        self.field(field);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    /// A field whose value comes from outside.
    fn text(&mut self, field: &Field, text: &str) {
        self.field(field);
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
            self.field(field);
            self.socket(address);
        }
    }

    fn socket(&mut self, address: SocketAddr) {
        self.out.push(b'"');
        digits::address(self.out, address);
        self.out.push(b'"');
    }

    fn number(&mut self, field: &Field, number: u64) {
        self.field(field);
        digits::number(self.out, number);
    }

    fn millis(&mut self, field: &Field, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.field(field);
        digits::number(self.out, micros / 1_000);
        self.out.push(b'.');
        digits::padded::<3>(self.out, micros);
    }

    fn field(&mut self, field: &Field) {
        self.out.extend_from_slice(field.begin(self.ecs).as_bytes());
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
