//! One step of compilation: the work that changes left, done on the state before.
//!
//! Where it stands: the compiler collects *work* and calls this once for many changes.
//!
//! ```text
//! routes ─ slots ─→ Outbound ─ kinds ─┐
//! services, slices, pods ─────────────┴→ Backend ─ expected ─→ Inbound
//! ```
//!
//! Invariant: results depend on the model alone, not on the order of changes: each unit of work reads
//! facts, and of earlier results only those that this step has brought up to date before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    address, inbound,
    index::{self, Index},
    mesh, outbound, policy, protocol, route,
    slot::{self, Slots},
    state::State,
    telemetry, traffic,
    work::Work,
    world::World,
};
use crate::{
    config::{Key, Resource, ResourceType},
    model::{Fact, Model, ObjectKey},
    report::{Condition, Reason, Report, Subject, Verdict},
    validate::unsupported_kind,
};

/// Does the work.
pub(super) fn run(model: &Model, index: &Index, mut work: Work, state: &mut State) {
    let mut report = Report::default();
    let settings = mesh::compile(model, &mut report);
    let world = World::new(model, index, Arc::from(settings.settings.trust_domain.as_str()));
    if work.everything {
        work.add(Work::everything(model));
        state.put(Key::mesh(), Resource::Mesh(settings.settings));
    }
    attach(&world, &mut work, state, &mut report);
    stand_behind(&world, &mut work, state);
    receive(&world, &work, (&settings.tls, &settings.telemetry), state);
    for address in &work.service_addresses {
        let resources = address::of_services(&world, *address);
        state.put_all(ResourceType::Address, &address::prefix(*address), resources);
    }
    for address in &work.pod_addresses {
        state.put_pods(*address, address::of_pods(&world, *address));
    }
    for object in &work.objects {
        say(&world, object, state, &mut report);
    }
    for object in work.routes.iter().chain(&work.objects) {
        state.tell(object, report.objects.remove(object));
    }
}

/// Outbounds of services, of whose routes each is looked at; what became of the routes.
fn attach(world: &World<'_>, work: &mut Work, state: &mut State, report: &mut Report) {
    let routes = work.routes.iter().filter_map(|route| world.model.routes.get(route));
    let parents: BTreeSet<ObjectKey> = routes.flat_map(index::parents).collect();
    work.services.extend(parents);
    let by_parent = &world.index.routes_by_parent;
    let mut routes = work.routes.clone();
    routes.extend(work.services.iter().filter_map(|parent| by_parent.get(parent)).flatten().cloned());
    let routes = route::resolved(world, &routes);
    let slots = Slots::new(world, &routes);
    slot::report(&routes, &slots, &work.routes, report);
    for service in &work.services {
        work.members.extend(state.kinds.take(service, &slots, &routes));
        let resources = world.callable(service).map(|service| {
            let traffic = traffic::applied(world, &service.meta.key);
            outbound::outbounds(world, service, &routes, &slots, traffic.as_ref())
        });
        state.put_all(ResourceType::Outbound, &ports_of(service), resources.unwrap_or_default());
    }
    work.members.extend(work.services.iter().cloned());
}

/// Backends of services, and what the services expect of the pods behind them.
fn stand_behind(world: &World<'_>, work: &mut Work, state: &mut State) {
    for key in &work.members {
        let (mut backends, mut expected) = (BTreeMap::new(), BTreeMap::new());
        if let Some(service) = world.callable(key) {
            let traffic = traffic::applied(world, key);
            for port in service.tcp_ports().map(|port| (service, port)) {
                let members = world.members(service, port.1);
                backends.extend([outbound::backend(world, port, &members, &state.kinds, traffic.as_ref())]);
                inbound::expect(world, port, &members, &state.kinds, &mut expected);
            }
        }
        state.put_all(ResourceType::Backend, &ports_of(key), backends);
        work.pods.extend(state.expect(key, expected));
    }
}

/// Inbounds of pods.
fn receive(
    world: &World<'_>,
    work: &Work,
    (default_tls, mesh): (&mesh::DefaultTls, &telemetry::OfMesh),
    state: &mut State,
) {
    let namespaces: BTreeSet<&str> = work.pods.iter().map(|pod| pod.namespace.as_str()).collect();
    let policies = policy::Policies::new(world, &namespaces, default_tls);
    let telling = telemetry::Telling::new(world, &namespaces, mesh);
    for key in &work.pods {
        let name = Key::new(ResourceType::Inbound, key.path());
        match world.model.pods.get(key).filter(|pod| !pod.ended) {
            Some(pod) => {
                let served = inbound::Served::by(state.expected_of(key));
                let inbound = inbound::inbound(world.model, pod, &served, (&policies, &telling));
                state.put(name, Resource::Inbound(inbound));
            }
            None => state.drop(name),
        }
    }
}

/// What is said of an object that is no route; a policy that is a resource itself is compiled.
fn say(world: &World<'_>, key: &ObjectKey, state: &mut State, report: &mut Report) {
    let name = || Key::new(ResourceType::Authorization, key.path());
    match world.model.fact(key) {
        Some(Fact::Service(service)) => {
            address::warn_lost(world, service, report);
            protocol::warn_unknown(service, report);
        }
        Some(Fact::Authorization(policy)) => {
            let resource = policy::authorization(world, policy, report);
            state.put(name(), resource);
        }
        None if key.kind == crate::model::Kind::AuthorizationPolicy => state.drop(name()),
        Some(Fact::Tls(policy)) => policy::tls(world, policy, report),
        Some(Fact::Telemetry(policy)) => policy::telemetry(world, policy, report),
        Some(Fact::Traffic(policy)) => traffic::report(world, policy, report),
        Some(Fact::Unsupported(meta)) => {
            let refused =
                Condition::refused(Reason::UnsupportedValue, unsupported_kind(meta.key.kind.as_str()));
            let verdict = Verdict { subject: Subject::Object, conditions: vec![refused] };
            report.entry(meta).verdicts.push(verdict);
        }
        Some(
            Fact::Mesh(_)
            | Fact::Slice(_)
            | Fact::Pod(_)
            | Fact::Route(_)
            | Fact::Node(_)
            | Fact::Namespace(_),
        )
        | None => {}
    }
}

/// What the names of a service's ports begin with.
fn ports_of(service: &ObjectKey) -> String {
    format!("{}:", service.path())
}
