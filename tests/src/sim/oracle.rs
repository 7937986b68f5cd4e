//! What the manifests mean, said once more and naively: who may be called, and who may pass.
//!
//! Stands beside the code under test and shares nothing with it: no index, no table, no precompiled
//! set; it walks the facts anew for each question.
//!
//! Invariant: reads facts only, never a resource, a snapshot or the code that made them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::facts::{Aim, Facts, Grant, Id, Match, Policy, Route, Rule, Service, parts};

/// One request, as both sides see it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Method.
    pub(super) method: String,
    /// Path; canonical, but it may hold a `;`.
    pub(super) path: String,
    /// Whether it carries `canary: yes`.
    pub(super) canary: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Namespace and service account that mutual TLS proved.
    pub(super) proven: Option<(String, String)>,
    /// Its address.
    pub(super) ip: IpAddr,
}

/// What may become of a request to a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// 404.
    NoRoute,
    /// 500.
    Broken,
    /// One of these, or 500 if a share of it is invalid.
    Backends(BTreeSet<String>, bool),
}

/// An endpoint: the workload and the identity that it must prove, where known.
pub(super) type Endpoint = (Option<Id>, Option<String>);

/// Who stands behind a service, ready or not.
fn members(facts: &Facts, id: &str, service: &Service) -> BTreeMap<IpAddr, (Option<Id>, bool)> {
    let (namespace, name) = parts(id);
    let Some(slice) = &service.slice else {
        let own = facts.pods.iter().filter(|(pod_id, pod)| parts(pod_id).0 == namespace && pod.app == name);
        return own.map(|(pod_id, pod)| (pod.ip, (Some(pod_id.clone()), pod.ready))).collect();
    };
    let mut found: BTreeMap<IpAddr, (Option<Id>, bool)> = BTreeMap::new();
    for member in slice {
        let named = member.pod.as_ref().map(|pod| format!("{namespace}/{pod}"));
        let named = named.filter(|pod| facts.pods.contains_key(pod));
        let at = || facts.pods.iter().find(|(_, pod)| pod.ip == member.ip).map(|(id, _)| id.clone());
        found.insert(member.ip, (named.or_else(at), member.ready));
    }
    found
}

/// Ready endpoints of a service port; none: there is no such port.
pub(super) fn endpoints(facts: &Facts, name: &str) -> Option<BTreeMap<SocketAddr, Endpoint>> {
    let (id, port) = name.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let service = facts.services.get(id).filter(|service| service.ports.contains(&port))?;
    let ready = members(facts, id, service).into_iter().filter(|(_, (_, ready))| *ready);
    let endpoint = |(ip, (pod, _)): (IpAddr, (Option<Id>, bool))| {
        let identity = pod.as_ref().and_then(|pod| identity(facts, pod));
        (SocketAddr::new(ip, port + 8000), (pod, identity))
    };
    Some(ready.map(endpoint).collect())
}

/// The identity of a pod with a sidecar.
pub(super) fn identity(facts: &Facts, pod_id: &str) -> Option<String> {
    let pod = facts.pods.get(pod_id).filter(|pod| pod.sidecar)?;
    Some(format!("spiffe://cluster.local/ns/{}/sa/{}", parts(pod_id).0, pod.app))
}

/// Where a service port's circuit falls back to.
pub(super) fn fallback(facts: &Facts, name: &str) -> Option<String> {
    let (id, _) = name.rsplit_once(':')?;
    let (service, port) = facts.traffic.get(id)?.fallback.as_ref()?;
    facts.services.get(service).filter(|service| service.ports.contains(port))?;
    Some(format!("{service}:{port}")).filter(|other| other != name)
}

/// What a client of a namespace meets that calls a service port.
pub(super) fn way(facts: &Facts, client: &str, name: &str, asked: &Asked) -> Option<Way> {
    let (id, port) = name.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let home = parts(id).0;
    let here =
        |route: &&(&Id, &Route)| route.1.parent == id && route.1.port.is_none_or(|wanted| wanted == port);
    let routes: Vec<(&Id, &Route)> = facts.routes.iter().collect();
    let of = |namespace: &str| -> Vec<&(&Id, &Route)> {
        routes.iter().filter(here).filter(|(id, _)| parts(id).0 == namespace).collect()
    };
    let consumer = if client == home { Vec::new() } else { of(client) };
    let mut routes = if consumer.is_empty() { of(home) } else { consumer };
    if routes.is_empty() {
        return Some(Way::Backends([name.to_owned()].into(), false));
    }
    routes.sort_by_key(|(id, route)| (route.born, parts(id)));
    let rules = routes.iter().flat_map(|(_, route)| &route.rules);
    let fitting = rules.flat_map(|rule| rule.matches.iter().map(move |one| (one, rule)));
    // Of equals the first is kept: the older route, the earlier rule, the earlier match.
    let best = fitting
        .filter(|(one, _)| fits(one, asked))
        .min_by_key(|(one, _)| Reverse((one.exact, one.path.len(), one.method.is_some(), one.canary)));
    Some(best.map_or(Way::NoRoute, |(_, rule)| shares(facts, rule)))
}

fn fits(one: &Match, asked: &Asked) -> bool {
    let below = || match one.path.as_str() {
        "/" => true,
        path => asked.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    (asked.path == one.path || (!one.exact && below()))
        && one.method.as_ref().is_none_or(|method| *method == asked.method)
        && (!one.canary || asked.canary)
}

fn shares(facts: &Facts, rule: &Rule) -> Way {
    let (mut valid, mut invalid) = (BTreeSet::new(), false);
    for (id, port, _) in rule.backends.iter().filter(|(_, _, weight)| *weight > 0) {
        match facts.services.get(id).is_some_and(|service| service.ports.contains(port)) {
            true => drop(valid.insert(format!("{id}:{port}"))),
            false => invalid = true,
        }
    }
    if valid.is_empty() { Way::Broken } else { Way::Backends(valid, invalid) }
}

/// Policies for a pod.
pub(super) fn policies<'a>(facts: &'a Facts, pod_id: &str) -> BTreeMap<&'a Id, &'a Policy> {
    let applies = |(id, policy): &(&Id, &Policy)| aimed_at(facts, parts(id).0, &policy.aim, pod_id);
    facts.policies.iter().filter(applies).collect()
}

fn aimed_at(facts: &Facts, namespace: &str, aim: &Aim, pod_id: &str) -> bool {
    let same = namespace == parts(pod_id).0;
    match aim {
        Aim::Mesh => namespace == "weft-system",
        Aim::Namespace => same,
        Aim::App(app) => same && facts.pods.get(pod_id).is_some_and(|pod| pod.app == *app),
        Aim::Service(name) => {
            let id = format!("{namespace}/{name}");
            let behind = |service: &Service| {
                members(facts, &id, service).values().any(|(pod, _)| pod.as_deref() == Some(pod_id))
            };
            same && facts.services.get(&id).is_some_and(behind)
        }
    }
}

/// Whether a sidecar can take the policy: one path that has two meanings, and it refuses it.
pub(super) fn takeable(policy: &Policy) -> bool {
    policy.rules.iter().all(|rule| rule.path.as_ref().is_none_or(|path| !path.contains(';')))
}

/// Whether plaintext is refused on a pod's port.
fn strict(facts: &Facts, pod_id: &str, port: u16) -> bool {
    let rank = |aim: &Aim| match aim {
        Aim::App(_) => 0,
        Aim::Service(_) => 1,
        Aim::Namespace => 2,
        Aim::Mesh => 3,
    };
    let aimed = facts.tls.iter().filter(|(id, tls)| aimed_at(facts, parts(id).0, &tls.aim, pod_id));
    let first = aimed.min_by_key(|(id, tls)| (rank(&tls.aim), parts(id)));
    first.is_some_and(|(_, tls)| match tls.port {
        Some((own, strict)) if own == port => strict,
        _ => tls.strict,
    })
}

/// Whether a request may pass at a pod whose sidecar has taken these versions of its policies.
pub(super) fn passes(
    facts: &Facts,
    taken: &BTreeMap<Id, Policy>,
    (pod_id, port): (&str, u16),
    caller: &Caller,
    asked: &Asked,
) -> bool {
    if !facts.pods.contains_key(pod_id) || (caller.proven.is_none() && strict(facts, pod_id, port)) {
        return false;
    }
    let mut in_force = Vec::new();
    for id in policies(facts, pod_id).into_keys() {
        // A policy that applies and is not there denies.
        let Some(policy) = taken.get(id) else { return false };
        in_force.extend(Some(policy).filter(|policy| !policy.shadow));
    }
    let on_paths = in_force.iter().any(|policy| policy.rules.iter().any(|rule| rule.path.is_some()));
    if on_paths && asked.path.contains(';') {
        return false;
    }
    let says = |policy: &Policy| policy.rules.iter().any(|rule| grants(rule, port, caller, asked));
    let denied = in_force.iter().any(|policy| !policy.allow && says(policy));
    let mut allowing = in_force.iter().filter(|policy| policy.allow).peekable();
    !denied && (allowing.peek().is_none() || allowing.any(|policy| says(policy)))
}

fn grants(rule: &Grant, port: u16, caller: &Caller, asked: &Asked) -> bool {
    let proven = caller.proven.as_ref();
    let like = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == pattern,
    };
    let identity = |pattern: &String| {
        let own =
            proven.map(|(namespace, account)| format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"));
        own.is_some_and(|own| like(pattern, &own))
    };
    let account = |wanted: &String| proven.is_some_and(|(ns, account)| format!("{ns}/{account}") == *wanted);
    let net = |net: &[u8; 3]| match caller.ip {
        IpAddr::V4(ip) => ip.octets().starts_with(net),
        IpAddr::V6(_) => false,
    };
    rule.identity.as_ref().is_none_or(identity)
        && rule
            .namespace
            .as_ref()
            .is_none_or(|wanted| proven.is_some_and(|(namespace, _)| namespace == wanted))
        && rule.account.as_ref().is_none_or(account)
        && rule.net.as_ref().is_none_or(net)
        && rule.port.is_none_or(|wanted| wanted == port)
        && rule.method.as_ref().is_none_or(|method| *method == asked.method)
        && rule.path.as_ref().is_none_or(|path| like(path, &asked.path))
}
