//! Whether a pod is meant to have a sidecar: `weft.dev/inject` on the pod, then on its namespace.
//!
//! Where it stands: first in the injector, and alone in the re-check of running pods.
//!
//! Invariant: a pod's own word beats its namespace's; nothing beats the namespaces that are never
//! injected.

use std::collections::BTreeMap;

use super::{InjectorConfig, NamespaceFacts};

/// The label, and on a pod also the annotation, that asks for a sidecar or declines one.
pub const INJECT: &str = "weft.dev/inject";
/// Set by the kubelet on the mirror of a static pod. Source: Kubernetes' well-known annotations.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Namespaces that are never injected. Source: Kubernetes' own namespaces.
const SYSTEM: [&str; 3] = ["kube-system", "kube-node-lease", "kube-public"];

/// Why a pod is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// It has its sidecar.
    Already,
    /// Pods of this namespace are never injected.
    Namespace,
    /// Neither it nor its namespace asks for a sidecar.
    NotAsked,
    /// It, or its namespace, declines one.
    Disabled,
    /// It stands for a static pod, which only its kubelet can change.
    Mirror,
}

impl Skip {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Already => "it has a sidecar",
            Self::Namespace => "pods of this namespace are never injected",
            Self::NotAsked => "neither it nor its namespace has the label weft.dev/inject: enabled",
            Self::Disabled => "weft.dev/inject: disabled",
            Self::Mirror => "it is a static pod",
        }
    }
}

/// What a pod and its namespace ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A sidecar.
    Inject,
    /// None.
    Leave(Skip),
    /// Something that is not understood.
    Unclear(String),
}

/// The marks of a pod.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks<'a> {
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// Reads the marks.
pub fn wish(pod: &Marks<'_>, namespace: &NamespaceFacts, config: &InjectorConfig) -> Wish {
    let name = namespace.name.as_str();
    let own = name == config.control_plane_namespace;
    if own || SYSTEM.contains(&name) || config.skip_namespaces.iter().any(|skipped| skipped == name) {
        return Wish::Leave(Skip::Namespace);
    }
    if pod.annotations.is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return Wish::Leave(Skip::Mirror);
    }
    let of = |map: Option<&BTreeMap<String, String>>| map.and_then(|map| map.get(INJECT)).cloned();
    let said = [
        ("the pod's label", of(pod.labels)),
        ("the pod's annotation", of(pod.annotations)),
        ("the namespace's label", of(Some(&namespace.labels))),
    ];
    let Some((place, value)) = said.into_iter().find_map(|(place, value)| Some((place, value?))) else {
        return Wish::Leave(Skip::NotAsked);
    };
    match value.as_str() {
        "enabled" => Wish::Inject,
        "disabled" => Wish::Leave(Skip::Disabled),
        _ => Wish::Unclear(format!("{place} {INJECT} is {value:?}: write enabled or disabled")),
    }
}
