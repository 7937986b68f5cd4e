//! Turns compiled resources into the wire's messages and their bytes.
//!
//! Before it: `compile`, which knows no protobuf. After it: `publish` shares the bytes among all
//! subscribers.
//!
//! Invariant: field by field, nothing is decided; equal resources give equal bytes and versions.

mod policy;
mod route;
mod telemetry;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use prost::Message;
use weft_control_plane_core::config::{self, Resource};
use weft_control_plane_core::session::{Encoded, Version};
use weft_proto::v1;

/// Encodes a resource; its version is the first 16 bytes of the SHA-256 of its body.
pub fn encode(resource: &Resource) -> Encoded {
    let body = match resource {
        Resource::Mesh(it) => mesh(it).encode_to_vec(),
        Resource::Trust(it) => trust(it).encode_to_vec(),
        Resource::Inbound(it) => inbound(it).encode_to_vec(),
        Resource::Address(it) => address(it).encode_to_vec(),
        Resource::Outbound(it) => route::outbound(it).encode_to_vec(),
        Resource::Backend(it) => policy::backend(it).encode_to_vec(),
        Resource::Authorization(it) => policy::authorization(it).encode_to_vec(),
    };
    let hash = digest(&SHA256, &body);
    let mut version = Version::default();
    version.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    Encoded { version, body: body.into() }
}

/// A resource with its name as it travels; the body is shared, not copied.
pub fn resource(name: &config::Key, encoded: &Encoded) -> v1::Resource {
    v1::Resource {
        key: Some(key(name)),
        version: Bytes::copy_from_slice(&encoded.version),
        body: Bytes::from_owner(Shared(Arc::clone(&encoded.body))),
    }
}

/// Shared bytes, as [`Bytes`] wants its owners.
struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A kind as the wire numbers it.
pub fn resource_type(kind: config::ResourceType) -> v1::ResourceType {
    match kind {
        config::ResourceType::Mesh => v1::ResourceType::Mesh,
        config::ResourceType::Trust => v1::ResourceType::Trust,
        config::ResourceType::Inbound => v1::ResourceType::Inbound,
        config::ResourceType::Address => v1::ResourceType::Address,
        config::ResourceType::Outbound => v1::ResourceType::Outbound,
        config::ResourceType::Backend => v1::ResourceType::Backend,
        config::ResourceType::Authorization => v1::ResourceType::Authorization,
    }
}

/// A key as the wire carries it: without its scope.
pub fn key(key: &config::Key) -> v1::Key {
    v1::Key { r#type: resource_type(key.kind).into(), name: key.name.clone() }
}

/// A key from the wire; none: a kind that is not known here.
pub fn key_from(key: v1::Key) -> Option<config::Key> {
    let kind = match v1::ResourceType::try_from(key.r#type).ok()? {
        v1::ResourceType::Unspecified => return None,
        v1::ResourceType::Mesh => config::ResourceType::Mesh,
        v1::ResourceType::Trust => config::ResourceType::Trust,
        v1::ResourceType::Inbound => config::ResourceType::Inbound,
        v1::ResourceType::Address => config::ResourceType::Address,
        v1::ResourceType::Outbound => config::ResourceType::Outbound,
        v1::ResourceType::Backend => config::ResourceType::Backend,
        v1::ResourceType::Authorization => config::ResourceType::Authorization,
    };
    Some(config::Key::new(kind, key.name))
}

/// A span of time.
pub fn span(duration: std::time::Duration) -> v1::Span {
    v1::Span { nanos: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64) }
}

fn origin(it: &config::Origin) -> v1::Origin {
    v1::Origin { kind: it.kind.clone(), namespace: it.namespace.clone(), name: it.name.clone() }
}

fn mesh(it: &config::Mesh) -> v1::Mesh {
    let unknown_destination = match it.unknown_destination {
        config::UnknownDestination::PassThrough => v1::UnknownDestination::PassThrough,
        config::UnknownDestination::Refuse => v1::UnknownDestination::Refuse,
    };
    let access_log = access_log(it.access_log);
    v1::Mesh {
        trust_domain: it.trust_domain.clone(),
        unknown_destination: unknown_destination.into(),
        trace_sampling_ppm: it.trace_sampling_ppm,
        trace_per_second: it.trace_per_second,
        access_log: access_log.into(),
        drain_linger: Some(span(it.drain_linger)),
        drain_deadline: Some(span(it.drain_deadline)),
    }
}

fn access_log(it: config::AccessLog) -> v1::AccessLog {
    match it {
        config::AccessLog::Off => v1::AccessLog::Off,
        config::AccessLog::Errors => v1::AccessLog::Errors,
        config::AccessLog::All => v1::AccessLog::All,
    }
}

fn trust(it: &config::Trust) -> v1::Trust {
    v1::Trust {
        trust_domain: it.trust_domain.clone(),
        roots: it.roots.iter().map(|root| Bytes::copy_from_slice(root)).collect(),
    }
}

fn protocol(it: config::Protocol) -> i32 {
    match it {
        config::Protocol::Unspecified => v1::Protocol::Unspecified,
        config::Protocol::Http1 => v1::Protocol::Http1,
        config::Protocol::Http2 => v1::Protocol::Http2,
        config::Protocol::Tls => v1::Protocol::Tls,
        config::Protocol::Opaque => v1::Protocol::Opaque,
    }
    .into()
}

fn protocol_by(it: config::ProtocolBy) -> i32 {
    match it {
        config::ProtocolBy::Unsaid => v1::ProtocolBy::Unspecified,
        config::ProtocolBy::AppProtocol => v1::ProtocolBy::AppProtocol,
        config::ProtocolBy::Route => v1::ProtocolBy::Route,
        config::ProtocolBy::OpaquePorts => v1::ProtocolBy::OpaquePorts,
    }
    .into()
}

fn inbound(it: &config::Inbound) -> v1::Inbound {
    let port = |port: &config::InboundPort| v1::InboundPort {
        port: port.port.into(),
        protocol: protocol(port.protocol),
        mutual_tls: port.mutual_tls.map_or(v1::MutualTls::Unspecified, mutual_tls).into(),
        service_ports: port.service_ports.clone(),
        protocol_by: protocol_by(port.protocol_by),
    };
    v1::Inbound {
        workload: it.workload.clone(),
        namespace: it.namespace.clone(),
        service_account: it.service_account.clone(),
        mutual_tls: mutual_tls(it.mutual_tls).into(),
        mutual_tls_by: it.mutual_tls_by.clone(),
        ports: it.ports.iter().map(port).collect(),
        authorizations: it.authorizations.clone(),
        services: it.services.clone(),
        owner: it.owner.clone(),
        probes: it.probes.iter().map(probe).collect(),
        probe_sources: it.probe_sources.iter().map(ToString::to_string).collect(),
        telemetry: Some(telemetry::telemetry(&it.telemetry)),
    }
}

fn probe(it: &config::Probe) -> v1::Probe {
    use v1::probe::Kind;
    let kind = match &it.kind {
        config::ProbeKind::Http(target) => Kind::Http(v1::HttpProbe { target: target.clone() }),
        config::ProbeKind::Https => Kind::Https(v1::HttpsProbe {}),
        config::ProbeKind::Grpc(service) => Kind::Grpc(v1::GrpcProbe { service: service.clone() }),
        config::ProbeKind::Tcp => Kind::Tcp(v1::TcpProbe {}),
    };
    v1::Probe { port: it.port.into(), kind: Some(kind) }
}

fn mutual_tls(it: config::MutualTls) -> v1::MutualTls {
    match it {
        config::MutualTls::Permissive => v1::MutualTls::Permissive,
        config::MutualTls::Strict => v1::MutualTls::Strict,
    }
}

fn address(it: &config::Address) -> v1::Address {
    use v1::address::Target;
    let target = match it {
        config::Address::Outbound(name) => Target::Outbound(name.clone()),
        config::Address::Workload(workload) => Target::Workload(endpoint(workload)),
        config::Address::Unknown => Target::Unknown(v1::Unknown {}),
    };
    v1::Address { target: Some(target) }
}

fn endpoint(it: &config::Endpoint) -> v1::Endpoint {
    v1::Endpoint {
        address: it.address.clone(),
        workload: it.workload.clone(),
        identity: it.identity.clone(),
        zone: it.zone.clone(),
        weight: it.weight,
    }
}

#[cfg(test)]
mod tests;
