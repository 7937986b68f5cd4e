//! What is to be compiled again because a fact changed.
//!
//! Where it stands: between a change of the model and *step*. Asked about the fact before the change and
//! after it, so what the change takes away is found as well as what it brings.
//!
//! ```text
//! Service ──→ itself, its addresses, routes and traffic policies that name it
//! Slice ────→ its Service            Pod ──→ itself, its addresses, Services that may have it
//! Route ────→ itself, its parents, their other routes       Mesh ──→ everything
//! Node ─────→ its pods
//! TrafficPolicy → itself, its targets, their other policies
//! AuthorizationPolicy, TlsPolicy, TelemetryPolicy → itself, the pods of its namespace or of the mesh
//! ```
//!
//! Invariant: too much may be listed, never too little. What follows from compiled results (the pods
//! behind a service, the backends of a slot) is added by *step*.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound::{Included, Unbounded},
};

use weft_k8s::{TargetKind, TargetRef};

use super::index::{self, Index};
use crate::model::{Fact, Kind, Model, ObjectKey, Pod, Route, Service};

/// What is to be compiled again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Work {
    /// All of it.
    pub(super) everything: bool,
    /// Services: how each is called, and who stands behind it.
    pub(super) services: BTreeSet<ObjectKey>,
    /// Services: only who stands behind each.
    pub(super) members: BTreeSet<ObjectKey>,
    /// Pods: how each receives.
    pub(super) pods: BTreeSet<ObjectKey>,
    /// Addresses that services claim.
    pub(super) service_addresses: BTreeSet<IpAddr>,
    /// Addresses that pods have.
    pub(super) pod_addresses: BTreeSet<IpAddr>,
    /// Routes: what became of each.
    pub(super) routes: BTreeSet<ObjectKey>,
    /// All other objects of which something is said, and policies that are resources themselves.
    pub(super) objects: BTreeSet<ObjectKey>,
}

impl Work {
    /// Everything that a model leads to.
    pub(super) fn everything(model: &Model) -> Self {
        let mut work = Self { everything: true, ..Self::default() };
        work.services.extend(model.services.keys().cloned());
        work.pods.extend(model.pods.keys().cloned());
        work.routes.extend(model.routes.keys().cloned());
        work.service_addresses.extend(model.services.values().flat_map(index::claimed));
        work.pod_addresses.extend(model.pods.values().flat_map(|pod| pod.addresses.iter().copied()));
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Pod, Kind::HttpRoute, Kind::GrpcRoute];
        let others = model.keys().filter(|key| !kinds.contains(&key.kind));
        work.objects.extend(others.chain(model.services.keys()).cloned());
        work
    }

    /// Adds other work.
    pub(super) fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.services.extend(other.services);
        self.members.extend(other.members);
        self.pods.extend(other.pods);
        self.service_addresses.extend(other.service_addresses);
        self.pod_addresses.extend(other.pod_addresses);
        self.routes.extend(other.routes);
        self.objects.extend(other.objects);
    }

    /// Adds what a fact leads to, as the model and its relations stand.
    pub(super) fn touch(&mut self, model: &Model, index: &Index, key: &ObjectKey, fact: Fact<'_>) {
        match fact {
            Fact::Service(service) => self.service(model, index, service),
            Fact::Slice(slice) => self.members.extend(index::of_slice(slice)),
            Fact::Pod(pod) => self.pod(model, index, pod),
            Fact::Route(route) => self.route(index, route),
            Fact::Traffic(policy) => {
                for service in index::target_services(key, &policy.spec.target_refs) {
                    add(&mut self.objects, index.traffic_by_target.get(&service));
                    self.services.insert(service);
                }
                self.objects.insert(key.clone());
            }
            Fact::Authorization(policy) => self.policy(model, key, &policy.spec.target_refs),
            Fact::Tls(policy) => self.policy(model, key, &policy.spec.target_refs),
            Fact::Telemetry(policy) => self.policy(model, key, &policy.spec.target_refs),
            Fact::Mesh(_) => {
                self.everything = true;
                self.objects.insert(key.clone());
            }
            Fact::Unsupported(_) => drop(self.objects.insert(key.clone())),
            Fact::Node(_) => {
                let pods = index.pods_by_node.get(&key.name).into_iter().flatten();
                pods.filter_map(|pod| model.pods.get(pod)).for_each(|pod| self.pod(model, index, pod));
            }
            // Injection looks at these; nothing is compiled of them.
            Fact::Namespace(_) => {}
        }
    }

    fn service(&mut self, model: &Model, index: &Index, service: &Service) {
        let key = &service.meta.key;
        self.services.insert(key.clone());
        self.objects.insert(key.clone());
        for address in index::claimed(service) {
            self.service_addresses.insert(address);
            add(&mut self.objects, index.services_by_address.get(&address));
        }
        for routes in [&index.routes_by_parent, &index.routes_by_backend] {
            add(&mut self.routes, routes.get(key));
        }
        for policies in [&index.traffic_by_target, &index.traffic_by_fallback] {
            add(&mut self.objects, policies.get(key));
        }
        for policy in in_namespace(&model.authorizations, Kind::AuthorizationPolicy, &key.namespace) {
            let mut targets = index::target_services(&policy.meta.key, &policy.spec.target_refs);
            if targets.any(|target| target == *key) {
                self.objects.insert(policy.meta.key.clone());
            }
        }
        // A fallback that comes or goes changes the Backends of whoever falls back to it.
        let fallbacks = index.traffic_by_fallback.get(key).into_iter().flatten();
        for policy in fallbacks.filter_map(|policy| model.traffic.get(policy)) {
            self.members.extend(index::target_services(&policy.meta.key, &policy.spec.target_refs));
        }
    }

    fn pod(&mut self, model: &Model, index: &Index, pod: &Pod) {
        self.pods.insert(pod.meta.key.clone());
        self.pod_addresses.extend(pod.addresses.iter().copied());
        let selecting = index::labels(pod).filter_map(|label| index.services_by_label.get(&label)).flatten();
        let selects = |service: &&ObjectKey| {
            model.services.get(*service).is_some_and(|service| pod.selected_by(&service.selector))
        };
        let selecting = selecting.filter(selects).cloned();
        // Opaque ports change how a service is called, all else of a pod only who stands behind it.
        let to = if pod.opaque_ports.is_empty() { &mut self.members } else { &mut self.services };
        to.extend(selecting);
        let by_address = pod.addresses.iter().filter_map(|address| index.slices_by_address.get(address));
        for slices in by_address.chain(index.slices_by_pod.get(&pod.meta.key)) {
            let slices = slices.iter().filter_map(|slice| model.slices.get(slice));
            self.members.extend(slices.flat_map(index::of_slice));
        }
    }

    fn route(&mut self, index: &Index, route: &Route) {
        self.routes.insert(route.meta.key.clone());
        for parent in index::parents(route) {
            add(&mut self.routes, index.routes_by_parent.get(&parent));
            self.services.insert(parent);
        }
    }

    fn policy(&mut self, model: &Model, key: &ObjectKey, targets: &[TargetRef]) {
        self.objects.insert(key.clone());
        let for_all = targets.iter().any(|target| target.kind == TargetKind::Mesh);
        if for_all && key.namespace == model.root_namespace {
            self.pods.extend(model.pods.keys().cloned());
        } else {
            let pods = in_namespace(&model.pods, Kind::Pod, &key.namespace);
            self.pods.extend(pods.map(|pod| pod.meta.key.clone()));
        }
    }
}

/// The facts of one namespace, of a map of one kind.
pub(super) fn in_namespace<'a, T>(
    facts: &'a BTreeMap<ObjectKey, T>,
    kind: Kind,
    namespace: &str,
) -> impl Iterator<Item = &'a T> + use<'a, T> {
    let namespace = namespace.to_owned();
    let first = ObjectKey::new(kind, &namespace, "");
    let there = facts.range((Included(first), Unbounded));
    there.take_while(move |(key, _)| key.namespace == namespace).map(|(_, fact)| fact)
}

fn add(to: &mut BTreeSet<ObjectKey>, from: Option<&BTreeSet<ObjectKey>>) {
    to.extend(from.into_iter().flatten().cloned());
}
