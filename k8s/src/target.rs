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
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Labels that a pod must have, all of them. Only with kind Workload, where at least one is
    /// required; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
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

/// What became of a policy: on the whole, target by target, and among the sidecars.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The policy on the whole: Accepted is True when it is True at every target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// One entry a target, in the spec's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub targets: Vec<TargetStatus>,
    /// How far the policy has come among the sidecars that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<SidecarsStatus>,
}

/// What became of a policy at one target.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The target, as in the spec.
    pub target_ref: TargetRef,
    /// Conditions: Accepted, and ResolvedRefs where the policy refers to other objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// How far something has come among the sidecars that it concerns.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarsStatus {
    /// Sidecars that it concerns.
    pub total: u32,
    /// Of these, those that run its newest version.
    pub applied: u32,
    /// Sidecars that refuse it and keep the version before, at most [`MAX_REFUSALS`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_REFUSALS))]
    pub refusing: Vec<SidecarRefusal>,
}

/// A sidecar that refuses.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarRefusal {
    /// Its workload, `namespace/pod`.
    pub workload: String,
    /// Why, for a person.
    pub reason: String,
}

/// How many refusals a status lists. Source: ours; one cause refuses everywhere alike, and an object must
/// stay small.
pub const MAX_REFUSALS: usize = 16;
