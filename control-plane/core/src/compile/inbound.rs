//! Inbound: how each pod receives traffic.
//!
//! Where it stands: *compile*, after the services behind which the pods stand.
//!
//! Invariant: every pod that has not ended has one, sidecar or not: a sidecar that nobody announced
//! still enforces what applies to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    kinds::Kinds,
    outbound::{backend_protocol, routed},
    policy::Policies,
    protocol,
    telemetry::Telling,
    world::{Member, World},
};
use crate::{
    config::{Inbound, InboundPort, Protocol, ProtocolBy},
    model::{Model, ObjectKey, Pod, Service, ServicePort},
};

/// What one service expects of one of its pods: port number, name of the service port, protocol, and what
/// declares it.
pub(super) type Expected = BTreeSet<(u16, String, Protocol, ProtocolBy)>;

/// What a service port expects of the pods behind it.
pub(super) fn expect(
    world: &World<'_>,
    (service, port): (&Service, &ServicePort),
    members: &[Member<'_>],
    kinds: &Kinds,
    expected: &mut BTreeMap<ObjectKey, Expected>,
) {
    let name = service.port_name(port.port);
    let protocol =
        routed(backend_protocol(kinds, world.declared(service, port), &name), kinds.attached(&name));
    let by = protocol::by(port, protocol);
    for member in members {
        let Some(pod) = member.pod else { continue };
        let of_pod = expected.entry(pod.meta.key.clone()).or_default();
        of_pod.insert((member.address.port(), name.clone(), protocol, by));
    }
}

/// The service ports that target one port of a pod, and what they say it speaks.
type Target<'a> = (BTreeSet<&'a str>, BTreeSet<(Protocol, ProtocolBy)>);

/// What services expect of one pod.
#[derive(Default)]
pub(super) struct Served<'a> {
    services: BTreeSet<&'a ObjectKey>,
    ports: BTreeMap<u16, Target<'a>>,
}

impl<'a> Served<'a> {
    /// What these services expect.
    pub(super) fn by(services: impl Iterator<Item = (&'a ObjectKey, &'a Expected)>) -> Self {
        let mut served = Self::default();
        for (service, expected) in services {
            served.services.insert(service);
            for (number, name, protocol, by) in expected {
                let (names, protocols) = served.ports.entry(*number).or_default();
                names.insert(name);
                protocols.insert((*protocol, *by));
            }
        }
        served
    }
}

/// The Inbound of a pod.
pub(super) fn inbound(
    model: &Model,
    pod: &Pod,
    served: &Served<'_>,
    (policies, telling): (&Policies<'_>, &Telling<'_>),
) -> Inbound {
    let own = served.services.iter().filter(|service| service.namespace == pod.meta.key.namespace);
    let names: BTreeSet<&str> = own.map(|service| service.name.as_str()).collect();
    let tls = policies.tls(pod);
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for (number, (names, protocols)) in &served.ports {
        let port = ports.entry(*number).or_insert_with(|| bare(*number));
        (port.protocol, port.protocol_by) = agreed(protocols);
        port.service_ports = names.iter().map(|name| (*name).to_owned()).collect();
    }
    for (number, mode) in &tls.ports {
        ports.entry(*number).or_insert_with(|| bare(*number)).mutual_tls = Some(*mode);
    }
    for number in opaque(pod) {
        ports.entry(number).or_insert_with(|| bare(number));
    }
    for port in ports.values_mut().filter(|port| pod.opaque(port.port)) {
        port.protocol = Protocol::Opaque;
        port.protocol_by = ProtocolBy::OpaquePorts;
    }
    Inbound {
        workload: pod.path(),
        namespace: pod.meta.key.namespace.clone(),
        service_account: pod.service_account.clone(),
        mutual_tls: tls.mode,
        mutual_tls_by: tls.by,
        ports: ports.into_values().collect(),
        authorizations: policies.authorizations(pod, &names),
        services: served.services.iter().map(|service| service.path()).collect(),
        owner: pod.owner.clone(),
        probes: pod.probes.clone(),
        telemetry: Box::new(telling.of(pod)),
        probe_sources: if pod.probes.is_empty() { Vec::new() } else { probe_sources(model, pod) },
    }
}

/// Opaque ports that are listed by themselves, or declared: a range may be long, and means those of it
/// that are there.
fn opaque(pod: &Pod) -> impl Iterator<Item = u16> {
    let alone = pod.opaque_ports.iter().filter(|range| range.first == range.last).map(|range| range.first);
    alone.chain(pod.ports.iter().map(|port| port.port).filter(|port| pod.opaque(*port)))
}

/// Where the kubelet's probes come from: what the pod's own status says of its node, and what the Node says.
fn probe_sources(model: &Model, pod: &Pod) -> Vec<IpAddr> {
    let mut sources = pod.host_addresses.clone();
    sources.extend(model.node(&pod.node).iter().flat_map(|node| &node.addresses));
    sources.sort_unstable();
    sources.dedup();
    sources
}

fn bare(port: u16) -> InboundPort {
    InboundPort {
        port,
        protocol: Protocol::Unspecified,
        protocol_by: ProtocolBy::Unsaid,
        mutual_tls: None,
        service_ports: Vec::new(),
    }
}

/// What all service ports that target a port say of it; where they disagree it is detected.
fn agreed(protocols: &BTreeSet<(Protocol, ProtocolBy)>) -> (Protocol, ProtocolBy) {
    let mut said = protocols.iter().filter(|(protocol, _)| *protocol != Protocol::Unspecified);
    match said.next() {
        Some((protocol, by)) if said.all(|(other, _)| other == protocol) => (*protocol, *by),
        _ => (Protocol::Unspecified, ProtocolBy::Unsaid),
    }
}
