//! What many sidecars say of their edges, put together: pods of a workload into one, and both ends of an edge
//! side by side.
//!
//! A caller's sidecar knows the callee's pod; a callee's sidecar knows the caller's identity. Where an identity
//! is that of several workloads, the callee's view stays by itself, under the account's name.
//!
//! Invariant: counts are sums, and quantiles are those of all requests together, not of quantiles.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::v1;
use weft_proto::v1::question::What;

use super::owners::Owners;

/// Edges that are shown. Source: Weft's own; more is for a metrics store.
const EDGES: usize = 20_000;
/// Edges that are taken of one sidecar. Source: the series that one holds at most.
const OF_ONE: usize = 10_000;
/// Names that one edge gathers: services, routes. Source: Weft's own; a person reads a few.
const NAMES: usize = 64;

/// Puts readings together.
pub(super) struct Merger {
    by: By,
    subject: Option<v1::Subject>,
    from: Option<v1::Subject>,
    to: Option<v1::Subject>,
    owners: Owners,
    edges: BTreeMap<Ends, Edge>,
    recent_millis: u64,
    left_out: u64,
}

/// What an edge's ends are shown as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Workload,
    Pod,
    Service,
    Namespace,
}

/// Namespace and name of both ends.
type Ends = [(String, String); 2];

#[derive(Default)]
struct Edge {
    identities: [String; 2],
    services: BTreeSet<String>,
    protocols: BTreeSet<String>,
    client: Sum,
    server: Sum,
}

/// An edge as sidecars at one end see it.
#[derive(Default)]
struct Sum {
    sidecars: BTreeSet<String>,
    security: BTreeSet<String>,
    routes: BTreeSet<String>,
    total: v1::Signals,
    recent: v1::Signals,
    rate: f64,
    /// Requests by the upper bound of how long they took, in nanoseconds.
    durations: BTreeMap<u64, u64>,
    /// And of how long their answers' heads took.
    first_bytes: BTreeMap<u64, u64>,
    connections: u64,
    ejected: u64,
    open: BTreeSet<String>,
}

impl Merger {
    pub(super) fn new(question: &v1::Question, owners: Owners) -> Self {
        let stat = match &question.what {
            Some(What::Stat(stat)) => stat.clone(),
            _ => v1::StatQuestion::default(),
        };
        let by = match stat.by.as_str() {
            "pod" => By::Pod,
            "service" => By::Service,
            "namespace" => By::Namespace,
            _ => By::Workload,
        };
        Self {
            by,
            subject: question.subject.clone(),
            from: stat.from,
            to: stat.to,
            owners,
            edges: BTreeMap::new(),
            recent_millis: 0,
            left_out: 0,
        }
    }

    /// Takes what the sidecar of `pod`, "namespace/name", counts.
    pub(super) fn take(&mut self, pod: &str, reading: v1::Reading) {
        self.recent_millis = self.recent_millis.max(reading.recent_millis);
        let over = reading.edges.len().saturating_sub(OF_ONE);
        self.left_out = self.left_out.saturating_add(reading.left_out).saturating_add(over as u64);
        let scale = (reading.recent_millis, reading.bounds_nanos);
        for edge in reading.edges.into_iter().take(OF_ONE) {
            self.add(pod, edge, &scale);
        }
    }

    fn add(&mut self, pod: &str, edge: v1::EdgeReading, scale: &(u64, Vec<u64>)) {
        let outbound = edge.direction == "outbound";
        let source = edge.source.clone().unwrap_or_default();
        let destination = edge.destination.clone().unwrap_or_default();
        let ends = if outbound {
            [self.own(pod, &source), self.callee(&destination, &edge.service)]
        } else {
            [self.caller(&source), self.own(pod, &destination)]
        };
        let wanted = |subject: &Option<v1::Subject>, at: &[usize]| {
            subject
                .as_ref()
                .is_none_or(|subject| at.iter().any(|at| is(subject, &ends[*at], *at, pod, &edge)))
        };
        if !wanted(&self.subject, &[0, 1]) || !wanted(&self.from, &[0]) || !wanted(&self.to, &[1]) {
            return;
        }
        let key = self.key(ends, &edge.service);
        if self.edges.len() >= EDGES && !self.edges.contains_key(&key) {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let held = self.edges.entry(key).or_default();
        for (held, told) in held.identities.iter_mut().zip([source.identity, destination.identity]) {
            if held.is_empty() {
                *held = told;
            }
        }
        note(&mut held.services, &edge.service);
        note(&mut held.protocols, &edge.protocol);
        let side = if outbound { &mut held.client } else { &mut held.server };
        side.add(pod, &edge, scale);
    }

    /// The pod that tells.
    fn own(&self, pod: &str, told: &v1::Party) -> (String, String) {
        let (namespace, name) = pod.split_once('/').unwrap_or(("", pod));
        let name = match self.by {
            By::Pod => name,
            _ => self.owners.owner(pod).unwrap_or(if told.name.is_empty() { name } else { &told.name }),
        };
        (namespace.to_owned(), name.to_owned())
    }

    /// Whom a caller's sidecar called: a pod it knows, or what was asked for.
    fn callee(&self, told: &v1::Party, service: &str) -> (String, String) {
        if told.name.is_empty() {
            return (String::new(), service.to_owned());
        }
        let owner = || self.owners.owner(&format!("{}/{}", told.namespace, told.name));
        let name = if self.by == By::Pod { None } else { owner() };
        (told.namespace.clone(), name.unwrap_or(&told.name).to_owned())
    }

    /// Who called, by its identity; nobody where it proved none.
    fn caller(&self, told: &v1::Party) -> (String, String) {
        if told.name.is_empty() {
            return (String::new(), String::new());
        }
        let name = match self.owners.of_account(&told.namespace, &told.name) {
            Some(owner) => owner.to_owned(),
            None => format!("sa/{}", told.name),
        };
        (told.namespace.clone(), name)
    }

    fn key(&self, [source, destination]: Ends, service: &str) -> Ends {
        match self.by {
            By::Workload | By::Pod => [source, destination],
            By::Service => {
                let called = service.split_once('/').map(|(namespace, name)| {
                    (namespace.to_owned(), name.rsplit_once(':').map_or(name, |(name, _)| name).to_owned())
                });
                let called = called.unwrap_or_else(|| (String::new(), service.to_owned()));
                [source, called]
            }
            By::Namespace => [(source.0, String::new()), (destination.0, String::new())],
        }
    }

    /// The edges, sorted.
    pub(super) fn finish(self) -> v1::Edges {
        let party =
            |(namespace, name): (String, String), identity: String| v1::Party { namespace, name, identity };
        let one = |([source, destination], edge): (Ends, Edge)| {
            let [from, to] = edge.identities;
            v1::EdgeView {
                source: Some(party(source, from)),
                destination: Some(party(destination, to)),
                services: edge.services.into_iter().collect(),
                protocols: edge.protocols.into_iter().collect(),
                client: edge.client.sight(),
                server: edge.server.sight(),
            }
        };
        v1::Edges {
            recent_millis: self.recent_millis,
            edges: self.edges.into_iter().map(one).collect(),
            left_out: self.left_out,
        }
    }
}

/// Whether an end is a subject; `at` 0 is the source.
fn is(
    subject: &v1::Subject,
    (namespace, name): &(String, String),
    at: usize,
    pod: &str,
    edge: &v1::EdgeReading,
) -> bool {
    let any = subject.name.is_empty();
    let here = subject.namespace.is_empty() || *namespace == subject.namespace;
    match subject.kind.as_str() {
        "" => true,
        "workload" => here && (any || *name == subject.name),
        "namespace" => any || *namespace == subject.name,
        "pod" => {
            let tells = if edge.direction == "outbound" { 0 } else { 1 };
            let own = tells == at && pod == format!("{}/{}", subject.namespace, subject.name);
            let party = if at == 0 { &edge.source } else { &edge.destination };
            let told = party
                .as_ref()
                .is_some_and(|party| party.namespace == subject.namespace && party.name == subject.name);
            if any { here } else { own || told }
        }
        // A service is called and calls nobody.
        "service" => {
            let start = if any {
                format!("{}/", subject.namespace)
            } else {
                format!("{}/{}:", subject.namespace, subject.name)
            };
            at == 1 && edge.service.starts_with(&start)
        }
        _ => false,
    }
}

fn note(names: &mut BTreeSet<String>, name: &str) {
    if !name.is_empty() && names.len() < NAMES {
        names.insert(name.to_owned());
    }
}

impl Sum {
    fn add(&mut self, pod: &str, edge: &v1::EdgeReading, (millis, bounds): &(u64, Vec<u64>)) {
        self.sidecars.insert(pod.to_owned());
        note(&mut self.security, &edge.security);
        note(&mut self.routes, &edge.route);
        let recent = edge.recent.clone().unwrap_or_default();
        if *millis > 0 {
            self.rate += recent.requests as f64 * 1_000.0 / *millis as f64;
        }
        add(&mut self.recent, &recent);
        add(&mut self.total, &edge.total.clone().unwrap_or_default());
        gather(&mut self.durations, bounds, &edge.buckets);
        gather(&mut self.first_bytes, bounds, &edge.first_byte_buckets);
        self.connections = self.connections.saturating_add(edge.connections);
        self.ejected = self.ejected.max(edge.ejected);
        if edge.circuit_open {
            self.open.insert(pod.to_owned());
        }
    }

    fn sight(self) -> Option<v1::Sight> {
        if self.sidecars.is_empty() {
            return None;
        }
        let millis = |of, share| quantile(of, share).map(|nanos| nanos / 1e6);
        let requests = self.recent.requests;
        let security = match self.security.len() {
            0 | 1 => self.security.first().cloned().unwrap_or_default(),
            _ => "mixed".to_owned(),
        };
        Some(v1::Sight {
            sidecars: self.sidecars.len() as u64,
            security,
            rate: self.rate,
            success: (requests > 0).then(|| 1.0 - self.recent.failures as f64 / requests as f64),
            p50_ms: millis(&self.durations, 0.5),
            p95_ms: millis(&self.durations, 0.95),
            p99_ms: millis(&self.durations, 0.99),
            first_byte_p50_ms: millis(&self.first_bytes, 0.5),
            first_byte_p99_ms: millis(&self.first_bytes, 0.99),
            connections: self.connections,
            ejected: self.ejected,
            circuits_open: self.open.len() as u64,
            routes: self.routes.iter().cloned().collect(),
            total: Some(self.total),
            recent: Some(self.recent),
        })
    }
}

fn gather(sum: &mut BTreeMap<u64, u64>, bounds: &[u64], buckets: &[u64]) {
    let bounds = bounds.iter().copied().chain([u64::MAX]);
    for (bound, count) in bounds.zip(buckets).take(BUCKETS) {
        let held = sum.entry(bound).or_default();
        *held = held.saturating_add(*count);
    }
}

fn add(sum: &mut v1::Signals, more: &v1::Signals) {
    sum.requests = sum.requests.saturating_add(more.requests);
    sum.failures = sum.failures.saturating_add(more.failures);
    sum.refused = sum.refused.saturating_add(more.refused);
    sum.retries = sum.retries.saturating_add(more.retries);
    sum.connections = sum.connections.saturating_add(more.connections);
    sum.bytes_up = sum.bytes_up.saturating_add(more.bytes_up);
    sum.bytes_down = sum.bytes_down.saturating_add(more.bytes_down);
    sum.classes.resize(CLASSES, 0);
    for (sum, more) in sum.classes.iter_mut().zip(&more.classes) {
        *sum = sum.saturating_add(*more);
    }
}

/// Source: none, and the five first digits of RFC 9110 §15.
const CLASSES: usize = 6;

/// Buckets that are taken of one edge. Source: five times as many as a sidecar has.
const BUCKETS: usize = 256;

/// The duration that a share of the requests did not exceed, interpolated within its bucket.
fn quantile(durations: &BTreeMap<u64, u64>, share: f64) -> Option<f64> {
    let count: u64 = durations.values().fold(0, |sum, count| sum.saturating_add(*count));
    if count == 0 {
        return None;
    }
    let rank = (share * count as f64).max(1.0);
    let (mut below, mut lower) = (0_u64, 0_u64);
    for (bound, count) in durations {
        let reached = below.saturating_add(*count);
        if *count > 0 && reached as f64 >= rank {
            // Beyond the last bound nothing is known but that.
            let upper = if *bound == u64::MAX { lower } else { *bound };
            let within = (rank - below as f64) / *count as f64;
            return Some(lower as f64 + within * upper.saturating_sub(lower) as f64);
        }
        (below, lower) = (reached, if *bound == u64::MAX { lower } else { *bound });
    }
    Some(lower as f64)
}

#[cfg(test)]
mod tests;
