//! Which routes apply to which service port, for whose clients.
//!
//! Where it stands: *compile*, between routes and Outbounds.
//!
//! A slot is a service port and an audience. A route in the service's own namespace is a producer
//! route: it is for all clients. Any other is a consumer route: it is for the clients in the route's
//! namespace, and for them the consumer routes replace the producer's (GEP-1294).
//!
//! Invariant: a slot holds routes of one kind; GRPCRoute goes before HTTPRoute, the loser is Conflicted.
//! Invariant: a route that is refused is in no slot.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    protocol,
    route::{ResolvedRoute, is_core},
    world::World,
};
use crate::{
    config::RouteKind,
    model::{ObjectKey, ParentRef, Service, ServiceKind},
    report::{Condition, ConditionType, Reason, Report, Subject, Verdict},
};

/// A service port and an audience.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// The service.
    pub(super) service: ObjectKey,
    /// Its port.
    pub(super) port: u16,
    /// Namespace of the clients; absent: all.
    pub(super) scope: Option<String>,
}

/// The slots of some routes. Those of a service are complete when all of its routes are among them.
pub(super) struct Slots {
    filled: BTreeMap<Slot, (RouteKind, Vec<usize>)>,
    parents: Vec<Vec<ParentOutcome>>,
}

/// A parent of ours, and the slots there, or why there are none.
type ParentOutcome = (ParentRef, Result<Vec<Slot>, String>);

impl Slots {
    /// Attaches routes, given in order of precedence.
    pub(super) fn new(world: &World<'_>, routes: &[ResolvedRoute<'_>]) -> Self {
        let parents: Vec<Vec<ParentOutcome>> = routes.iter().map(|route| outcomes(world, route)).collect();
        let mut candidates: BTreeMap<Slot, BTreeSet<usize>> = BTreeMap::new();
        for ((index, route), outcomes) in routes.iter().enumerate().zip(&parents) {
            let slots = outcomes.iter().filter_map(|(_, slots)| slots.as_ref().ok()).flatten();
            for slot in slots.filter(|_| attaches(route)) {
                candidates.entry(slot.clone()).or_default().insert(index);
            }
        }
        let mut slots = Self { filled: BTreeMap::new(), parents };
        for (slot, candidates) in candidates {
            slots.fill(slot, &candidates, routes);
        }
        slots
    }

    /// Routes that do not work at all take no port from routes of the other kind that do.
    fn fill(&mut self, slot: Slot, candidates: &BTreeSet<usize>, routes: &[ResolvedRoute<'_>]) {
        let kind_of = |index: &usize| routes.get(*index).map(|route| route.route.kind);
        let works = |index: &&usize| routes.get(**index).is_some_and(|route| route.checked.works());
        let working = candidates.iter().filter(works).filter_map(kind_of).max();
        let Some(kind) = working.or_else(|| candidates.iter().filter_map(kind_of).max()) else { return };
        let winners: Vec<usize> =
            candidates.iter().copied().filter(|index| kind_of(index) == Some(kind)).collect();
        self.filled.insert(slot, (kind, winners));
    }

    /// Slots of a service with the kind and the indices of their routes.
    pub(super) fn of(&self, service: &ObjectKey) -> impl Iterator<Item = (&Slot, RouteKind, &[usize])> {
        let first = Slot { service: service.clone(), port: 0, scope: None };
        let from_there = self.filled.range(first..);
        let of_it = from_there.take_while(|(slot, _)| slot.service == *service);
        of_it.map(|(slot, (kind, routes))| (slot, *kind, routes.as_slice()))
    }
}

/// Whether a route attaches at all: it was not refused, and it has a rule that can match, or was
/// written without any.
fn attaches(route: &ResolvedRoute<'_>) -> bool {
    let checked = &route.checked;
    checked.refusal.is_none() && (!checked.rules.is_empty() || checked.dropped.is_empty())
}

/// The parents of a route that are ours, with their slots.
fn outcomes(world: &World<'_>, route: &ResolvedRoute<'_>) -> Vec<ParentOutcome> {
    let parents = route.route.parents.iter().filter(|parent| is_ours(parent));
    parents.map(|parent| (parent.clone(), slots_of(world, route, parent))).collect()
}

/// A Service. Without a group the Gateway API's is meant, which has no Service: that can only be a
/// slip, and is taken for Kubernetes' own.
pub(super) fn is_ours(parent: &ParentRef) -> bool {
    let group = parent.group.as_deref().unwrap_or_default();
    parent.kind.as_deref() == Some("Service") && (is_core(group) || group == "gateway.networking.k8s.io")
}

fn slots_of(world: &World<'_>, route: &ResolvedRoute<'_>, parent: &ParentRef) -> Result<Vec<Slot>, String> {
    let home = &route.route.meta.key.namespace;
    let namespace = parent.namespace.as_ref().unwrap_or(home);
    let service = world.model.service(namespace, &parent.name);
    let service = service.ok_or_else(|| format!("Service {namespace}/{} is not there", parent.name))?;
    match service.kind {
        ServiceKind::ClusterIp => {}
        ServiceKind::Headless => {
            return Err(format!(
                "Service {} is headless: its clients call its pods, past any route",
                service.path()
            ));
        }
        ServiceKind::ExternalName => {
            return Err(format!("Service {} is an ExternalName, which has no address", service.path()));
        }
    }
    let scope = (home != namespace).then(|| home.clone());
    let ports = ports_of(service, parent)?;
    Ok(ports
        .into_iter()
        .map(|port| Slot { service: service.meta.key.clone(), port, scope: scope.clone() })
        .collect())
}

fn ports_of(service: &Service, parent: &ParentRef) -> Result<Vec<u16>, String> {
    let by_port = |port: &u16| parent.port.is_none_or(|wanted| wanted == i32::from(*port));
    let section = parent.section_name.as_deref();
    let named = service.tcp_ports().filter(|port| section.is_none_or(|name| name == port.name));
    let chosen: Vec<_> = named.filter(|port| by_port(&port.port)).collect();
    if chosen.is_empty() {
        let wanted = [parent.port.map(|port| port.to_string()), parent.section_name.clone()];
        let wanted: Vec<String> = wanted.into_iter().flatten().collect();
        return Err(format!("Service {} has no TCP port {}", service.path(), wanted.join(" named ")));
    }
    let able: Vec<u16> =
        chosen.iter().filter(|port| protocol::serves_http(port)).map(|port| port.port).collect();
    if able.is_empty() {
        let declared = chosen.first().and_then(|port| port.app_protocol.as_deref()).unwrap_or_default();
        return Err(format!(
            "the port of Service {} is declared {declared:?}, which routes cannot read",
            service.path()
        ));
    }
    Ok(able)
}

/// Writes what became of each of some routes, parent by parent.
pub(super) fn report(
    routes: &[ResolvedRoute<'_>],
    slots: &Slots,
    about: &BTreeSet<ObjectKey>,
    report: &mut Report,
) {
    for ((index, route), parents) in routes.iter().enumerate().zip(&slots.parents) {
        if parents.is_empty() || !about.contains(&route.route.meta.key) {
            continue;
        }
        let entry = report.entry(&route.route.meta);
        entry.warnings.extend(route.checked.warnings.iter().cloned());
        for (parent, outcome) in parents {
            if parent.group.as_deref() == Some("gateway.networking.k8s.io") {
                entry.warnings.push(format!("the group of parent Service {:?} should be \"\"", parent.name));
            }
            let mut conditions = vec![accepted(slots, index, route, outcome), route.references.clone()];
            conditions.extend(partially_invalid(route));
            entry.verdicts.push(Verdict { subject: Subject::Parent(parent.clone()), conditions });
        }
    }
}

fn accepted(
    slots: &Slots,
    index: usize,
    route: &ResolvedRoute<'_>,
    outcome: &Result<Vec<Slot>, String>,
) -> Condition {
    if let Some(problem) = &route.checked.refusal {
        return Condition::refused(problem.reason, problem.text.clone());
    }
    let wanted = match outcome {
        Ok(slots) => slots,
        Err(text) => return Condition::refused(Reason::NoMatchingParent, text.clone()),
    };
    if !route.checked.works() {
        let problems = route.checked.problems();
        let reason = problems.first().map_or(Reason::UnsupportedValue, |problem| problem.reason);
        return Condition::refused(
            reason,
            join(&problems.into_iter().map(|problem| problem.text).collect::<Vec<_>>()),
        );
    }
    let lost: Vec<String> = wanted
        .iter()
        .filter(|slot| slots.filled.get(*slot).is_some_and(|(_, winners)| !winners.contains(&index)))
        .map(|slot| slot.port.to_string())
        .collect();
    let text = format!("a GRPCRoute has precedence on port {}", lost.join(", "));
    if lost.is_empty() {
        Condition::accepted()
    } else if lost.len() == wanted.len() {
        Condition::refused(Reason::Conflicted, text)
    } else {
        Condition { message: format!("in force, except that {text}"), ..Condition::accepted() }
    }
}

fn partially_invalid(route: &ResolvedRoute<'_>) -> Option<Condition> {
    let texts: Vec<String> = route.checked.problems().into_iter().map(|problem| problem.text).collect();
    (route.checked.refusal.is_none() && route.checked.works() && !texts.is_empty()).then(|| Condition {
        kind: ConditionType::PartiallyInvalid,
        status: true,
        reason: Reason::UnsupportedValue,
        message: join(&texts),
    })
}

fn join(texts: &[String]) -> String {
    texts.join("; ")
}
