//! Takes out of an object what the model never reads, before anything is made of it.
//!
//! Before it: `watch` received the object. After it: `sight` reads what is left into its type.
//!
//! Invariant: what stays of a Pod, a Node and a Namespace is a list of what is read; of any other kind
//! what goes is a list of what only machines write. A field that a person wrote in a kind of ours stays.

use serde_json::{Map, Value};
use weft_control_plane_core::model::Kind;

/// What stays of a Pod.
const POD: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "metadata.ownerReferences",
    "spec.serviceAccountName",
    "spec.nodeName",
    "spec.hostNetwork",
    "spec.containers",
    "spec.initContainers",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.hostIP",
    "status.hostIPs",
    "status.conditions",
];
/// What stays of a Node.
const NODE: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.labels",
    "spec.podCIDR",
    "spec.podCIDRs",
    "status.addresses",
];
/// What stays of a Namespace.
const NAMESPACE: &[&str] =
    &["apiVersion", "kind", "metadata.name", "metadata.labels", "metadata.annotations"];
/// What stays of a container.
const CONTAINER: &[&str] =
    &["name", "ports", "restartPolicy", "livenessProbe", "readinessProbe", "startupProbe"];
/// Prefix of the annotations that are read.
const OURS: &str = "weft.dev/";
/// Annotation of kubectl that holds the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Trims an object of a kind.
pub fn trim(kind: Kind, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    match kind {
        Kind::Pod => pod(fields),
        Kind::Node => keep(fields, NODE),
        Kind::Namespace => {
            keep(fields, NAMESPACE);
            annotated(fields);
        }
        _ => drop(fields.remove("status")),
    }
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
    }
}

/// Of annotations only ours stay.
fn annotated(fields: &mut Map<String, Value>) {
    if let Some(Value::Object(annotations)) =
        fields.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
    {
        annotations.retain(|name, _| name.starts_with(OURS));
    }
}

fn pod(fields: &mut Map<String, Value>) {
    keep(fields, POD);
    annotated(fields);
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            keep(container, CONTAINER);
        }
    }
}

/// Keeps the fields of a list, one or two names deep.
fn keep(fields: &mut Map<String, Value>, kept: &[&str]) {
    fields.retain(|name, value| {
        if kept.contains(&name.as_str()) {
            return true;
        }
        let names: Vec<&str> =
            kept.iter().filter_map(|path| path.strip_prefix(name.as_str())?.strip_prefix('.')).collect();
        match value.as_object_mut() {
            Some(fields) if !names.is_empty() => {
                fields.retain(|name, _| names.contains(&name.as_str()));
                true
            }
            _ => false,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use weft_control_plane_core::model::{Model, read};

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "cart-7d-x", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
                "labels": {"app": "cart", "pod-template-hash": "7d"},
                "annotations": {"weft.dev/sidecar": "injected", "big": "x"},
                "managedFields": [{"manager": "kubelet"}],
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7d", "uid": "u-2", "controller": true}
                ],
            },
            "spec": {
                "serviceAccountName": "cart", "nodeName": "n1", "hostNetwork": false,
                "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [],
                "containers": [{
                    "name": "app", "image": "cart:1", "env": [{"name": "PASSWORD", "value": "hunter2"}],
                    "ports": [{"name": "web", "containerPort": 8080}],
                    "livenessProbe": {"httpGet": {"port": "web", "path": "/live"}},
                }],
                "initContainers": [{"name": "weft-proxy", "image": "p", "restartPolicy": "Always"}],
            },
            "status": {
                "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
                "hostIP": "192.168.0.1", "hostIPs": [{"ip": "192.168.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "app", "image": "cart:1"}],
            },
        })
    }

    fn model(object: Value) -> Model {
        let mut model = Model::default();
        model.apply(read(object).unwrap().unwrap().object, None);
        model
    }

    #[test]
    fn a_trimmed_pod_gives_the_same_facts() {
        let mut trimmed = pod();
        trim(Kind::Pod, &mut trimmed);
        assert_eq!(model(trimmed), model(pod()));
    }

    #[test]
    fn secrets_and_bulk_of_a_pod_are_not_kept() {
        let mut trimmed = pod();
        trim(Kind::Pod, &mut trimmed);
        let text = trimmed.to_string();
        for gone in ["hunter2", "managedFields", "volumes", "containerStatuses", "\"big\"", "image"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        for kept in ["livenessProbe", "u-1", "\"n1\"", "hostIPs", "restartPolicy"] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }

    #[test]
    fn of_a_route_only_what_machines_wrote_goes() {
        let mut route = json!({
            "metadata": {"name": "r", "managedFields": [], "annotations": {LAST_APPLIED: "{}", "mine": "x"}},
            "spec": {"rules": [{"unheard": "of"}]},
            "status": {"parents": []},
        });
        trim(Kind::HttpRoute, &mut route);
        let left = json!({"metadata": {"name": "r", "annotations": {"mine": "x"}}, "spec": {"rules": [{"unheard": "of"}]}});
        assert_eq!(route, left);
    }

    #[test]
    fn nonsense_is_left_alone() {
        for mut nonsense in [json!(null), json!([]), json!({"spec": 3, "metadata": []})] {
            trim(Kind::Pod, &mut nonsense);
            trim(Kind::Service, &mut nonsense);
        }
    }
}
