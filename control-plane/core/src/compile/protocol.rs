//! What a service port speaks, by its `appProtocol`.
//!
//! Where it stands: *compile*, for Outbound, Backend and Inbound, before routes have their say.
//!
//! Invariant: what is not known is left to detection, and said so.

use crate::{
    config::{Protocol, ProtocolBy},
    model::{Service, ServicePort},
    report::Report,
};

/// The declared protocol; unspecified: none, or one that is not known.
pub(super) fn declared(port: &ServicePort) -> Protocol {
    port.app_protocol.as_deref().and_then(known).unwrap_or_default()
}

/// What says that a port speaks a protocol, which is one that came of its declaration, of its pods'
/// annotations and of the routes that are attached.
pub(super) fn by(port: &ServicePort, spoken: Protocol) -> ProtocolBy {
    match spoken {
        Protocol::Unspecified => ProtocolBy::Unsaid,
        spoken if spoken == declared(port) => ProtocolBy::AppProtocol,
        Protocol::Opaque => ProtocolBy::OpaquePorts,
        Protocol::Http1 | Protocol::Http2 | Protocol::Tls => ProtocolBy::Route,
    }
}

/// Whether HTTP can be sent to such a port: not where the application has its own TLS or its own
/// protocol.
pub(super) fn serves_http(port: &ServicePort) -> bool {
    !matches!(declared(port), Protocol::Tls | Protocol::Opaque)
}

/// Says which declarations of a service are not known.
pub(super) fn warn_unknown(service: &Service, report: &mut Report) {
    for port in service.tcp_ports() {
        if let Some(text) = port.app_protocol.as_deref().filter(|text| known(text).is_none()) {
            let number = port.port;
            report.warn(
                &service.meta,
                format!("port {number}: appProtocol {text:?} is not known; the protocol is detected"),
            );
        }
    }
}

fn known(app_protocol: &str) -> Option<Protocol> {
    PROTOCOLS.iter().find(|(name, _)| app_protocol.eq_ignore_ascii_case(name)).map(|(_, protocol)| *protocol)
}

/// Source: KEP-3726 (kubernetes.io/…), IANA service names, and the names Istio documents.
const PROTOCOLS: &[(&str, Protocol)] = &[
    ("http", Protocol::Http1),
    ("kubernetes.io/ws", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("h2c", Protocol::Http2),
    ("kubernetes.io/h2c", Protocol::Http2),
    ("grpc", Protocol::Http2),
    ("https", Protocol::Tls),
    ("kubernetes.io/wss", Protocol::Tls),
    ("tls", Protocol::Tls),
    ("tcp", Protocol::Opaque),
    ("mysql", Protocol::Opaque),
    ("postgres", Protocol::Opaque),
    ("postgresql", Protocol::Opaque),
    ("redis", Protocol::Opaque),
    ("kafka", Protocol::Opaque),
    ("amqp", Protocol::Opaque),
    ("smtp", Protocol::Opaque),
    ("mongo", Protocol::Opaque),
    ("mongodb", Protocol::Opaque),
];
