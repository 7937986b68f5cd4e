//! The whole model → everything that any sidecar may ask for, and what became of each object.
//!
//! Where it stands: *compile*, the middle of the configuration's walk: `watch → index → compile →
//! publish → serve`. It reads the model whole and keeps nothing between runs.
//!
//! ```text
//! mesh ─ world ─┬─ route  (rules, backends, parents) ─ slots ─→ Outbound
//!               ├─ traffic ─────────────────────────────────→ Backend
//!               ├─ authorization, tls ──────────────────────→ Inbound, Authorization
//!               └─ services and pods ───────────────────────→ Address
//! ```
//!
//! Invariant: pure, deterministic, sorted: equal models give equal configs and reports.
//! Invariant: a service port that any resource names has its Backend here.

mod inbound;
mod mesh;
mod outbound;
mod policy;
mod protocol;
mod route;
mod slot;
mod target;
mod traffic;
mod world;

use std::collections::BTreeMap;

use self::{slot::Slots, world::World};
use crate::{
    config::{Address, Config, Endpoint, Key, PodAddress, Resource, ResourceType, address_name},
    model::{Model, ServiceKind},
    report::{Condition, Reason, Report, Subject, Verdict},
    validate::unsupported_kind,
};

/// A config and what became of the objects that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// What sidecars are told.
    pub config: Config,
    /// What users are told.
    pub report: Report,
}

/// What sidecars are told.
pub fn compile(model: &Model) -> Config {
    build(model).config
}

/// What sidecars are told and what users are told.
pub fn build(model: &Model) -> Compiled {
    let mut report = Report::default();
    let mut resources = BTreeMap::new();
    let mesh = mesh::compile(model, &mut report);
    let world = World::new(model, &mesh.settings.trust_domain);
    resources.insert(Key::mesh(), Resource::Mesh(mesh.settings));

    let routes = route::all(&world);
    let slots = Slots::new(&world, &routes);
    slot::report(&routes, &slots, &mut report);
    let traffic = traffic::Traffic::new(&world, &mut report);
    let policies = policy::Policies::new(&world, mesh.mutual_tls, &mut report);

    outbound::outbounds(&world, &routes, &slots, &traffic, &mut resources);
    outbound::backends(&world, &slots, &traffic, &mut resources);
    inbound::inbounds(&world, &slots, &policies, &mut resources);
    policies.resources(&mut resources);
    addresses(&world, &mut report, &mut resources);
    refuse_unsupported(model, &mut report);
    protocol::warn_unknown(&world, &mut report);
    Compiled { config: Config { resources, pods: pods(&world) }, report }
}

/// Each address of a service. Where two services claim one, the older has it.
fn addresses(world: &World<'_>, report: &mut Report, resources: &mut BTreeMap<Key, Resource>) {
    let mut services: Vec<_> = world.model.services.values().collect();
    services.sort_by_key(|service| service.meta.seniority());
    for service in services.into_iter().filter(|service| service.kind == ServiceKind::ClusterIp) {
        for (ip, port) in
            service.cluster_ips.iter().flat_map(|ip| service.tcp_ports().map(move |port| (ip, port)))
        {
            let name = address_name((*ip, port.port).into());
            let outbound = service.port_name(port.port);
            let key = Key::new(ResourceType::Address, name.as_str());
            match resources.get(&key) {
                Some(Resource::Address(Address::Outbound(other))) if *other != outbound => {
                    report.warn(&service.meta, format!("address {name} belongs to {other}, which is older"));
                }
                _ => drop(resources.insert(key, Resource::Address(Address::Outbound(outbound)))),
            }
        }
    }
}

/// Pods by address. One that has ended no longer has its own.
fn pods(world: &World<'_>) -> BTreeMap<std::net::IpAddr, Vec<PodAddress>> {
    let mut pods: BTreeMap<_, Vec<PodAddress>> = BTreeMap::new();
    for pod in world.model.pods.values().filter(|pod| !pod.ended) {
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
        for address in &pod.addresses {
            let entry =
                PodAddress { ports: ports.clone(), shared: pod.host_network, endpoint: endpoint.clone() };
            pods.entry(*address).or_default().push(entry);
        }
    }
    pods
}

fn refuse_unsupported(model: &Model, report: &mut Report) {
    for meta in model.unsupported.values() {
        let refused = Condition::refused(Reason::UnsupportedValue, unsupported_kind(meta.key.kind.as_str()));
        report.entry(meta).verdicts.push(Verdict { subject: Subject::Object, conditions: vec![refused] });
    }
}

#[cfg(test)]
mod tests;
