//! The way back: a pod, or template, without what the injector added.
//!
//! Where it stands: for `weft uninject`.
//!
//! Invariant: removing what was injected gives the pod as it was; a pod without a sidecar is not changed.

use serde_json::{Map, Value};

use super::evictable::{self, EVICTABLE};
use super::{IDENTITY_VOLUME, INIT_CONTAINER, STATE_VOLUME, VERSION_ANNOTATION};
use crate::model::{SIDECAR_ANNOTATION, SIDECAR_CONTAINER};

/// The pod without its sidecar; `None`: it has none of the injector's.
pub fn remove(pod: &Value) -> Option<Value> {
    pod.pointer("/metadata/annotations")?.get(SIDECAR_ANNOTATION)?;
    let mut pod = pod.clone();
    let metadata = pod.get_mut("metadata")?.as_object_mut()?;
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(SIDECAR_ANNOTATION);
        annotations.remove(VERSION_ANNOTATION);
        match annotations.get(EVICTABLE).and_then(Value::as_str).map(evictable::without) {
            Some(Some(rest)) => drop(annotations.insert(EVICTABLE.to_owned(), Value::String(rest))),
            Some(None) => drop(annotations.remove(EVICTABLE)),
            None => {}
        }
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        without(spec, "initContainers", &[INIT_CONTAINER, SIDECAR_CONTAINER]);
        without(spec, "containers", &[SIDECAR_CONTAINER]);
        without(spec, "volumes", &[IDENTITY_VOLUME, STATE_VOLUME]);
    }
    Some(pod)
}

fn without(spec: &mut Map<String, Value>, list: &str, names: &[&str]) {
    let Some(items) = spec.get_mut(list).and_then(Value::as_array_mut) else { return };
    items.retain(|item| !item.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(&name)));
    if items.is_empty() {
        spec.remove(list);
    }
}
