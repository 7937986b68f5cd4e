//! What leads from one object to those that depend on it, and from an address or a label to its pods.
//!
//! Where it stands: beside the model; *world* asks it, and *work* follows it to what a change touches.
//!
//! Invariant: a function of the model alone: linking and unlinking a fact are inverse, in any order.
//! Invariant: a relation may hold more than is meant (a label of many, a pod that has ended); who asks
//! looks at the fact itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_k8s::{TargetKind, TargetRef};

use super::slot::is_ours;
use crate::model::{Fact, Kind, Model, ObjectKey, Pod, Route, Service, ServiceKind, Slice};

/// From something to the objects that have it, in order.
pub(super) type Relation<K> = BTreeMap<K, BTreeSet<ObjectKey>>;

/// One label of a pod: its namespace, the label's name and its value.
pub(super) type Label = (String, String, String);

/// All relations.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    /// Pods by address.
    pub(super) pods_by_address: Relation<IpAddr>,
    /// Pods by each label.
    pub(super) pods_by_label: Relation<Label>,
    /// Pods by node.
    pub(super) pods_by_node: Relation<String>,
    /// Services by the first label that they select.
    pub(super) services_by_label: Relation<Label>,
    /// Services by their own addresses.
    pub(super) services_by_address: Relation<IpAddr>,
    /// Slices by service.
    pub(super) slices_by_service: Relation<ObjectKey>,
    /// Slices by the pods they name.
    pub(super) slices_by_pod: Relation<ObjectKey>,
    /// Slices by their endpoints' addresses.
    pub(super) slices_by_address: Relation<IpAddr>,
    /// Routes by parent.
    pub(super) routes_by_parent: Relation<ObjectKey>,
    /// Routes by the services their rules name.
    pub(super) routes_by_backend: Relation<ObjectKey>,
    /// Traffic policies by target.
    pub(super) traffic_by_target: Relation<ObjectKey>,
    /// Traffic policies by fallback.
    pub(super) traffic_by_fallback: Relation<ObjectKey>,
}

impl Index {
    /// The relations of a model.
    pub(super) fn of(model: &Model) -> Self {
        let mut index = Self::default();
        for (key, fact) in model.keys().filter_map(|key| Some((key, model.fact(key)?))) {
            index.link(key, fact);
        }
        index
    }

    /// Takes a fact in.
    pub(super) fn link(&mut self, key: &ObjectKey, fact: Fact<'_>) {
        self.change(key, fact, true);
    }

    /// Forgets a fact.
    pub(super) fn unlink(&mut self, key: &ObjectKey, fact: Fact<'_>) {
        self.change(key, fact, false);
    }

    fn change(&mut self, key: &ObjectKey, fact: Fact<'_>, linked: bool) {
        match fact {
            Fact::Service(service) => {
                set(&mut self.services_by_label, first_label(service), key, linked);
                set(&mut self.services_by_address, claimed(service), key, linked);
            }
            Fact::Pod(pod) => {
                set(&mut self.pods_by_address, pod.addresses.iter().copied(), key, linked);
                set(&mut self.pods_by_label, labels(pod), key, linked);
                let node = Some(pod.node.clone()).filter(|node| !node.is_empty());
                set(&mut self.pods_by_node, node.into_iter(), key, linked);
            }
            Fact::Slice(slice) => {
                set(&mut self.slices_by_service, of_slice(slice), key, linked);
                set(&mut self.slices_by_pod, named_pods(slice), key, linked);
                let addresses = slice.endpoints.iter().map(|endpoint| endpoint.address);
                set(&mut self.slices_by_address, addresses, key, linked);
            }
            Fact::Route(route) => {
                set(&mut self.routes_by_parent, parents(route), key, linked);
                set(&mut self.routes_by_backend, backends(route), key, linked);
            }
            Fact::Traffic(policy) => {
                let targets = target_services(key, &policy.spec.target_refs);
                set(&mut self.traffic_by_target, targets, key, linked);
                let fallback = policy.spec.fallback.iter().map(|fallback| {
                    let namespace = fallback.namespace.as_deref().unwrap_or(&key.namespace);
                    ObjectKey::new(Kind::Service, namespace, &fallback.name)
                });
                set(&mut self.traffic_by_fallback, fallback, key, linked);
            }
            Fact::Authorization(_)
            | Fact::Tls(_)
            | Fact::Telemetry(_)
            | Fact::Mesh(_)
            | Fact::Unsupported(_)
            | Fact::Node(_)
            | Fact::Namespace(_) => {}
        }
    }
}

fn set<K: Ord>(relation: &mut Relation<K>, from: impl Iterator<Item = K>, to: &ObjectKey, linked: bool) {
    for from in from {
        if linked {
            relation.entry(from).or_default().insert(to.clone());
        } else if let Some(objects) = relation.get_mut(&from) {
            objects.remove(to);
            if objects.is_empty() {
                relation.remove(&from);
            }
        }
    }
}

/// The labels of a pod.
pub(super) fn labels(pod: &Pod) -> impl Iterator<Item = Label> {
    let namespace = &pod.meta.key.namespace;
    pod.labels.iter().map(|(name, value)| (namespace.clone(), name.clone(), value.clone()))
}

/// The first label that a service selects; all of its pods have it.
pub(super) fn first_label(service: &Service) -> impl Iterator<Item = Label> {
    let namespace = &service.meta.key.namespace;
    service.selector.iter().take(1).map(|(name, value)| (namespace.clone(), name.clone(), value.clone()))
}

/// The addresses that a service claims.
pub(super) fn claimed(service: &Service) -> impl Iterator<Item = IpAddr> {
    let has_its_own = service.kind == ServiceKind::ClusterIp;
    service.cluster_ips.iter().copied().filter(move |_| has_its_own)
}

/// The service of a slice.
pub(super) fn of_slice(slice: &Slice) -> impl Iterator<Item = ObjectKey> {
    let named = Some(&slice.service).filter(|service| !service.is_empty());
    named.map(|service| ObjectKey::new(Kind::Service, &slice.meta.key.namespace, service)).into_iter()
}

fn named_pods(slice: &Slice) -> impl Iterator<Item = ObjectKey> {
    let namespace = &slice.meta.key.namespace;
    let names = slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref());
    names.map(|name| ObjectKey::new(Kind::Pod, namespace, name))
}

/// The services that a route attaches to, there or not.
pub(super) fn parents(route: &Route) -> impl Iterator<Item = ObjectKey> {
    let home = &route.meta.key.namespace;
    route
        .parents
        .iter()
        .filter(|parent| is_ours(parent))
        .map(|parent| ObjectKey::new(Kind::Service, parent.namespace.as_ref().unwrap_or(home), &parent.name))
}

/// The services that a route's rules name, there or not.
pub(super) fn backends(route: &Route) -> impl Iterator<Item = ObjectKey> {
    let home = &route.meta.key.namespace;
    let references = route.rules.iter().flatten().flat_map(|rule| &rule.backend_refs);
    references.map(|backend| {
        ObjectKey::new(Kind::Service, backend.namespace.as_ref().unwrap_or(home), &backend.name)
    })
}

/// The services that a policy's targets name, there or not.
pub(super) fn target_services(policy: &ObjectKey, targets: &[TargetRef]) -> impl Iterator<Item = ObjectKey> {
    let services = targets.iter().filter(|target| target.kind == TargetKind::Service);
    let names = services.filter_map(|target| target.name.as_ref());
    names.map(|name| ObjectKey::new(Kind::Service, &policy.namespace, name))
}
