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
    category = "weft"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.targetRefs.all(target, target.kind != 'Service')")
    .message("a TlsPolicy targets workloads, a namespace or the mesh"))]
pub struct TlsPolicySpec {
    /// What the policy applies to: 1 to 16 targets of kind Workload, Namespace or Mesh.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What is demanded of peers.
    pub mode: MutualTls,
    /// Ports that demand something else, at most 64, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
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
    /// What this port demands of peers.
    pub mode: MutualTls,
}
