//! Inbound: how each pod receives traffic.
//!
//! Where it stands: *compile*, after policies and slots.
//!
//! Invariant: every pod that has not ended has one, sidecar or not: a sidecar that nobody announced
//! still enforces what applies to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    outbound::{backend_protocol, routed},
    policy::Policies,
    slot::Slots,
    world::World,
};
use crate::{
    config::{Inbound, InboundPort, Key, Protocol, Resource, ResourceType},
    model::{ObjectKey, Pod},
};

/// Inbounds of all pods.
pub(super) fn inbounds(
    world: &World<'_>,
    slots: &Slots,
    policies: &Policies<'_>,
    resources: &mut BTreeMap<Key, Resource>,
) {
    let served = served(world, slots);
    for pod in world.model.pods.values().filter(|pod| !pod.ended) {
        let inbound = inbound(pod, served.get(&pod.meta.key), policies);
        resources.insert(Key::new(ResourceType::Inbound, pod.path()), Resource::Inbound(inbound));
    }
}

/// What services expect of one pod.
#[derive(Default)]
struct Served {
    services: BTreeSet<ObjectKey>,
    ports: BTreeMap<u16, (BTreeSet<String>, BTreeSet<Protocol>)>,
}

fn served(world: &World<'_>, slots: &Slots) -> BTreeMap<ObjectKey, Served> {
    let mut served: BTreeMap<ObjectKey, Served> = BTreeMap::new();
    for service in world.services() {
        for port in service.tcp_ports() {
            let name = service.port_name(port.port);
            let protocol = routed(backend_protocol(slots, port, &name), slots.attached(&name));
            for member in world.members(service, port) {
                let Some(pod) = member.pod else { continue };
                let served = served.entry(pod.meta.key.clone()).or_default();
                served.services.insert(service.meta.key.clone());
                let (names, protocols) = served.ports.entry(member.address.port()).or_default();
                names.insert(name.clone());
                protocols.insert(protocol);
            }
        }
    }
    served
}

fn inbound(pod: &Pod, served: Option<&Served>, policies: &Policies<'_>) -> Inbound {
    let services: Vec<&ObjectKey> = served.iter().flat_map(|served| &served.services).collect();
    let own = services.iter().filter(|service| service.namespace == pod.meta.key.namespace);
    let names: BTreeSet<&str> = own.map(|service| service.name.as_str()).collect();
    let tls = policies.tls(pod);
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for (number, (names, protocols)) in served.iter().flat_map(|served| &served.ports) {
        let port = ports.entry(*number).or_insert_with(|| bare(*number));
        port.protocol = agreed(protocols);
        port.service_ports = names.iter().cloned().collect();
    }
    for (number, mode) in &tls.ports {
        ports.entry(*number).or_insert_with(|| bare(*number)).mutual_tls = Some(*mode);
    }
    Inbound {
        workload: pod.path(),
        namespace: pod.meta.key.namespace.clone(),
        service_account: pod.service_account.clone(),
        mutual_tls: tls.mode,
        ports: ports.into_values().collect(),
        authorizations: policies.authorizations(pod, &names),
        services: services.iter().map(|service| service.path()).collect(),
        owner: pod.owner.clone(),
        probes: pod.probes.clone(),
        probe_sources: if pod.probes.is_empty() { Vec::new() } else { probe_sources(pod) },
    }
}

/// Where the kubelet's probes come from.
fn probe_sources(pod: &Pod) -> Vec<IpAddr> {
    let mut sources = pod.host_addresses.clone();
    sources.sort_unstable();
    sources.dedup();
    sources
}

fn bare(port: u16) -> InboundPort {
    InboundPort { port, protocol: Protocol::Unspecified, mutual_tls: None, service_ports: Vec::new() }
}

/// What all service ports that target a port say of it; where they disagree it is detected.
fn agreed(protocols: &BTreeSet<Protocol>) -> Protocol {
    let mut said = protocols.iter().filter(|protocol| **protocol != Protocol::Unspecified);
    match (said.next(), said.next()) {
        (Some(protocol), None) => *protocol,
        _ => Protocol::Unspecified,
    }
}
