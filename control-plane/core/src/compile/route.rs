//! Routes with their backends resolved.
//!
//! Where it stands: *compile*, after *validate* has looked at each route by itself and before slots
//! attach them to service ports.
//!
//! Invariant: a reference that cannot be served keeps its share and says why; no share is handed to
//! another backend.

use std::collections::BTreeSet;

use super::{protocol, world::World};
use crate::{
    config::{Filter, FixedReply, Origin, Rule, WeightedBackend},
    model::{BackendRef, ObjectKey, Route, Service, ServiceKind, ServicePort},
    report::{Condition, Reason},
    validate::{
        authorization::origin,
        route::{CheckedRoute, CheckedRule, Steps, check, place},
    },
};

/// A route, ready to be attached.
pub(super) struct ResolvedRoute<'a> {
    /// The facts.
    pub(super) route: &'a Route,
    /// The object.
    pub(super) origin: Origin,
    /// The route by itself.
    pub(super) checked: CheckedRoute<'a>,
    /// Its rules, as sidecars take them.
    pub(super) rules: Vec<Rule>,
    /// Service ports that its rules name, valid ones only.
    pub(super) backends: Vec<String>,
    /// Whether the references are good.
    pub(super) references: Condition,
}

/// Routes, in order of precedence: the oldest first.
pub(super) fn resolved<'a>(world: &World<'a>, keys: &BTreeSet<ObjectKey>) -> Vec<ResolvedRoute<'a>> {
    let mut routes: Vec<&Route> = keys.iter().filter_map(|key| world.model.routes.get(key)).collect();
    routes.sort_by_key(|route| (route.meta.seniority(), route.kind));
    routes.into_iter().map(|route| resolve(world, route)).collect()
}

fn resolve<'a>(world: &World<'a>, route: &'a Route) -> ResolvedRoute<'a> {
    let checked = check(route);
    let mut broken = Vec::new();
    let rules: Vec<Rule> = checked.rules.iter().map(|fact| rule(world, route, fact, &mut broken)).collect();
    let named = rules.iter().flat_map(|rule| &rule.backends).map(|backend| backend.backend.clone());
    let backends = named.filter(|name| !name.is_empty()).collect();
    let references = match broken.first() {
        None => Condition::resolved(),
        Some((reason, _)) => {
            let texts: Vec<&str> = broken.iter().map(|(_, text)| text.as_str()).collect();
            Condition::unresolved(*reason, texts.join("; "))
        }
    };
    ResolvedRoute { route, origin: origin(&route.meta), checked, rules, backends, references }
}

fn rule(
    world: &World<'_>,
    route: &Route,
    fact: &CheckedRule<'_>,
    broken: &mut Vec<(Reason, String)>,
) -> Rule {
    let mut rule = Rule {
        name: fact.name.clone(),
        index: fact.index,
        matches: fact.matches.clone(),
        filters: Vec::new(),
        backends: Vec::new(),
        request_timeout: None,
        backend_request_timeout: None,
    };
    match &fact.steps {
        Err(problem) => rule.filters.push(reply(CANNOT_STATUS, &problem.text)),
        Ok(steps) => {
            rule.filters.clone_from(&steps.filters);
            rule.backends = backends(world, route, fact, steps, broken);
            rule.request_timeout = steps.request;
            rule.backend_request_timeout = steps.backend_request;
            close(&mut rule);
        }
    }
    rule
}

/// A rule that would send its requests nowhere answers them.
fn close(rule: &mut Rule) {
    if rule.filters.iter().any(Filter::answers) {
        return;
    }
    if rule.backends.is_empty() {
        rule.filters.push(reply(CANNOT_STATUS, "the rule names no backend"));
    } else if rule.backends.iter().all(|backend| backend.weight == 0) {
        rule.filters.push(reply(ALL_ZERO_STATUS, "every backend of the rule has weight 0"));
    }
}

fn reply(status: u16, reason: &str) -> Filter {
    Filter::Reply(FixedReply { status, reason: reason.to_owned() })
}

fn backends(
    world: &World<'_>,
    route: &Route,
    rule: &CheckedRule<'_>,
    steps: &Steps<'_>,
    broken: &mut Vec<(Reason, String)>,
) -> Vec<WeightedBackend> {
    let mut backends = Vec::with_capacity(steps.backends.len());
    for checked in &steps.backends {
        let invalid = |reason: &str| WeightedBackend {
            backend: String::new(),
            invalid: reason.to_owned(),
            weight: checked.weight,
            filters: Vec::new(),
        };
        backends.push(
            match (service_port(world, &route.meta.key.namespace, checked.fact), &checked.filters) {
                (Err((reason, text)), _) => {
                    broken.push((reason, format!("{}: {text}", place(rule.index, &rule.name))));
                    invalid(&text)
                }
                (Ok(_), Err(problem)) => invalid(&problem.text),
                (Ok(backend), Ok(filters)) => WeightedBackend {
                    backend,
                    invalid: String::new(),
                    weight: checked.weight,
                    filters: filters.clone(),
                },
            },
        );
    }
    backends
}

/// The service port that a reference of a route means.
fn service_port(world: &World<'_>, namespace: &str, fact: &BackendRef) -> Result<String, (Reason, String)> {
    let namespace = fact.namespace.as_deref().unwrap_or(namespace);
    let kind = fact.kind.as_deref().unwrap_or("Service");
    let group = fact.group.as_deref().unwrap_or_default();
    if kind != "Service" || !is_core(group) {
        return Err((
            Reason::InvalidKind,
            format!("backend {kind} {:?} is not supported: only a Service is", fact.name),
        ));
    }
    let (service, port) = find(world, namespace, &fact.name, fact.port)?;
    if !protocol::serves_http(port) {
        let declared = port.app_protocol.as_deref().unwrap_or_default();
        let text =
            format!("{} is declared {declared:?}, which routes cannot speak", service.port_name(port.port));
        return Err((Reason::UnsupportedProtocol, text));
    }
    Ok(service.port_name(port.port))
}

/// A service port that can stand behind a reference.
pub(super) fn find<'a>(
    world: &World<'a>,
    namespace: &str,
    name: &str,
    port: Option<i32>,
) -> Result<(&'a Service, &'a ServicePort), (Reason, String)> {
    let missing = |text| (Reason::BackendNotFound, text);
    let service = world.model.service(namespace, name);
    let service = service.ok_or_else(|| missing(format!("Service {namespace}/{name} is not there")))?;
    if service.kind == ServiceKind::ExternalName {
        let text = format!("Service {namespace}/{name} is an ExternalName, which has no endpoints");
        return Err((Reason::InvalidKind, text));
    }
    let port =
        port.ok_or_else(|| missing(format!("the reference to Service {namespace}/{name} names no port")))?;
    let found = service.port(port);
    found
        .map(|port| (service, port))
        .ok_or_else(|| missing(format!("Service {namespace}/{name} has no TCP port {port}")))
}

/// Whether a group means Kubernetes' own kinds. The API writes "", the Gateway API's site "core".
pub(super) fn is_core(group: &str) -> bool {
    matches!(group, "" | "core")
}

/// Answer of a rule that cannot do what is written. Source: Gateway API, HTTPRouteRule.
const CANNOT_STATUS: u16 = 500;
/// Answer of a rule whose backends all have weight 0. Source: the text leaves it open; 500, as an open
/// change to the conformance tests has it.
const ALL_ZERO_STATUS: u16 = 500;
