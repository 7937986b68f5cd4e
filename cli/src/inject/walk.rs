//! Finds the pods in manifests: Pods themselves, and the templates of whatever makes pods.
//!
//! Invariant: a kind that is not known here is left alone, and not mentioned.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use weft_control_plane_core::inject::{INJECT, NamespaceFacts};

/// Kinds that hold a pod, the group of each, and where in it the pod is. Source: the Kubernetes API.
const KINDS: &[(&str, &str, &str)] = &[
    ("Pod", "", ""),
    ("ReplicationController", "", "/spec/template"),
    ("Deployment", "apps", "/spec/template"),
    ("StatefulSet", "apps", "/spec/template"),
    ("DaemonSet", "apps", "/spec/template"),
    ("ReplicaSet", "apps", "/spec/template"),
    ("Job", "batch", "/spec/template"),
    ("CronJob", "batch", "/spec/jobTemplate/spec/template"),
];

/// What becomes of one pod.
pub(super) enum Change {
    /// Another pod: what was done, and what its user should know.
    To(Value, String, Vec<String>),
    /// It stays, for a good reason.
    Skipped(String),
    /// It stays, although it should not.
    Refused(String),
}

/// Decides about a pod in a namespace.
pub(super) type Changing<'a> = dyn Fn(&Value, &str) -> Change + 'a;

/// What was done, a line an object.
#[derive(Debug, Default)]
pub(super) struct Told {
    lines: Vec<String>,
    /// How many should have been changed and were not.
    pub(super) refused: usize,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return writeln!(f, "no pods in these manifests");
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Whoever injects by hand asks for a sidecar; only the pod itself can still decline.
pub(super) fn asking(namespace: &str) -> NamespaceFacts {
    NamespaceFacts {
        name: namespace.to_owned(),
        labels: BTreeMap::from([(INJECT.to_owned(), "enabled".to_owned())]),
        annotations: BTreeMap::new(),
    }
}

/// Changes every pod in an object, or in the items of a List.
pub(super) fn walk(object: &mut Value, change: &Changing<'_>, told: &mut Told) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, version) = (text("/kind"), text("/apiVersion"));
    if kind.ends_with("List") {
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(|item| walk(item, change, told));
        return;
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = KINDS.iter().find(|(known, of, _)| *known == kind && *of == group);
    let Some((_, _, pointer)) = known else { return };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let name = if name.is_empty() { text("/metadata/generateName") } else { name };
    let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
    let subject = format!("{}/{name} in {namespace}", kind.to_ascii_lowercase());
    let Some(pod) = object.pointer_mut(pointer) else {
        told.lines.push(format!("{subject}: skipped: it has no template"));
        return;
    };
    match change(pod, &namespace) {
        Change::To(other, done, warnings) => {
            *pod = other;
            told.lines.push(format!("{subject}: {done}"));
            told.lines.extend(warnings.iter().map(|warning| format!("{subject}: warning: {warning}")));
        }
        Change::Skipped(reason) => told.lines.push(format!("{subject}: skipped: {reason}")),
        Change::Refused(reason) => {
            told.refused += 1;
            told.lines.push(format!("{subject}: refused: {reason}"));
        }
    }
}
