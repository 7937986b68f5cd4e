//! Outbound and Backend: how each service port is called, and who stands behind it.
//!
//! Where it stands: *compile*, from slots, traffic policies and the joined facts.
//!
//! Invariant: every TCP port of every service with endpoints has a Backend and a general Outbound.

use std::collections::BTreeMap;

use super::{
    kinds::Kinds,
    protocol,
    route::ResolvedRoute,
    slot::Slots,
    traffic::Applied,
    world::{Member, World},
};
use crate::{
    config::{Backend, Key, Outbound, Protocol, Resource, ResourceType, Route, RouteKind},
    model::{Service, ServicePort},
};

/// Outbounds of a service: one a port for all, and one for each namespace that has routes of its own there.
pub(super) fn outbounds(
    world: &World<'_>,
    service: &Service,
    routes: &[ResolvedRoute<'_>],
    slots: &Slots,
    traffic: Option<&Applied>,
) -> BTreeMap<Key, Resource> {
    let mut resources = BTreeMap::new();
    for port in service.tcp_ports() {
        let key = Key::new(ResourceType::Outbound, service.port_name(port.port));
        resources.insert(key, Resource::Outbound(plain(world, (service, port), traffic)));
    }
    for (slot, kind, indices) in slots.of(&service.meta.key) {
        let Some(port) = service.port(i32::from(slot.port)) else { continue };
        let mut outbound = plain(world, (service, port), traffic);
        outbound.route_kind = Some(kind);
        outbound.protocol = routed(outbound.protocol, Some(kind));
        outbound.protocol_by = protocol::by(port, outbound.protocol);
        outbound.routes = indices.iter().filter_map(|index| routes.get(*index)).map(attach).collect();
        let name = service.port_name(port.port);
        let key = Key { kind: ResourceType::Outbound, name, scope: slot.scope.clone() };
        resources.insert(key, Resource::Outbound(outbound));
    }
    resources
}

fn plain(
    world: &World<'_>,
    (service, port): (&Service, &ServicePort),
    traffic: Option<&Applied>,
) -> Outbound {
    let spoken = world.declared(service, port);
    Outbound {
        service: service.path(),
        port: port.port,
        protocol: spoken,
        protocol_by: protocol::by(port, spoken),
        route_kind: None,
        routes: Vec::new(),
        default_backend: service.port_name(port.port),
        request_timeout: traffic.and_then(|applied| applied.request_timeout),
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

/// The Backend of a service port with these members.
pub(super) fn backend(
    world: &World<'_>,
    (service, port): (&Service, &ServicePort),
    members: &[Member<'_>],
    kinds: &Kinds,
    traffic: Option<&Applied>,
) -> (Key, Resource) {
    let name = service.port_name(port.port);
    let backend = Backend {
        service: service.path(),
        port: port.port,
        protocol: backend_protocol(kinds, world.declared(service, port), &name),
        endpoints: world.endpoints(members),
        policy: traffic.map(|applied| applied.policy(&name)),
    };
    (Key::new(ResourceType::Backend, name), Resource::Backend(backend))
}

/// gRPC needs HTTP/2 of its backends, declared or not; where HTTP is routed there as well, the
/// downstream's protocol goes on.
pub(super) fn backend_protocol(kinds: &Kinds, declared: Protocol, name: &str) -> Protocol {
    let grpc = kinds.only_grpc(name).then_some(RouteKind::Grpc);
    routed(declared, grpc)
}
