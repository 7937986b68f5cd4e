//! Spans as Zipkin's JSON, version 2.
//!
//! Used by `collector` on the chores thread.
//!
//! Invariant: what a span holds as OpenTelemetry's is in it: attributes and status as tags, events as
//! annotations.
//
// Source: Zipkin's API 2.0.0; OpenTelemetry's mapping of spans to Zipkin's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;

use super::origin::Origin;

/// One message.
///
/// # Errors
/// None that these types can lead to.
pub(super) fn body(batch: &[SpanData], origin: &Origin) -> serde_json::Result<Vec<u8>> {
    let spans: Vec<Span<'_>> = batch.iter().map(|data| span(data, origin)).collect();
    serde_json::to_vec(&spans)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    timestamp: u64,
    duration: u64,
    local_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation<'a>>,
    tags: BTreeMap<&'a str, String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Annotation<'a> {
    timestamp: u64,
    value: &'a str,
}

fn span<'a>(data: &'a SpanData, origin: &'a Origin) -> Span<'a> {
    let mut tags: BTreeMap<&str, String> =
        origin.attributes().map(|(key, value)| (key, value.to_owned())).collect();
    tags.extend(data.attributes.iter().map(|one| (one.key.as_str(), one.value.to_string())));
    if let Status::Error { description } = &data.status {
        tags.insert("otel.status_code", "ERROR".to_owned());
        let kind = tags.get("error.type").cloned();
        tags.insert("error", kind.unwrap_or_else(|| description.to_string()));
    }
    let events = data.events.events.iter();
    let duration = data.end_time.duration_since(data.start_time).unwrap_or_default();
    Span {
        trace_id: data.span_context.trace_id().to_string(),
        id: data.span_context.span_id().to_string(),
        parent_id: (data.parent_span_id != SpanId::INVALID).then(|| data.parent_span_id.to_string()),
        name: &data.name,
        kind: match data.span_kind {
            SpanKind::Client => Some("CLIENT"),
            SpanKind::Server => Some("SERVER"),
            SpanKind::Producer => Some("PRODUCER"),
            SpanKind::Consumer => Some("CONSUMER"),
            SpanKind::Internal => None,
        },
        timestamp: since_epoch(data.start_time),
        // Zipkin takes 0 for unknown.
        duration: micros(duration).max(1),
        local_endpoint: Endpoint { service_name: Some(origin.service()), ..Endpoint::default() },
        remote_endpoint: remote(&data.attributes),
        annotations: events
            .map(|event| Annotation { timestamp: since_epoch(event.timestamp), value: &event.name })
            .collect(),
        tags,
    }
}

/// The other side, where its address is known.
fn remote(attributes: &[KeyValue]) -> Option<Endpoint<'static>> {
    let find = |key: &'static str| attributes.iter().find(|one| one.key == Key::from_static_str(key));
    let address: IpAddr = find("network.peer.address")?.value.as_str().parse().ok()?;
    let port = find("network.peer.port").and_then(|port| port.value.as_str().parse().ok());
    Some(match address {
        IpAddr::V4(address) => Endpoint { ipv4: Some(address.to_string()), port, ..Endpoint::default() },
        IpAddr::V6(address) => Endpoint { ipv6: Some(address.to_string()), port, ..Endpoint::default() },
    })
}

fn since_epoch(time: SystemTime) -> u64 {
    micros(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
