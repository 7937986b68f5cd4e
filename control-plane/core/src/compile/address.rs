//! What addresses mean: those of services, and those of pods.
//!
//! Where it stands: *compile*, from the facts alone.
//!
//! Invariant: where two services claim one address and port, the older has it, and the other is told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::world::World;
use crate::{
    config::{Address, Endpoint, Key, PodAddress, Resource, ResourceType, address_name},
    model::Service,
    report::Report,
};

/// What every port of an address means that services claim.
pub(super) fn of_services(world: &World<'_>, address: IpAddr) -> BTreeMap<Key, Resource> {
    let mut resources = BTreeMap::new();
    for service in claimants(world, address) {
        for port in service.tcp_ports() {
            let name = address_name(SocketAddr::new(address, port.port));
            let outbound = Address::Outbound(service.port_name(port.port));
            resources.entry(Key::new(ResourceType::Address, name)).or_insert(Resource::Address(outbound));
        }
    }
    resources
}

/// Tells a service which of its addresses belong to an older one.
pub(super) fn warn_lost(world: &World<'_>, service: &Service, report: &mut Report) {
    for address in super::index::claimed(service) {
        for port in service.tcp_ports() {
            let has = |other: &&Service| other.tcp_ports().any(|other| other.port == port.port);
            let owner = claimants(world, address).into_iter().find(has);
            if let Some(owner) = owner.filter(|owner| owner.meta.key != service.meta.key) {
                let name = address_name(SocketAddr::new(address, port.port));
                let other = owner.port_name(port.port);
                report.warn(&service.meta, format!("address {name} belongs to {other}, which is older"));
            }
        }
    }
}

/// The services that claim an address, the oldest first.
fn claimants<'a>(world: &World<'a>, address: IpAddr) -> Vec<&'a Service> {
    let services = world.index.services_by_address.get(&address).into_iter().flatten();
    let mut services: Vec<_> = services.filter_map(|service| world.model.services.get(service)).collect();
    services.sort_by_key(|service| service.meta.seniority());
    services
}

/// The pods that have an address. One that has ended no longer has its own.
pub(super) fn of_pods(world: &World<'_>, address: IpAddr) -> Vec<PodAddress> {
    let pod_address = |pod: &crate::model::Pod| {
        let mut ports: Vec<u16> = pod.ports.iter().map(|port| port.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let endpoint = Endpoint {
            address: String::new(),
            workload: pod.path(),
            identity: world.identity(pod),
            zone: world.model.zone(pod).to_owned(),
            weight: 1,
        };
        PodAddress { ports, shared: pod.host_network, endpoint }
    };
    world.pods_at(address).map(pod_address).collect()
}

/// What every name of an address's ports begins with.
pub(super) fn prefix(address: IpAddr) -> String {
    let name = address_name(SocketAddr::new(address, 0));
    name.strip_suffix('0').unwrap_or(&name).to_owned()
}
