//! Outbound and Backend: how each service port is called, and who stands behind it.
//!
//! Where it stands: *compile*, from slots, traffic policies and the joined facts.
//!
//! Invariant: every TCP port of every service with endpoints has a Backend and a general Outbound.

use std::collections::BTreeMap;

use super::{protocol, route::ResolvedRoute, slot::Slots, traffic::Traffic, world::World};
use crate::{
    config::{Backend, Key, Outbound, Protocol, Resource, ResourceType, Route, RouteKind},
    model::{Service, ServicePort},
};

/// Outbounds: one a service port for all, and one for each namespace that has routes of its own there.
pub(super) fn outbounds(
    world: &World<'_>,
    routes: &[ResolvedRoute<'_>],
    slots: &Slots,
    traffic: &Traffic,
    resources: &mut BTreeMap<Key, Resource>,
) {
    for service in world.services() {
        for port in service.tcp_ports() {
            let outbound = plain(service, port, traffic);
            let key = Key::new(ResourceType::Outbound, service.port_name(port.port));
            resources.insert(key, Resource::Outbound(outbound));
        }
    }
    for (slot, kind, indices) in slots.filled() {
        let service = world.model.services.get(&slot.service);
        let port = service.and_then(|service| service.port(i32::from(slot.port)));
        let (Some(service), Some(port)) = (service, port) else { continue };
        let mut outbound = plain(service, port, traffic);
        outbound.route_kind = Some(kind);
        outbound.protocol = routed(outbound.protocol, Some(kind));
        outbound.routes = indices.iter().filter_map(|index| routes.get(*index)).map(attach).collect();
        let name = service.port_name(port.port);
        let key = Key { kind: ResourceType::Outbound, name, scope: slot.scope.clone() };
        resources.insert(key, Resource::Outbound(outbound));
    }
}

fn plain(service: &Service, port: &ServicePort, traffic: &Traffic) -> Outbound {
    Outbound {
        service: service.path(),
        port: port.port,
        protocol: protocol::declared(port),
        route_kind: None,
        routes: Vec::new(),
        default_backend: service.port_name(port.port),
        request_timeout: traffic.request_timeout(&service.meta.key),
    }
}

fn attach(route: &ResolvedRoute<'_>) -> Route {
    Route { origin: route.origin.clone(), rules: route.rules.clone() }
}

/// What the kind of the attached routes says about the protocol, where nothing is declared.
pub(super) fn routed(declared: Protocol, kind: Option<RouteKind>) -> Protocol {
    match (declared, kind) {
        (Protocol::Unspecified, Some(RouteKind::Http)) => Protocol::Http1,
        (Protocol::Unspecified | Protocol::Http1, Some(RouteKind::Grpc)) => Protocol::Http2,
        (declared, _) => declared,
    }
}

/// Backends: one a service port.
pub(super) fn backends(
    world: &World<'_>,
    slots: &Slots,
    traffic: &Traffic,
    resources: &mut BTreeMap<Key, Resource>,
) {
    for service in world.services() {
        for port in service.tcp_ports() {
            let name = service.port_name(port.port);
            let backend = Backend {
                service: service.path(),
                port: port.port,
                protocol: backend_protocol(slots, port, &name),
                endpoints: world.endpoints(service, port),
                policy: traffic.policy(&service.meta.key, &name),
            };
            resources.insert(Key::new(ResourceType::Backend, name), Resource::Backend(backend));
        }
    }
}

/// gRPC needs HTTP/2 of its backends, declared or not; where HTTP is routed there as well, the
/// downstream's protocol goes on.
pub(super) fn backend_protocol(slots: &Slots, port: &ServicePort, name: &str) -> Protocol {
    let grpc = slots.only_grpc(name).then_some(RouteKind::Grpc);
    routed(protocol::declared(port), grpc)
}
