//! What this workload tells about its requests, as written.
//!
//! Adopt decodes it as a part of the Inbound; the exporter, the sampler and the access log follow it.
//!
//! Invariant: what is `None` was set nowhere; whoever uses it holds the default.

use std::sync::Arc;
use std::time::Duration;

use crate::names::Name;
use crate::spec::AccessLog;

/// What a workload tells about its requests, of all policies and the Mesh together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Collector of traces.
    pub trace_export: Option<TraceExport>,
    /// Share of traces that start here and are kept, in parts per million.
    pub trace_sampling_ppm: Option<u32>,
    /// Traces a second of each called service that are kept regardless of the share.
    pub trace_per_second: Option<u32>,
    /// Refusals and errors a second of which a span is kept outside of kept traces.
    pub trace_errors_per_second: Option<u32>,
    /// Attributes of spans.
    pub trace_attributes: Vec<FromHeader>,
    /// Whether requests without trace fields join the one that the application has in flight.
    pub trace_join_single_flight: bool,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// Share of lines that is written, in parts per million; errors are written always. `None`: all.
    pub access_log_sampling_ppm: Option<u32>,
    /// The names of a line's fields.
    pub access_log_format: LogFormat,
    /// Query parameters whose values may be written.
    pub access_log_query: Vec<Arc<str>>,
    /// Fields of lines.
    pub access_log_headers: Vec<FromHeader>,
    /// Whether every answer tells the request's id, and why it was refused.
    pub response_headers: bool,
    /// What says so, in order of precedence: `<namespace>/<name>` of policies, `mesh/<name>`.
    pub by: Vec<Name>,
    /// Node that the workload runs on; empty: unknown.
    pub node: Arc<str>,
    /// Its zone; empty: unknown.
    pub zone: Arc<str>,
    /// The workload's version; empty: unknown.
    pub version: Arc<str>,
}

/// A collector of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceExport {
    /// Its URL, http or https.
    pub endpoint: Arc<str>,
    /// What it takes.
    pub protocol: TraceProtocol,
    /// Header fields that go with every message.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Certificates (PEM) of its authorities; empty: none.
    pub ca_bundle: Arc<str>,
    /// How long one message may take; `None`: the default.
    pub timeout: Option<Duration>,
}

/// What a collector takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceProtocol {
    /// OpenTelemetry's protocol over gRPC.
    #[default]
    OtlpGrpc,
    /// OpenTelemetry's protocol over HTTP, in protobuf.
    OtlpHttp,
    /// Zipkin's JSON, version 2.
    Zipkin,
}

/// Something that is taken from a header field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromHeader {
    /// What it is called.
    pub name: Arc<str>,
    /// The header field, lower case.
    pub header: http::HeaderName,
}

/// The names of a line's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Weft's own.
    #[default]
    Weft,
    /// Those of the Elastic Common Schema.
    Ecs,
}
