//! What a policy applies to, and where its status is written: the part that all policies share.
//!
//! Invariant: a target lies in the policy's own namespace, or is the whole mesh.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that a policy applies to, in the policy's own namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.kind != 'Service' || (has(self.name) && !has(self.selector))")
        .message("a target of kind Service has a name, and no selector"),
    validation = Rule::new("self.kind != 'Workload' || (has(self.selector) && size(self.selector) > 0 && !has(self.name))")
        .message("a target of kind Workload has a selector, and no name"),
    validation = Rule::new("!(self.kind in ['Namespace', 'Mesh']) || (!has(self.name) && !has(self.selector))")
        .message("a target of kind Namespace or Mesh has neither name nor selector")
)]
pub struct TargetRef {
    /// What is meant: a Service, the workloads that a selector names, the policy's namespace, or the
    /// mesh (only from the namespace `weft-system`).
    pub kind: TargetKind,
    /// Name of the Service. Only with kind Service, where it is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels that a pod must have, all of them. Only with kind Workload, where at least one is
    /// required.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
}

/// Kinds of target, from the narrowest to the widest.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub enum TargetKind {
    /// Pods with the given labels.
    Workload,
    /// A Service: its pods, on all their ports, where the policy is about receiving; its clients where it
    /// is about calling.
    Service,
    /// Every pod of the policy's namespace.
    Namespace,
    /// Every pod of the mesh.
    Mesh,
}

/// What became of a policy, target by target.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One entry a target, in the spec's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetStatus>,
}

/// What became of a policy at one target.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The target, as in the spec.
    pub target_ref: TargetRef,
    /// Conditions: Accepted, and ResolvedRefs where the policy refers to other objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
