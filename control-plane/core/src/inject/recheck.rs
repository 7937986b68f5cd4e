//! Pods that run without the sidecar they should have: created while the webhook did not answer, or before
//! their namespace asked.
//!
//! Where it stands: beside the model, told of every object that changed; the application counts what is
//! found here and tells the pods' owners.
//!
//! Invariant: the same decision as the webhook's, from what the model keeps of a pod.
//! Invariant: a change costs what the pods it concerns cost, not what the cluster does.

use std::collections::BTreeMap;

use super::{INJECT, InjectorConfig, Marks, NamespaceFacts, Wish, obstacle, wish};
use crate::model::{Kind, Model, ObjectKey, Pod};

/// What to do about a pod without its sidecar.
const RESTART: &str = "it was created while the injector did not answer, or before its namespace asked: \
                       restart it (kubectl rollout restart); if it then has none again, an event \
                       SidecarNotInjected of it or of its owner says why";

/// Pods without the sidecar they should have, and why, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unmeshed {
    pods: BTreeMap<ObjectKey, String>,
}

impl Unmeshed {
    /// What a whole model holds of them.
    pub fn of(model: &Model, config: &InjectorConfig) -> Self {
        let found =
            model.pods.values().filter_map(|pod| Some((pod.meta.key.clone(), lack(model, pod, config)?)));
        Self { pods: found.collect() }
    }

    /// Takes note that an object changed, as the model stands now; gives whether that changed anything.
    pub fn changed(&mut self, model: &Model, config: &InjectorConfig, key: &ObjectKey) -> bool {
        match key.kind {
            Kind::Pod => self.look(model, config, key),
            Kind::Namespace => {
                let first = ObjectKey::new(Kind::Pod, &key.name, "");
                let there = |pod: &&ObjectKey| pod.namespace == key.name;
                let known = model.pods.range(first.clone()..).map(|(pod, _)| pod).take_while(there);
                let noted = self.pods.range(first..).map(|(pod, _)| pod).take_while(there);
                let pods: Vec<ObjectKey> = known.chain(noted).cloned().collect();
                let changed = pods.iter().filter(|pod| self.look(model, config, pod)).count();
                changed > 0
            }
            _ => false,
        }
    }

    fn look(&mut self, model: &Model, config: &InjectorConfig, key: &ObjectKey) -> bool {
        match model.pods.get(key).and_then(|pod| lack(model, pod, config)) {
            Some(reason) => self.pods.insert(key.clone(), reason.clone()) != Some(reason),
            None => self.pods.remove(key).is_some(),
        }
    }

    /// The pods and why each has none.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = (&ObjectKey, &str)> {
        self.pods.iter().map(|(key, reason)| (key, reason.as_str()))
    }
}

/// Why a pod lacks its sidecar; `None`: it does not.
fn lack(model: &Model, pod: &Pod, config: &InjectorConfig) -> Option<String> {
    if pod.sidecar || pod.ended {
        return None;
    }
    let name = &pod.meta.key.namespace;
    let labels = model.namespace(name).map(|namespace| namespace.labels.clone()).unwrap_or_default();
    let namespace = NamespaceFacts { name: name.clone(), labels, annotations: BTreeMap::new() };
    let asks: BTreeMap<String, String> =
        pod.asks.iter().map(|value| (INJECT.to_owned(), value.clone())).collect();
    match wish(&Marks { labels: Some(&pod.labels), annotations: Some(&asks) }, &namespace, config) {
        Wish::Leave(_) => None,
        Wish::Unclear(reason) => Some(reason),
        Wish::Inject if pod.host_network => Some(obstacle::HOST_NETWORK.to_owned()),
        Wish::Inject => Some(RESTART.to_owned()),
    }
}
