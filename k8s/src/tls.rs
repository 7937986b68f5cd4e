//! TlsPolicy: whether a workload accepts plaintext peers.
//!
//! Invariant: exactly one policy decides for a workload, the narrowest and then the oldest; policies
//! are never merged.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::target::{PolicyStatus, TargetRef};

/// Whether the targeted workloads accept plaintext peers. One policy decides for a workload: the one
/// with the narrowest target, then the oldest, then the one with the lowest name.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "TlsPolicy",
    plural = "tlspolicies",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    category = "weft",
    shortname = "tlsp",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].kind","description":"Kind of the first target."}"#,
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.targetRefs[0].name","description":"Name of the first target, if it has one."}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","description":"What is demanded of peers."}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status","description":"Whether it is in force at every target."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason","description":"Why, for machines."}"#,
    printcolumn = r#"{"name":"Sidecars","type":"integer","priority":1,"jsonPath":".status.sidecars.total","description":"Sidecars that it concerns."}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","priority":1,"jsonPath":".status.sidecars.applied","description":"Of these, those that run its newest version."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.targetRefs.all(target, target.kind != 'Service')")
    .message("a TlsPolicy targets workloads, a namespace or the mesh"))]
pub struct TlsPolicySpec {
    /// What the policy applies to: 1 to 16 targets of kind Workload, Namespace or Mesh.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What is demanded of peers. Permissive: plaintext and mutual TLS are accepted. Strict: only mutual
    /// TLS is.
    pub mode: MutualTls,
    /// Ports that demand something else, at most 64, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".to_owned()]))]
    pub ports: Vec<PortMutualTls>,
}

/// What is demanded of peers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum MutualTls {
    /// Plaintext and mutual TLS are accepted.
    #[default]
    Permissive,
    /// Only mutual TLS is accepted.
    Strict,
}

/// What one port demands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMutualTls {
    /// Port of the workload (not of a Service), 1 to 65535.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// What this port demands of peers: Permissive or Strict, as above.
    pub mode: MutualTls,
}
