//! A closed record as spans of OpenTelemetry: one for the request, one for each attempt.
//!
//! Runs on the chores thread, for requests that are kept.
//!
//! Invariant: span names have few values: method and route, never a path of HTTP.
//! Invariant: a 4xx is the caller's error: it marks the client's span, not the server's.
//
// Source of names: OpenTelemetry semantic conventions 1.42, HTTP spans and RPC spans; `weft.*` is ours.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use opentelemetry::trace::{
    Event, SpanContext, SpanId as OtelSpanId, SpanKind, Status, TraceFlags, TraceId as OtelTraceId,
    TraceState,
};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use weft_proxy_core::{Identity, Name, Reason};

use super::context::{Kept, SpanId, TraceContext};
use super::span::{AttemptSpan, Finished};
use crate::edges::NO_ROUTE;
use crate::metrics::edge::{Direction, EdgeLabels, Outcome, Protocol, UNKNOWN};
use crate::record::clock::Clock;
use crate::record::entry::{Entry, version_name};

/// Appends the spans of one request or connection to `out`.
pub(super) fn convert(finished: &Finished, clock: &Clock, out: &mut Vec<SpanData>) {
    let entry = finished.entry.as_ref();
    let Some(context) = &entry.trace else { return };
    let name = name(entry);
    let kind = match entry.direction {
        Direction::Inbound => SpanKind::Server,
        Direction::Outbound => SpanKind::Client,
    };
    let mut request = blank(context, context.span, kind, name.clone());
    request.parent_span_id = context.parent.map_or(OtelSpanId::INVALID, otel_span);
    request.parent_span_is_remote = context.parent.is_some();
    request.start_time = clock.wall(entry.started);
    request.end_time = clock.wall(finished.ended);
    request.attributes = request_attributes(entry);
    request.status = status(entry.direction, entry.status, entry.grpc, entry.reason);
    mark_error(&mut request, entry.status, entry.grpc, entry.reason);
    let mut events = SpanEvents::default();
    events.events = entry.events.iter().map(|e| Event::new(e.name, clock.wall(e.at), vec![], 0)).collect();
    request.events = events;
    out.push(request);
    for (number, attempt) in entry.tries.iter().enumerate() {
        let last = number + 1 == entry.tries.len();
        out.push(attempt_span(finished, context, (number + 1, last), attempt, clock));
    }
}

fn attempt_span(
    finished: &Finished,
    context: &TraceContext,
    (number, last): (usize, bool),
    attempt: &AttemptSpan,
    clock: &Clock,
) -> SpanData {
    let entry = finished.entry.as_ref();
    let mut span = blank(context, attempt.span, SpanKind::Client, name(entry));
    span.parent_span_id = otel_span(context.span);
    span.start_time = clock.wall(attempt.started);
    span.end_time = clock.wall(attempt.ended.unwrap_or(finished.ended));
    // The last attempt's answer is the request's, unless it was told to have ended otherwise.
    let whole = last && attempt.ended.is_none();
    let status_code = attempt.status.or(if whole { entry.status } else { None });
    let grpc = if whole { entry.grpc } else { None };
    let reason = attempt.reason.or(if whole { entry.reason } else { None });
    let mut attributes = Attributes::default();
    attributes.method(entry);
    attributes.answer(status_code, grpc, reason);
    attributes.number("weft.attempt", number as i64);
    if number > 1 {
        attributes.number("http.request.resend_count", number as i64 - 1);
    }
    attributes.endpoint(attempt.endpoint);
    if let Some(edge) = &attempt.edge {
        attributes.edge(edge.labels());
    }
    attributes.name("weft.backend", entry.backend.as_ref());
    span.attributes = attributes.0;
    span.status = status(Direction::Outbound, status_code, grpc, reason);
    mark_error(&mut span, status_code, grpc, reason);
    span
}

fn blank(context: &TraceContext, span: SpanId, kind: SpanKind, name: Cow<'static, str>) -> SpanData {
    let trace = OtelTraceId::from_bytes(context.trace.0);
    let flags = TraceFlags::new(1 | context.flags);
    SpanData {
        span_context: SpanContext::new(trace, otel_span(span), flags, false, TraceState::NONE),
        parent_span_id: OtelSpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: kind,
        name,
        start_time: std::time::UNIX_EPOCH,
        end_time: std::time::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("weft")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn otel_span(span: SpanId) -> OtelSpanId {
    OtelSpanId::from_bytes(span.0)
}

/// `METHOD route`, or the service where no route is; gRPC calls by their full method, which is a name; connections by protocol and service.
fn name(entry: &Entry) -> Cow<'static, str> {
    let labels = entry.edge.as_ref().map(|edge| edge.labels());
    let known = |name: &'_ Name| (name.as_str() != UNKNOWN).then(|| name.as_str().to_owned());
    if entry.connection {
        let service = labels.and_then(|labels| known(&labels.service)).unwrap_or_default();
        return format!("{} {service}", entry.protocol.name()).trim_end().to_owned().into();
    }
    let Some(method) = &entry.method else { return "HTTP".into() };
    if let (Protocol::Grpc, Some(call), Some(_)) = (entry.protocol, entry.path.strip_prefix('/'), labels) {
        return call.to_owned().into();
    }
    let method = if is_standard(method) { method.as_str() } else { "HTTP" };
    let route =
        labels.and_then(|labels| known(&labels.route).filter(|route| !route.is_empty() && route != NO_ROUTE));
    match route.or_else(|| known(&labels?.service)) {
        Some(route) => format!("{method} {route}").into(),
        None => method.to_owned().into(),
    }
}

/// Source: semantic conventions 1.42: a method outside RFC 9110 and RFC 5789 must not become a name.
fn is_standard(method: &http::Method) -> bool {
    use http::Method as M;
    [M::GET, M::HEAD, M::POST, M::PUT, M::DELETE, M::CONNECT, M::OPTIONS, M::TRACE, M::PATCH].contains(method)
}

fn status(
    direction: Direction,
    answered: Option<StatusCode>,
    grpc: Option<u8>,
    reason: Option<Reason>,
) -> Status {
    let failed = match direction {
        Direction::Inbound => outcome(answered, grpc, reason).failed(),
        Direction::Outbound => {
            let client_error = answered.is_some_and(|status| status.as_u16() >= 400);
            client_error || grpc.is_some_and(|code| code != 0) || outcome(answered, grpc, reason).failed()
        }
    };
    let refused = reason.filter(|reason| !matches!(reason, Reason::ConfigReply | Reason::Cancelled));
    match (failed, refused) {
        (false, _) => Status::Unset,
        (true, Some(reason)) => Status::error(reason.name()),
        (true, None) => Status::error(""),
    }
}

fn outcome(answered: Option<StatusCode>, grpc: Option<u8>, reason: Option<Reason>) -> Outcome {
    // A relayed connection has no status, and failed only when there is a reason.
    let status = answered.map_or(if reason.is_some() { 0 } else { 200 }, |status| status.as_u16());
    Outcome::new(status, grpc, reason)
}

/// Source: semantic conventions 1.42: `error.type` on every span that ended in error.
fn mark_error(span: &mut SpanData, answered: Option<StatusCode>, grpc: Option<u8>, reason: Option<Reason>) {
    if matches!(span.status, Status::Error { .. }) {
        let kind: String = match (reason, grpc, answered) {
            (Some(reason), _, _) => reason.name().to_owned(),
            (None, Some(code), _) if code != 0 => grpc_name(code).to_owned(),
            (None, _, Some(status)) => status.as_str().to_owned(),
            (None, _, None) => "_OTHER".to_owned(),
        };
        span.attributes.push(KeyValue::new("error.type", kind));
    }
}

fn request_attributes(entry: &Entry) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    attributes.method(entry);
    if entry.method.is_some() {
        if !entry.path.is_empty() {
            attributes.text("url.path", &entry.path);
        }
        attributes.text("url.scheme", "http");
        server(&mut attributes, &entry.authority);
        attributes.text("network.protocol.name", "http");
    }
    if let Some(version) = entry.version {
        attributes.text("network.protocol.version", version_name(version));
    }
    attributes.answer(entry.status, entry.grpc, entry.reason);
    if let Some(client) = entry.client {
        attributes.text("client.address", &client.ip().to_string());
    }
    if entry.connection {
        attributes.text("network.transport", "tcp");
        if let Some(destination) = entry.destination {
            attributes.text("server.address", &destination.ip().to_string());
            attributes.number("server.port", i64::from(destination.port()));
        }
    }
    if let Some(context) = &entry.trace {
        attributes.text("weft.trace.kept", context.kept.name());
        if context.kept == Kept::Guess {
            attributes.0.push(KeyValue::new("weft.trace.guessed", true));
        }
    }
    attributes.text("weft.request.id", &entry.id.to_string());
    attributes.text("weft.direction", entry.direction.name());
    if let Some(edge) = &entry.edge {
        attributes.edge(edge.labels());
    }
    attributes.name("weft.rule", entry.rule.as_ref());
    attributes.name("weft.backend", entry.backend.as_ref());
    attributes.name("weft.policy", entry.policy.as_ref());
    attributes.endpoint(entry.endpoint);
    if entry.attempts > 0 {
        attributes.number("weft.attempts", i64::from(entry.attempts));
    }
    let own = entry.attributes.iter();
    attributes.0.extend(own.map(|(name, value)| KeyValue::new(Key::from(Arc::clone(name)), value.clone())));
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (up, down) = (count(entry.up), count(entry.down));
    if entry.connection {
        attributes.number("weft.bytes.up", up);
        attributes.number("weft.bytes.down", down);
    } else {
        attributes.number("http.request.body.size", up);
        attributes.number("http.response.body.size", down);
    }
    attributes.0
}

fn server(attributes: &mut Attributes, authority: &str) {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return };
    attributes.text("server.address", authority.host());
    if let Some(port) = authority.port_u16() {
        attributes.number("server.port", i64::from(port));
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &'static str, value: &str) {
        self.0.push(KeyValue::new(key, value.to_owned()));
    }

    fn number(&mut self, key: &'static str, value: i64) {
        self.0.push(KeyValue::new(key, value));
    }

    fn name(&mut self, key: &'static str, name: Option<&Name>) {
        if let Some(name) = name.filter(|name| !name.as_str().is_empty()) {
            self.text(key, name.as_str());
        }
    }

    fn known(&mut self, key: &'static str, text: &str) {
        if text != UNKNOWN && !text.is_empty() {
            self.text(key, text);
        }
    }

    fn identity(&mut self, key: &'static str, identity: Option<&Identity>) {
        if let Some(identity) = identity {
            self.text(key, identity.as_str());
        }
    }

    fn method(&mut self, entry: &Entry) {
        let Some(method) = &entry.method else { return };
        if is_standard(method) {
            self.text("http.request.method", method.as_str());
        } else {
            self.text("http.request.method", "_OTHER");
            self.text("http.request.method_original", method.as_str());
        }
        if entry.protocol == Protocol::Grpc {
            self.text("rpc.system.name", "grpc");
            self.text("rpc.method", entry.path.trim_start_matches('/'));
        }
    }

    fn answer(&mut self, status: Option<StatusCode>, grpc: Option<u8>, reason: Option<Reason>) {
        if let Some(status) = status {
            self.number("http.response.status_code", i64::from(status.as_u16()));
        }
        if let Some(grpc) = grpc {
            self.text("rpc.response.status_code", grpc_name(grpc));
        }
        if let Some(reason) = reason {
            self.text("weft.reason", reason.name());
            self.text("weft.blame", reason.blame().name());
            self.text("weft.flags", reason.flags());
        }
    }

    fn endpoint(&mut self, endpoint: Option<SocketAddr>) {
        if let Some(endpoint) = endpoint {
            self.text("network.peer.address", &endpoint.ip().to_string());
            self.number("network.peer.port", i64::from(endpoint.port()));
            self.text("weft.endpoint", &endpoint.to_string());
        }
    }

    fn edge(&mut self, labels: &EdgeLabels) {
        self.known("weft.route", labels.route.as_str());
        self.known("weft.destination.service", labels.service.as_str());
        self.known("weft.source.workload", labels.source.workload.as_str());
        self.known("weft.source.namespace", labels.source.namespace.as_str());
        self.known("weft.destination.workload", labels.destination.workload.as_str());
        self.known("weft.destination.namespace", labels.destination.namespace.as_str());
        self.identity("weft.source.identity", labels.source.identity.as_ref());
        self.identity("weft.destination.identity", labels.destination.identity.as_ref());
        self.text("weft.security", labels.security.name());
    }
}

/// Source: gRPC core, `doc/statuscodes.md`.
fn grpc_name(code: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("_OTHER")
}
