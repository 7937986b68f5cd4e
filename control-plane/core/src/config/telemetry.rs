//! What a workload tells about its requests, as `weft/v1/config.proto` names and numbers it.
//!
//! Where it stands: *compile* fills these, the application's *serve* step copies them to the wire.
//!
//! Invariant: one struct a message, one field a field. What is absent stays absent: the sidecar holds the
//! defaults.

use std::time::Duration;

use super::AccessLog;

/// What one workload tells about its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Collector of traces.
    pub trace_export: Option<TraceExport>,
    /// Share of traces that start here and are kept, in parts per million.
    pub trace_sampling_ppm: Option<u32>,
    /// Traces a second that each sidecar keeps of each service that is called.
    pub trace_per_second: Option<u32>,
    /// Refusals and errors a second of which a span is kept outside of kept traces.
    pub trace_errors_per_second: Option<u32>,
    /// Attributes of spans, from header fields.
    pub trace_attributes: Vec<FromHeader>,
    /// Whether requests join the one in flight.
    pub trace_join_single_flight: bool,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// Share of lines that is written, in parts per million.
    pub access_log_sampling_ppm: Option<u32>,
    /// The names of a line's fields.
    pub access_log_format: LogFormat,
    /// Query parameters whose values may be written.
    pub access_log_query: Vec<String>,
    /// Fields of lines, from header fields.
    pub access_log_headers: Vec<FromHeader>,
    /// Whether every answer tells the request's id, and why it was refused.
    pub response_headers: bool,
    /// What says so, in order of precedence: "namespace/name" of policies, "mesh/name".
    pub by: Vec<String>,
    /// Node that the workload runs on; empty: unknown.
    pub node: String,
    /// Its zone; empty: unknown.
    pub zone: String,
    /// The workload's version; empty: unknown.
    pub version: String,
}

/// A collector of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceExport {
    /// Its URL.
    pub endpoint: String,
    /// What it takes.
    pub protocol: TraceProtocol,
    /// Header fields that go with every message: name and value.
    pub headers: Vec<(String, String)>,
    /// Certificates (PEM) of its authorities; empty: none.
    pub ca_bundle: String,
    /// How long one message may take; absent: the default.
    pub timeout: Option<Duration>,
}

/// What a collector takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceProtocol {
    /// OpenTelemetry's protocol over gRPC.
    OtlpGrpc,
    /// OpenTelemetry's protocol over HTTP.
    OtlpHttp,
    /// Zipkin's JSON, version 2.
    Zipkin,
}

/// Something that is taken from a header field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromHeader {
    /// What it is called.
    pub name: String,
    /// The header field, in lower case.
    pub header: String,
}

/// The names of a line's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Weft's own.
    Weft,
    /// Those of the Elastic Common Schema.
    Ecs,
}
