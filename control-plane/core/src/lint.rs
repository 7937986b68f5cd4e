//! What a person should know of a mesh's facts, beyond what became of each object: what cannot work as it was
//! meant, matches nothing, or is left to guessing.
//!
//! Where it stands: beside *compile*, on whose output it stands; `weft check` shows it. Nothing that sidecars are
//! told depends on it.
//!
//! Invariant: pure, deterministic, sorted; each finding names the object and says what to do.

use std::collections::{BTreeMap, BTreeSet};

use weft_k8s::{TargetKind, TargetRef};

use crate::compile::Compiled;
use crate::config::{Action, Authorization, Backend, Inbound, Key, Protocol, Resource, ResourceType};
use crate::model::{Kind, Meta, Model, ObjectKey, Pod, Position, Service, ServiceKind};

/// What is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lint {
    /// What kind of thing it is.
    pub check: Check,
    /// The object.
    pub object: ObjectKey,
    /// Where it is written.
    pub place: Option<Position>,
    /// What is the matter.
    pub text: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// An object is not in force as it is written.
    NotInForce,
    /// The compiler has something to say that changes no condition.
    Warning,
    /// A policy looks at requests where nobody can see any.
    PolicyOnBytes,
    /// A target means nothing that is there.
    TargetMatchesNothing,
    /// A service has no endpoint.
    NoEndpoint,
    /// A port declares no protocol.
    ProtocolGuessed,
    /// An object has no effect on anything.
    Unreferenced,
}

impl Check {
    /// Whether something does not work, rather than being worth a look.
    #[must_use]
    pub fn fails(self) -> bool {
        self == Self::NotInForce
    }
}

/// Looks at the facts and at what they were compiled to.
#[must_use]
pub fn lint(model: &Model, compiled: &Compiled) -> Vec<Lint> {
    let mut lints = Vec::new();
    reported(compiled, &mut lints);
    policies_on_bytes(model, compiled, &mut lints);
    targets(model, &mut lints);
    services(model, compiled, &mut lints);
    unreferenced(model, &mut lints);
    lints.sort();
    lints.dedup();
    lints
}

fn of(meta: &Meta, check: Check, text: String, remedy: &'static str) -> Lint {
    Lint { check, object: meta.key.clone(), place: meta.position.clone(), text, remedy }
}

fn reported(compiled: &Compiled, lints: &mut Vec<Lint>) {
    for (key, object) in &compiled.report.objects {
        let lint = |check, text, remedy| Lint {
            check,
            object: key.clone(),
            place: object.position.clone(),
            text,
            remedy,
        };
        lints.extend(object.problems().into_iter().map(|condition| {
            let (kind, reason) = (condition.kind.as_str(), condition.reason.as_str());
            let text = format!("{kind}/{reason}: {}", condition.message);
            lint(
                Check::NotInForce,
                text,
                "correct what the message names; `weft explain` shows what it does to a request",
            )
        }));
        let remedy = "no condition depends on it; it may not be what is meant";
        lints.extend(object.warnings.iter().map(|text| lint(Check::Warning, text.clone(), remedy)));
    }
}

/// Policies with methods or paths that apply to ports of bytes.
fn policies_on_bytes(model: &Model, compiled: &Compiled, lints: &mut Vec<Lint>) {
    let resources = &compiled.config.resources;
    let mut found: BTreeMap<(&str, bool, String), BTreeSet<String>> = BTreeMap::new();
    for inbound in resources.values().filter_map(inbound) {
        for name in &inbound.authorizations {
            let key = Key::new(ResourceType::Authorization, name);
            let Some(Resource::Authorization(policy)) = resources.get(&key) else { continue };
            for (rule, ports) in blind_rules(policy, inbound) {
                let denies = policy.action == Action::Deny;
                found.entry((name, denies, rule)).or_default().extend(ports);
            }
        }
    }
    for ((name, denies, rule), ports) in found {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let key = ObjectKey::new(Kind::AuthorizationPolicy, namespace, name);
        let Some(policy) = model.authorizations.get(&key) else { continue };
        let ports: Vec<String> = ports.into_iter().collect();
        let what = if denies { "so it denies everything there" } else { "so it allows nothing there" };
        let text = format!(
            "rule {rule} looks at methods or paths, which nobody can see in the bytes of {}, {what}",
            ports.join(", ")
        );
        let remedy = "declare the port's appProtocol if it is HTTP, or write a rule of `ports` and sources alone for it";
        lints.push(of(&policy.meta, Check::PolicyOnBytes, text, remedy));
    }
}

fn inbound(resource: &Resource) -> Option<&Inbound> {
    match resource {
        Resource::Inbound(inbound) => Some(inbound),
        _ => None,
    }
}

/// Rules that look at requests, with the ports of bytes that they are for.
fn blind_rules(policy: &Authorization, inbound: &Inbound) -> Vec<(String, BTreeSet<String>)> {
    let blind = inbound.ports.iter().filter(|port| matches!(port.protocol, Protocol::Opaque | Protocol::Tls));
    let blind: Vec<_> = blind.collect();
    let mut rules = Vec::new();
    for rule in &policy.rules {
        let looking = rule.to.iter().filter(|to| !to.methods.is_empty() || !to.paths.is_empty());
        let ports: BTreeSet<String> = looking
            .flat_map(|to| blind.iter().filter(|port| to.ports.is_empty() || to.ports.contains(&port.port)))
            .flat_map(|port| match port.service_ports.as_slice() {
                [] => vec![format!("{}:{}", inbound.workload, port.port)],
                names => names.to_vec(),
            })
            .collect();
        if !ports.is_empty() {
            rules.push((rule.name.clone(), ports));
        }
    }
    rules
}

/// Policies whose targets mean no pod.
fn targets(model: &Model, lints: &mut Vec<Lint>) {
    let authorizations = model.authorizations.values().map(|it| (&it.meta, &it.spec.target_refs));
    let telemetry = model.telemetry.values().map(|it| (&it.meta, &it.spec.target_refs));
    let tls = model.tls.values().map(|it| (&it.meta, &it.spec.target_refs));
    for (meta, targets) in authorizations.chain(telemetry).chain(tls) {
        for target in targets {
            let Some(text) = matches_nothing(model, &meta.key.namespace, target) else { continue };
            let remedy =
                "correct the target, or delete the policy; it comes into force when something matches";
            lints.push(of(meta, Check::TargetMatchesNothing, text, remedy));
        }
    }
}

fn matches_nothing(model: &Model, namespace: &str, target: &TargetRef) -> Option<String> {
    let mut pods = model.pods.values().filter(|pod| !pod.ended && pod.meta.key.namespace == namespace);
    match target.kind {
        // A selector that is not there is refused already.
        TargetKind::Workload if target.selector.is_empty() => None,
        TargetKind::Workload if pods.any(|pod| pod.selected_by(&target.selector)) => None,
        TargetKind::Workload => {
            let labels = target.selector.iter().map(|(name, value)| format!("{name}={value}"));
            let labels: Vec<String> = labels.collect();
            Some(format!("no pod of namespace {namespace} has the labels {}", labels.join(", ")))
        }
        TargetKind::Namespace if pods.next().is_none() => Some(format!("namespace {namespace} has no pod")),
        TargetKind::Namespace | TargetKind::Service | TargetKind::Mesh => None,
    }
}

/// Services that nobody stands behind, and ports that say nothing of their protocol.
fn services(model: &Model, compiled: &Compiled, lints: &mut Vec<Lint>) {
    for service in model.services.values().filter(|service| service.kind != ServiceKind::ExternalName) {
        let names: Vec<String> = service.tcp_ports().map(|port| service.port_name(port.port)).collect();
        let serves = |name: &String| compiled.config.backend(name).is_some_and(|it| !it.endpoints.is_empty());
        if !names.is_empty() && !names.iter().any(serves) {
            let remedy =
                "see `kubectl get endpointslices`; calls are answered with 503 until an endpoint is ready";
            lints.push(of(&service.meta, Check::NoEndpoint, nobody(model, service), remedy));
        }
        for port in service.tcp_ports() {
            let name = service.port_name(port.port);
            let outbound = compiled.config.outbound(&name, &service.meta.key.namespace);
            let declared = outbound.is_none_or(|outbound| outbound.protocol != Protocol::Unspecified);
            // What only pods outside the mesh stand behind is others' to declare.
            let of_others = |it: &Backend| {
                !it.endpoints.is_empty() && it.endpoints.iter().all(|endpoint| endpoint.identity.is_empty())
            };
            if declared || compiled.config.backend(&name).is_some_and(of_others) {
                continue;
            }
            let text = format!(
                "port {} declares no appProtocol: it is guessed from the first bytes of each connection",
                port.port
            );
            let remedy =
                "set the port's appProtocol: http, kubernetes.io/h2c, grpc, https, or tcp for anything else";
            lints.push(of(&service.meta, Check::ProtocolGuessed, text, remedy));
        }
    }
}

fn nobody(model: &Model, service: &Service) -> String {
    let namespace = &service.meta.key.namespace;
    let pods = model.pods.values().filter(|pod| !pod.ended && pod.meta.key.namespace == *namespace);
    let selected: Vec<&Pod> = pods.filter(|pod| pod.selected_by(&service.selector)).collect();
    if service.selector.is_empty() {
        return "it has no endpoint, and no selector that would make any".to_owned();
    }
    match selected.len() {
        0 => "it has no endpoint: no pod has the labels of its selector".to_owned(),
        1 => format!("it has no endpoint: {} is not ready, or lacks the port", selected[0].path()),
        many => format!("it has no endpoint: none of its {many} pods is ready and has the port"),
    }
}

/// Objects that nothing comes of.
fn unreferenced(model: &Model, lints: &mut Vec<Lint>) {
    for route in model.routes.values().filter(|route| route.parents.is_empty() && route.unreadable.is_none())
    {
        let text = "it has no parentRefs, so it applies to nothing".to_owned();
        lints.push(of(
            &route.meta,
            Check::Unreferenced,
            text,
            "name the Service in spec.parentRefs, or delete it",
        ));
    }
    for slice in model.slices.values() {
        if model.service(&slice.meta.key.namespace, &slice.service).is_none() {
            let text = format!("its Service {:?} is not there", slice.service);
            let remedy = "correct the label kubernetes.io/service-name, or delete it";
            lints.push(of(&slice.meta, Check::Unreferenced, text, remedy));
        }
    }
}

#[cfg(test)]
mod tests;
