//! What the workload tells about its requests: from the wire to the core's words.
//!
//! Stands in the configuration's walk inside *adopt*, as a part of the Inbound.
//!
//! Invariant: an enum value that this version does not know is refused, never guessed. Whether a collector
//! can be reached as written shows when it is used, and never keeps an Inbound from being taken.

use std::sync::Arc;

use http::HeaderName;
use weft_proto::v1;
use weft_proxy_core::{Invalid, Name, spec};

use super::decode::{Read, access_log, known, span};
use super::route::each;

/// Reads what a workload tells.
pub(super) fn telemetry(wire: v1::Telemetry) -> Read<spec::Telemetry> {
    let share = |field: &'static str, ppm: Option<u32>| match ppm {
        Some(ppm) if ppm > 1_000_000 => Err(Invalid::new(field, "more than 1000000 parts per million")),
        ppm => Ok(ppm),
    };
    let format = match known("access_log_format", wire.access_log_format)? {
        v1::LogFormat::Unspecified | v1::LogFormat::Weft => spec::LogFormat::Weft,
        v1::LogFormat::Ecs => spec::LogFormat::Ecs,
    };
    Ok(spec::Telemetry {
        trace_export: wire
            .trace_export
            .map(export)
            .transpose()
            .map_err(|invalid| invalid.within("trace_export"))?,
        trace_sampling_ppm: share("trace_sampling_ppm", wire.trace_sampling_ppm)?,
        trace_per_second: wire.trace_per_second,
        trace_errors_per_second: wire.trace_errors_per_second,
        trace_attributes: each("trace_attributes", wire.trace_attributes, from_header)?,
        trace_join_single_flight: wire.trace_join_single_flight,
        access_log: access_log(wire.access_log)?,
        access_log_sampling_ppm: share("access_log_sampling_ppm", wire.access_log_sampling_ppm)?,
        access_log_format: format,
        access_log_query: wire.access_log_query.into_iter().map(Arc::from).collect(),
        access_log_headers: each("access_log_headers", wire.access_log_headers, from_header)?,
        response_headers: wire.response_headers,
        by: wire.by.into_iter().map(Name::from).collect(),
        node: Arc::from(wire.node),
        zone: Arc::from(wire.zone),
        version: Arc::from(wire.version),
    })
}

fn export(wire: v1::TraceExport) -> Read<spec::TraceExport> {
    let protocol = match known("protocol", wire.protocol)? {
        v1::TraceProtocol::Unspecified | v1::TraceProtocol::OtlpGrpc => spec::TraceProtocol::OtlpGrpc,
        v1::TraceProtocol::OtlpHttp => spec::TraceProtocol::OtlpHttp,
        v1::TraceProtocol::Zipkin => spec::TraceProtocol::Zipkin,
    };
    let header = |header: v1::ExportHeader| (Arc::from(header.name), Arc::from(header.value));
    Ok(spec::TraceExport {
        endpoint: Arc::from(wire.endpoint),
        protocol,
        headers: wire.headers.into_iter().map(header).collect(),
        ca_bundle: Arc::from(wire.ca_bundle),
        timeout: span("timeout", wire.timeout)?,
    })
}

fn from_header(wire: v1::FromHeader) -> Read<spec::FromHeader> {
    let header = HeaderName::try_from(&wire.header)
        .map_err(|_| Invalid::new("header", format!("{:?} is not a field's name", wire.header)))?;
    Ok(spec::FromHeader { name: Arc::from(wire.name), header })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_field_by_field_and_unknown_values_are_refused_by_name() {
        let export = v1::TraceExport {
            endpoint: "http://jaeger:4317".into(),
            protocol: v1::TraceProtocol::Zipkin.into(),
            headers: vec![v1::ExportHeader { name: "x-key".into(), value: "k".into() }],
            timeout: Some(v1::Span { nanos: 7 }),
            ..Default::default()
        };
        let wire = v1::Telemetry {
            trace_export: Some(export.clone()),
            trace_per_second: Some(0),
            trace_attributes: vec![v1::FromHeader { name: "t".into(), header: "x-tenant".into() }],
            access_log: v1::AccessLog::All.into(),
            access_log_format: v1::LogFormat::Ecs.into(),
            by: vec!["shop/t".into()],
            ..Default::default()
        };
        let read = telemetry(wire.clone()).unwrap();
        let collector = read.trace_export.unwrap();
        assert_eq!(collector.protocol, spec::TraceProtocol::Zipkin);
        assert_eq!(collector.timeout, Some(std::time::Duration::from_nanos(7)));
        assert_eq!((read.trace_per_second, read.trace_sampling_ppm), (Some(0), None));
        assert_eq!(read.trace_attributes[0].header, "x-tenant");
        assert_eq!((read.access_log, read.access_log_format), (spec::AccessLog::All, spec::LogFormat::Ecs));
        let refused = |wire: v1::Telemetry| telemetry(wire).unwrap_err().to_string();
        let odd = v1::TraceExport { protocol: 99, ..export };
        let said = refused(v1::Telemetry { trace_export: Some(odd), ..wire.clone() });
        assert!(said.contains("trace_export, protocol") && said.contains("99"), "{said}");
        let field = vec![v1::FromHeader { name: "t".into(), header: "not a field".into() }];
        let said = refused(v1::Telemetry { trace_attributes: field, ..wire.clone() });
        assert!(said.contains("trace_attributes[0], header"), "{said}");
        let said = refused(v1::Telemetry { trace_sampling_ppm: Some(1_000_001), ..wire });
        assert!(said.contains("trace_sampling_ppm"), "{said}");
    }
}
