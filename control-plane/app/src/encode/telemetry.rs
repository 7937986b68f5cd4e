//! What a workload tells about its requests, as the wire carries it.
//!
//! Invariant: field by field, nothing is decided.

use weft_control_plane_core::config;
use weft_proto::v1;

use super::{access_log, span};

pub(super) fn telemetry(it: &config::Telemetry) -> v1::Telemetry {
    let format = match it.access_log_format {
        config::LogFormat::Weft => v1::LogFormat::Weft,
        config::LogFormat::Ecs => v1::LogFormat::Ecs,
    };
    v1::Telemetry {
        trace_export: it.trace_export.as_ref().map(export),
        trace_sampling_ppm: it.trace_sampling_ppm,
        trace_per_second: it.trace_per_second,
        trace_errors_per_second: it.trace_errors_per_second,
        trace_attributes: it.trace_attributes.iter().map(from_header).collect(),
        trace_join_single_flight: it.trace_join_single_flight,
        access_log: access_log(it.access_log).into(),
        access_log_sampling_ppm: it.access_log_sampling_ppm,
        access_log_format: format.into(),
        access_log_query: it.access_log_query.clone(),
        access_log_headers: it.access_log_headers.iter().map(from_header).collect(),
        response_headers: it.response_headers,
        by: it.by.clone(),
        node: it.node.clone(),
        zone: it.zone.clone(),
        version: it.version.clone(),
    }
}

fn export(it: &config::TraceExport) -> v1::TraceExport {
    let protocol = match it.protocol {
        config::TraceProtocol::OtlpGrpc => v1::TraceProtocol::OtlpGrpc,
        config::TraceProtocol::OtlpHttp => v1::TraceProtocol::OtlpHttp,
        config::TraceProtocol::Zipkin => v1::TraceProtocol::Zipkin,
    };
    let header =
        |(name, value): &(String, String)| v1::ExportHeader { name: name.clone(), value: value.clone() };
    v1::TraceExport {
        endpoint: it.endpoint.clone(),
        protocol: protocol.into(),
        headers: it.headers.iter().map(header).collect(),
        ca_bundle: it.ca_bundle.clone(),
        timeout: it.timeout.map(span),
    }
}

fn from_header(it: &config::FromHeader) -> v1::FromHeader {
    v1::FromHeader { name: it.name.clone(), header: it.header.clone() }
}
