//! TelemetryPolicy: what workloads tell about their requests, and to whom.
//!
//! Invariant: every leaf is optional, and one that is absent inherits; a leaf is taken whole from one
//! policy, so that a collector never gets the headers that were meant for another.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration,
    mesh::AccessLog,
    target::{PolicyStatus, TargetRef},
};

/// What the targeted workloads tell about their requests: traces, access log, response headers. Each field
/// that is not set is that of the next policy that applies: workload before namespace before mesh, then the
/// older, then the lower name; then what the Mesh says; then the default.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "TelemetryPolicy",
    plural = "telemetrypolicies",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    category = "weft",
    shortname = "telp",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].kind","description":"Kind of the first target."}"#,
    printcolumn = r#"{"name":"Collector","type":"string","jsonPath":".spec.tracing.export.endpoint","description":"Where traces go, if this policy says so."}"#,
    printcolumn = r#"{"name":"Log","type":"string","jsonPath":".spec.accessLog.mode","description":"Which requests are logged, if this policy says so."}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status","description":"Whether it is in force at every target."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason","description":"Why, for machines."}"#,
    printcolumn = r#"{"name":"Sidecars","type":"integer","priority":1,"jsonPath":".status.sidecars.total","description":"Sidecars that it concerns."}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","priority":1,"jsonPath":".status.sidecars.applied","description":"Of these, those that run its newest version."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.targetRefs.all(target, target.kind != 'Service')")
        .message("a TelemetryPolicy targets workloads, a namespace or the mesh"),
    validation = Rule::new("has(self.tracing) || has(self.accessLog) || has(self.responseHeaders)")
        .message("a TelemetryPolicy says something of tracing, accessLog or responseHeaders")
)]
pub struct TelemetryPolicySpec {
    /// What the policy applies to: 1 to 16 targets of kind Workload, Namespace or Mesh.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Traces: where they go, and which are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSettings>,
    /// The access log: what is in it, and in which form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogSettings>,
    /// Whether every answer to a client outside the mesh's sidecars, or to the application, carries
    /// `weft-request-id`, and what a refusal does: `weft-reason` and `weft-flags`. Default: false; refusals
    /// carry the id and the reason anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<bool>,
}

/// Traces: where they go, and which are kept.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingSettings {
    /// The collector. It is taken whole: who names another collector names its headers and roots too.
    /// Default: none, and no trace is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<TraceExport>,
    /// Share of traces that start in a sidecar and are kept, percent, 0 to 100, e.g. 0.5. A caller's own
    /// decision comes first. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub sampling_percent: Option<f64>,
    /// Traces a second that each sidecar keeps of each service that is called, regardless of the share.
    /// Default: 1 where nothing says a share, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub per_second: Option<u32>,
    /// Refusals, resets and server errors a second of which each sidecar keeps a span although they are in no
    /// trace that is kept. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub errors_per_second: Option<u32>,
    /// Attributes that spans get from header fields of the request, at most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub attributes: Option<Vec<FromHeader>>,
    /// Whether requests of an application that passes on no trace fields become children of the one request
    /// that it has in flight, if it has exactly one. A guess, and marked as one: `weft.trace.guessed`.
    /// Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_single_flight: Option<bool>,
}

/// A collector of traces.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.caBundle) == self.endpoint.startsWith('https://')")
        .message("caBundle goes with an endpoint that begins with https://, and only with one"),
    validation = Rule::new("(has(self.protocol) && self.protocol != 'OtlpGrpc') || self.endpoint.matches('^https?://[^/]*/?$')")
        .message("an endpoint of OtlpGrpc has no path"),
    validation = Rule::new("!has(self.timeout) || duration(self.timeout) > duration('0s')")
        .message("timeout is 0s; write a longer time")
)]
pub struct TraceExport {
    /// Its URL, `http://` or `https://`, e.g. `http://jaeger.observability:4317`. Without a path it gets the
    /// protocol's own: `/v1/traces` for OtlpHttp, `/api/v2/spans` for Zipkin.
    #[schemars(length(max = 2048), regex(pattern = ENDPOINT))]
    pub endpoint: String,
    /// What it takes. Default: OtlpGrpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<TraceProtocol>,
    /// Header fields that go with every message, e.g. a key; at most 16. Whoever may read this object reads
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub headers: Vec<ExportHeader>,
    /// Certificates (PEM) of the authorities that the collector's own is verified by. Required with
    /// `https://`: an image of a sidecar holds no authorities of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536), regex(pattern = PEM))]
    pub ca_bundle: Option<String>,
    /// How long one message may take. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// What a collector takes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum TraceProtocol {
    /// OpenTelemetry's protocol over gRPC.
    #[default]
    OtlpGrpc,
    /// OpenTelemetry's protocol over HTTP, in protobuf.
    OtlpHttp,
    /// Zipkin's JSON, version 2.
    Zipkin,
}

/// A header field of messages to a collector.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = FIELD))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096), regex(pattern = VALUE))]
    pub value: String,
}

/// Something that is taken from a header field of the request.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(self.header.lowerAscii() in ['authorization', 'proxy-authorization', 'cookie', 'set-cookie'])")
    .message("a header field that holds a secret is never told"))]
pub struct FromHeader {
    /// What it is called, e.g. `app.tenant`.
    #[schemars(length(min = 1, max = 128), regex(pattern = ATTRIBUTE))]
    pub name: String,
    /// The header field; one that holds a secret (authorization, cookie) is refused.
    #[schemars(length(min = 1, max = 256), regex(pattern = FIELD))]
    pub header: String,
}

/// The access log.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLogSettings {
    /// Which requests are written. Off: none. Errors: refusals, resets and server errors. All: every request
    /// and connection. Default: Errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccessLog>,
    /// Share of those lines that is written, percent, 0 to 100; errors are written always. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub sampling_percent: Option<f64>,
    /// The names of a line's fields. Weft: Weft's own. Ecs: those of the Elastic Common Schema. Default: Weft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
    /// Names of query parameters whose values may be written, at most 32; all others are masked. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub query: Option<Vec<String>>,
    /// Fields that lines get from header fields of the request, at most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub headers: Option<Vec<FromHeader>>,
}

/// The names of a line's fields.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum LogFormat {
    /// Weft's own.
    #[default]
    Weft,
    /// Those of the Elastic Common Schema.
    Ecs,
}

/// A URL without user, query and fragment. Source: RFC 3986; credentials go in header fields.
const ENDPOINT: &str = r"^https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?$";
/// Certificates as text. Source: RFC 7468.
const PEM: &str = r"^\s*-----BEGIN CERTIFICATE-----";
/// A field's name. Source: RFC 9110 §5.6.2.
const FIELD: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
/// A field's value: visible characters, and blanks between them. Source: RFC 9110 §5.5.
const VALUE: &str = r"^[!-~]([ !-~]*[!-~])?$";
/// An attribute's name. Source: OpenTelemetry's naming: words in lower case, with dots and underscores.
const ATTRIBUTE: &str = r"^[A-Za-z_][A-Za-z0-9_.-]*$";
