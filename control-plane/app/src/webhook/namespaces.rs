//! What the webhook knows of namespaces: a small watch of its own, on names, labels and annotations.
//!
//! Before it: the API server. After it: `serve` asks by name, without waiting.
//!
//! Invariant: only names, labels and Weft's annotations are kept; a watch that breaks leaves what was
//! known, and begins again with a pause that grows.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, metadata_watcher};
use kube::{Client, ResourceExt as _};
use weft_control_plane_core::inject::{NamespaceFacts, PREFIX};

type Known = BTreeMap<String, NamespaceFacts>;

/// Namespaces as they are known now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct KnownNamespaces {
    known: Arc<RwLock<Known>>,
}

impl KnownNamespaces {
    /// What is known of one; `None`: not that it exists.
    pub fn find(&self, name: &str) -> Option<NamespaceFacts> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Follows the API server for as long as the process lives.
    ///
    /// # Cancel safety
    /// Dropping it ends the watch; what is known stays.
    pub async fn follow(&self, client: Client) {
        let api: Api<Namespace> = Api::all(client);
        let events = metadata_watcher(api, Config::default()).default_backoff();
        tokio::pin!(events);
        let mut listed = Known::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event, &mut listed),
                Err(error) => tracing::warn!(%error, "namespaces cannot be watched for the webhook"),
            }
        }
    }

    /// A list replaces what was known only once it is whole.
    fn take(&self, event: Event<PartialObjectMeta<Namespace>>, listed: &mut Known) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => drop(listed.insert(object.name_any(), facts(&object))),
            Event::InitDone => *known = std::mem::take(listed),
            Event::Apply(object) => drop(known.insert(object.name_any(), facts(&object))),
            Event::Delete(object) => drop(known.remove(&object.name_any())),
        }
    }
}

fn facts(object: &PartialObjectMeta<Namespace>) -> NamespaceFacts {
    let ours = |(name, _): &(&String, &String)| name.starts_with(PREFIX);
    let annotations = object.annotations().iter().filter(ours);
    NamespaceFacts {
        name: object.name_any(),
        labels: object.labels().clone(),
        annotations: annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str, inject: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {
            "name": name, "labels": {"weft.dev/inject": inject},
            "annotations": {"weft.dev/log-level": "debug", "big": "x"},
        }}))
        .unwrap()
    }

    #[test]
    fn a_list_replaces_what_was_known_only_once_it_is_whole() {
        let (namespaces, mut listed) = (KnownNamespaces::default(), Known::new());
        let mut take = |event| namespaces.take(event, &mut listed);
        take(Event::Apply(namespace("a", "enabled")));
        take(Event::Init);
        take(Event::InitApply(namespace("b", "enabled")));
        assert!(namespaces.find("a").is_some() && namespaces.find("b").is_none());
        take(Event::InitDone);
        assert!(namespaces.find("a").is_none());
        assert_eq!(namespaces.find("b").unwrap().annotations.len(), 1);
        take(Event::Apply(namespace("b", "disabled")));
        assert_eq!(namespaces.find("b").unwrap().labels["weft.dev/inject"], "disabled");
        take(Event::Delete(namespace("b", "disabled")));
        assert_eq!(namespaces.find("b"), None);
    }
}
