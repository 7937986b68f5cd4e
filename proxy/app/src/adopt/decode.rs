//! From the wire to the core's words: bytes of one resource → `proxy/core`'s spec, or the reason why
//! not. Routes are read in `route`, policies in `policy`.
//!
//! Stands in the configuration's walk inside *adopt*: subscribe → **decode** → compile → snapshot.
//!
//! Invariant: an enum value or a choice that this version does not know is refused, never guessed.
//! Invariant: nothing here depends on what else the sidecar holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rustls_pki_types::CertificateDer;
use weft_proto::names::{BadName, ServicePort, SpiffeId, Workload};
use weft_proto::v1;
use weft_proxy_core::{Identity, Invalid, Name, WorkloadName, spec};

use super::key::{Key, Kind};
use super::route::each;
use super::telemetry::telemetry;
use super::{policy, route};

/// The roots of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The trust domain.
    pub trust_domain: String,
    /// Root certificates, never empty, each a well-formed certificate.
    pub roots: Vec<CertificateDer<'static>>,
}

/// One resource in the core's words, not compiled yet.
#[derive(Debug)]
pub(super) enum Decoded {
    Mesh(spec::Mesh),
    Trust(Trust),
    Inbound(spec::Inbound),
    Address(AddressTarget),
    Outbound(spec::Outbound),
    Backend(spec::Backend),
    Authorization(spec::Authorization),
}

/// What an address means, not compiled yet.
#[derive(Debug)]
pub(super) enum AddressTarget {
    Outbound(Name),
    Workload(spec::Endpoint),
    Unknown,
}

pub(super) type Read<T> = Result<T, Invalid>;

/// Reads the body of the resource `key`.
pub(super) fn decode(key: &Key, body: &Bytes) -> Read<Decoded> {
    let decoded = match key.kind {
        Kind::Mesh => Decoded::Mesh(mesh(message(body)?)?),
        Kind::Trust => Decoded::Trust(trust(message(body)?)?),
        Kind::Inbound => Decoded::Inbound(inbound(message(body)?)?),
        Kind::Address => Decoded::Address(address(message(body)?)?),
        Kind::Outbound => Decoded::Outbound(route::outbound(message(body)?)?),
        Kind::Backend => Decoded::Backend(policy::backend(message(body)?)?),
        Kind::Authorization => Decoded::Authorization(policy::authorization(message(body)?)?),
    };
    check_name(key, &decoded)?;
    Ok(decoded)
}

fn message<M: Message + Default>(body: &Bytes) -> Read<M> {
    M::decode(body.clone()).map_err(|error| Invalid::new("body", format!("malformed: {error}")))
}

/// A body under another resource's name would be found under the wrong key, or never.
fn check_name(key: &Key, decoded: &Decoded) -> Read<()> {
    let own = match decoded {
        Decoded::Mesh(_) => "mesh".to_owned(),
        Decoded::Trust(trust) => trust.trust_domain.clone(),
        Decoded::Inbound(inbound) => inbound.workload.to_string(),
        Decoded::Outbound(outbound) => format!("{}:{}", outbound.service, outbound.port),
        Decoded::Backend(backend) => format!("{}:{}", backend.service, backend.port),
        Decoded::Authorization(policy) => format!("{}/{}", policy.origin.namespace, policy.origin.name),
        // The body of an address does not repeat it; the name itself must be one.
        Decoded::Address(_) => {
            return key.name.parse::<SocketAddr>().map(drop).map_err(|_| not_socket("name", &key.name));
        }
    };
    if own == key.name {
        Ok(())
    } else {
        Err(Invalid::new("name", format!("the resource is named {:?} but its body says {own:?}", key.name)))
    }
}

fn mesh(wire: v1::Mesh) -> Read<spec::Mesh> {
    let default = spec::Mesh::default();
    let unknown_destination = match known("unknown_destination", wire.unknown_destination)? {
        v1::UnknownDestination::Unspecified | v1::UnknownDestination::PassThrough => {
            spec::UnknownDestination::PassThrough
        }
        v1::UnknownDestination::Refuse => spec::UnknownDestination::Refuse,
    };
    let access_log = access_log(wire.access_log)?;
    if wire.trace_sampling_ppm > 1_000_000 {
        return Err(Invalid::new("trace_sampling_ppm", "more than 1000000 parts per million"));
    }
    let trust_domain =
        if wire.trust_domain.is_empty() { default.trust_domain } else { Arc::from(wire.trust_domain) };
    Ok(spec::Mesh {
        trust_domain,
        unknown_destination,
        trace_sampling_ppm: wire.trace_sampling_ppm,
        trace_per_second: wire.trace_per_second,
        access_log,
        drain_linger: span("drain_linger", wire.drain_linger)?.unwrap_or(default.drain_linger),
        drain_deadline: span("drain_deadline", wire.drain_deadline)?.unwrap_or(default.drain_deadline),
    })
}

/// Reads what is logged.
pub(super) fn access_log(wire: i32) -> Read<spec::AccessLog> {
    Ok(match known("access_log", wire)? {
        v1::AccessLog::Unspecified | v1::AccessLog::Errors => spec::AccessLog::Errors,
        v1::AccessLog::Off => spec::AccessLog::Off,
        v1::AccessLog::All => spec::AccessLog::All,
    })
}

/// Reads a trust bundle.
pub(crate) fn trust(wire: v1::Trust) -> Read<Trust> {
    if wire.roots.is_empty() {
        return Err(Invalid::new("roots", "none: nobody could be trusted"));
    }
    if !weft_proto::names::is_subdomain(&wire.trust_domain) {
        return Err(Invalid::new("trust_domain", format!("{:?} is not a DNS name", wire.trust_domain)));
    }
    let root = |(at, der): (usize, Bytes)| {
        let der = CertificateDer::from(der.to_vec());
        webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| Invalid::new(format!("roots[{at}]"), format!("not a certificate: {error}")))?;
        Ok(der)
    };
    let roots = wire.roots.into_iter().enumerate().map(root).collect::<Read<_>>()?;
    Ok(Trust { trust_domain: wire.trust_domain, roots })
}

fn inbound(wire: v1::Inbound) -> Read<spec::Inbound> {
    let workload = workload("workload", &wire.workload)?;
    if !weft_proto::names::is_label(&wire.namespace) {
        return Err(Invalid::new("namespace", format!("{:?} is not a DNS label", wire.namespace)));
    }
    let port = |(at, wire): (usize, v1::InboundPort)| {
        inbound_port(wire).map_err(|invalid| invalid.within(&format!("ports[{at}]")))
    };
    Ok(spec::Inbound {
        workload,
        namespace: Arc::from(wire.namespace),
        service_account: Arc::from(wire.service_account),
        mutual_tls: mutual_tls("mutual_tls", wire.mutual_tls)?.unwrap_or_default(),
        mutual_tls_by: (!wire.mutual_tls_by.is_empty()).then(|| Name::from(wire.mutual_tls_by)),
        ports: wire.ports.into_iter().enumerate().map(port).collect::<Read<_>>()?,
        authorizations: wire.authorizations.into_iter().map(Name::from).collect(),
        services: wire.services.into_iter().map(Name::from).collect(),
        owner: Arc::from(wire.owner),
        probes: each("probes", wire.probes, probe)?,
        probe_sources: each("probe_sources", wire.probe_sources, |text| {
            text.parse().map_err(|_| Invalid::new("", format!("{text:?} is not an IP address")))
        })?,
        telemetry: wire.telemetry.map(telemetry).transpose()?.map(Arc::new),
    })
}

fn probe(wire: v1::Probe) -> Read<spec::Probe> {
    use v1::probe::Kind;
    let kind = match wire.kind {
        Some(Kind::Http(http)) if !http.target.starts_with('/') => {
            return Err(Invalid::new("http.target", format!("{:?} does not begin with /", http.target)));
        }
        Some(Kind::Http(http)) => spec::ProbeKind::Http { target: Arc::from(http.target) },
        Some(Kind::Https(_)) => spec::ProbeKind::Https,
        Some(Kind::Grpc(grpc)) => spec::ProbeKind::Grpc { service: Arc::from(grpc.service) },
        Some(Kind::Tcp(_)) => spec::ProbeKind::Tcp,
        None => return Err(not_known("kind")),
    };
    Ok(spec::Probe { port: port("port", wire.port)?, kind })
}

fn inbound_port(wire: v1::InboundPort) -> Read<spec::InboundPort> {
    Ok(spec::InboundPort {
        port: port("port", wire.port)?,
        protocol: protocol("protocol", wire.protocol)?,
        protocol_by: protocol_by(wire.protocol_by),
        mutual_tls: mutual_tls("mutual_tls", wire.mutual_tls)?,
        service_ports: wire.service_ports.into_iter().map(Name::from).collect(),
    })
}

/// What declares a protocol. It changes no decision, so what is not known is taken for nothing.
pub(super) fn protocol_by(wire: i32) -> spec::ProtocolBy {
    match v1::ProtocolBy::try_from(wire) {
        Ok(v1::ProtocolBy::Unspecified) | Err(_) => spec::ProtocolBy::Unsaid,
        Ok(v1::ProtocolBy::AppProtocol) => spec::ProtocolBy::AppProtocol,
        Ok(v1::ProtocolBy::Route) => spec::ProtocolBy::Route,
        Ok(v1::ProtocolBy::OpaquePorts) => spec::ProtocolBy::OpaquePorts,
    }
}

fn mutual_tls(field: &str, wire: i32) -> Read<Option<spec::MutualTls>> {
    Ok(match known(field, wire)? {
        v1::MutualTls::Unspecified => None,
        v1::MutualTls::Permissive => Some(spec::MutualTls::Permissive),
        v1::MutualTls::Strict => Some(spec::MutualTls::Strict),
    })
}

fn address(wire: v1::Address) -> Read<AddressTarget> {
    use v1::address::Target;
    match wire.target {
        Some(Target::Outbound(name)) => Ok(AddressTarget::Outbound(service_port("outbound", &name)?)),
        Some(Target::Workload(wire)) => {
            Ok(AddressTarget::Workload(endpoint(wire).map_err(|invalid| invalid.within("workload"))?))
        }
        Some(Target::Unknown(_)) => Ok(AddressTarget::Unknown),
        None => Err(not_known("target")),
    }
}

/// Reads one endpoint.
pub(super) fn endpoint(wire: v1::Endpoint) -> Read<spec::Endpoint> {
    let identity = match wire.identity.as_str() {
        "" => None,
        text => Some(identity("identity", text)?),
    };
    let workload = match wire.workload.as_str() {
        "" => None,
        text => Some(workload("workload", text)?),
    };
    Ok(spec::Endpoint {
        address: wire.address.parse().map_err(|_| not_socket("address", &wire.address))?,
        workload,
        identity,
        zone: Arc::from(wire.zone),
        weight: wire.weight,
    })
}

/// An enum value that this version knows.
pub(super) fn known<E: TryFrom<i32>>(field: &str, wire: i32) -> Read<E> {
    E::try_from(wire).map_err(|_| {
        Invalid::new(field, format!("value {wire} is not known to sidecar {}", env!("CARGO_PKG_VERSION")))
    })
}

/// A choice whose case is absent: not sent, or of a kind that a later version added.
pub(super) fn not_known(field: &str) -> Invalid {
    Invalid::new(field, format!("absent, or of a kind not known to sidecar {}", env!("CARGO_PKG_VERSION")))
}

pub(super) fn protocol(field: &str, wire: i32) -> Read<spec::Protocol> {
    Ok(match known(field, wire)? {
        v1::Protocol::Unspecified => spec::Protocol::Detect,
        v1::Protocol::Http1 => spec::Protocol::Http1,
        v1::Protocol::Http2 => spec::Protocol::Http2,
        v1::Protocol::Tls => spec::Protocol::Tls,
        v1::Protocol::Opaque => spec::Protocol::Opaque,
    })
}

pub(super) fn span(field: &str, wire: Option<v1::Span>) -> Read<Option<Duration>> {
    match wire {
        Some(v1::Span { nanos }) if nanos > i64::MAX as u64 => {
            Err(Invalid::new(field, "longer than 2^63-1 nanoseconds"))
        }
        span => Ok(span.map(|span| Duration::from_nanos(span.nanos))),
    }
}

pub(super) fn port(field: &str, wire: u32) -> Read<u16> {
    u16::try_from(wire)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Invalid::new(field, format!("{wire} is not a port, 1 to 65535")))
}

pub(super) fn service_port(field: &str, text: &str) -> Read<Name> {
    text.parse::<ServicePort>().map(|_| Name::from(text)).map_err(|bad| bad_name(field, &bad))
}

/// A service, `<namespace>/<service>`.
pub(super) fn service(field: &str, text: String) -> Read<Name> {
    let is_service = text.split_once('/').is_some_and(|(namespace, service)| {
        weft_proto::names::is_label(namespace) && weft_proto::names::is_label(service)
    });
    if is_service {
        Ok(Name::from(text))
    } else {
        Err(Invalid::new(field, format!("{text:?} is not a service (namespace/service)")))
    }
}

fn workload(field: &str, text: &str) -> Read<WorkloadName> {
    text.parse::<Workload>().map(|_| WorkloadName::from(text)).map_err(|bad| bad_name(field, &bad))
}

fn identity(field: &str, text: &str) -> Read<Identity> {
    text.parse::<SpiffeId>().map_err(|bad| bad_name(field, &bad))?;
    Identity::parse(text).map_err(|error| Invalid::new(field, error.to_string()))
}

fn bad_name(field: &str, bad: &BadName) -> Invalid {
    Invalid::new(field, bad.to_string())
}

fn not_socket(field: &str, text: &str) -> Invalid {
    Invalid::new(field, format!("{text:?} is not an address (ip:port, IPv6 in brackets)"))
}

/// Where something was written; always sent with a route and a policy.
pub(super) fn origin(wire: Option<v1::Origin>) -> Read<spec::Origin> {
    let wire = wire.ok_or_else(|| Invalid::new("origin", "absent"))?;
    Ok(spec::Origin {
        kind: Arc::from(wire.kind),
        namespace: Arc::from(wire.namespace),
        name: Arc::from(wire.name),
    })
}
