//! What was compiled, kept from one change to the next, and how the next differs from it.
//!
//! Where it stands: *step* writes it; the compiler hands the difference to *publish*.
//!
//! Invariant: a difference lists what is not equal, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use super::{inbound::Expected, kinds::Kinds};
use crate::{
    config::{Key, PodAddress, Resource, ResourceType},
    model::ObjectKey,
    report::{ObjectReport, Report},
};

/// How one compiled state differs from the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Resources that are new or not what they were.
    pub upserts: BTreeMap<Key, Arc<Resource>>,
    /// Resources that are gone.
    pub removals: BTreeSet<Key>,
    /// Addresses whose pods are not what they were; without any: no pod has it.
    pub pods: BTreeMap<IpAddr, Arc<[PodAddress]>>,
    /// Objects of which something else is said than before; absent: nothing is said any more.
    pub reports: BTreeMap<ObjectKey, Option<ObjectReport>>,
}

impl Delta {
    /// Whether sidecars see no difference.
    pub fn is_silent(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && self.pods.is_empty()
    }
}

/// What was compiled.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// All resources.
    pub(super) resources: BTreeMap<Key, Arc<Resource>>,
    /// Pods by address.
    pub(super) pods: BTreeMap<IpAddr, Arc<[PodAddress]>>,
    /// What became of each object.
    pub(super) report: Report,
    /// Which kinds of route lead where.
    pub(super) kinds: Kinds,
    /// What each service expects of each of its pods.
    pub(super) expected: BTreeMap<ObjectKey, BTreeMap<ObjectKey, Expected>>,
    /// The services behind which each pod stands.
    pub(super) serving: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// What differs from the state before.
    pub(super) delta: Delta,
}

impl State {
    /// Takes a resource in.
    pub(super) fn put(&mut self, key: Key, resource: Resource) {
        if self.resources.get(&key).is_some_and(|before| **before == resource) {
            return;
        }
        let resource = Arc::new(resource);
        self.delta.upserts.insert(key.clone(), Arc::clone(&resource));
        self.resources.insert(key, resource);
    }

    /// Drops a resource.
    pub(super) fn drop(&mut self, key: Key) {
        if self.resources.remove(&key).is_some() {
            self.delta.removals.insert(key);
        }
    }

    /// Takes all resources of a kind whose names begin alike; those that are not among them are gone.
    pub(super) fn put_all(
        &mut self,
        kind: ResourceType,
        prefix: &str,
        resources: impl IntoIterator<Item = (Key, Resource)>,
    ) {
        let first = Key::new(kind, prefix);
        let from_there = self.resources.range((Included(first), Unbounded)).map(|(key, _)| key);
        let there = from_there.take_while(|key| key.kind == kind && key.name.starts_with(prefix));
        let mut stale: BTreeSet<Key> = there.cloned().collect();
        for (key, resource) in resources {
            stale.remove(&key);
            self.put(key, resource);
        }
        stale.into_iter().for_each(|key| self.drop(key));
    }

    /// Takes the pods that have an address.
    pub(super) fn put_pods(&mut self, address: IpAddr, pods: Vec<PodAddress>) {
        let before = self.pods.get(&address).map_or(&[][..], |pods| pods);
        if *before == *pods {
            return;
        }
        let pods: Arc<[PodAddress]> = pods.into();
        if pods.is_empty() {
            self.pods.remove(&address);
        } else {
            self.pods.insert(address, Arc::clone(&pods));
        }
        self.delta.pods.insert(address, pods);
    }

    /// Takes what is said of an object, if anything is.
    pub(super) fn tell(&mut self, key: &ObjectKey, report: Option<ObjectReport>) {
        if self.report.objects.get(key) == report.as_ref() {
            return;
        }
        match &report {
            Some(report) => drop(self.report.objects.insert(key.clone(), report.clone())),
            None => drop(self.report.objects.remove(key)),
        }
        self.delta.reports.insert(key.clone(), report);
    }

    /// Takes what a service expects of its pods; returns the pods to which that makes a difference.
    pub(super) fn expect(
        &mut self,
        service: &ObjectKey,
        expected: BTreeMap<ObjectKey, Expected>,
    ) -> Vec<ObjectKey> {
        let before = self.expected.remove(service).unwrap_or_default();
        let mut changed = Vec::new();
        for pod in before.keys().filter(|pod| !expected.contains_key(*pod)) {
            changed.push(pod.clone());
            if let Some(services) = self.serving.get_mut(pod) {
                services.remove(service);
                if services.is_empty() {
                    self.serving.remove(pod);
                }
            }
        }
        for (pod, now) in &expected {
            if before.get(pod) != Some(now) {
                changed.push(pod.clone());
                self.serving.entry(pod.clone()).or_default().insert(service.clone());
            }
        }
        if !expected.is_empty() {
            self.expected.insert(service.clone(), expected);
        }
        changed
    }

    /// What the services expect behind which a pod stands.
    pub(super) fn expected_of(&self, pod: &ObjectKey) -> impl Iterator<Item = (&ObjectKey, &Expected)> {
        let services = self.serving.get(pod).into_iter().flatten();
        let pod = pod.clone();
        services.filter_map(move |service| Some((service, self.expected.get(service)?.get(&pod)?)))
    }
}
