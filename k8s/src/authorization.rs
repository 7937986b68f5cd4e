//! AuthorizationPolicy: who may call a workload, and how.
//!
//! Invariant: a Deny that matches beats every Allow; where an Allow policy applies, what no Allow
//! rule matches is denied.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::target::{PolicyStatus, TargetRef};

/// Who may call the targets, and how. A Deny that matches beats every Allow. Where at least one
/// enforced Allow policy applies, whatever no Allow rule matches is denied.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    category = "weft"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicySpec {
    /// What the policy applies to: 1 to 16 targets.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What a match means.
    pub action: AuthorizationAction,
    /// Whether the policy acts. Default: Enforce.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Rules, at most 64; any that matches decides. An Allow policy without rules allows nothing, a
    /// Deny policy without rules denies nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rules: Vec<AuthorizationRule>,
}

/// What a match means.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum AuthorizationAction {
    /// What matches is allowed.
    Allow,
    /// What matches is denied.
    Deny,
}

/// Whether a policy acts or only records.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum PolicyMode {
    /// The policy acts.
    #[default]
    Enforce,
    /// The policy only records what it would have done.
    Shadow,
}

/// One rule: matches when one of `from` and one of `to` match. An empty list matches anything.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationRule {
    /// Name of the rule, shown wherever it decides. Default: its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Sources, at most 64: one must match. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub from: Vec<AuthorizationFrom>,
    /// Operations, at most 64: one must match. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub to: Vec<AuthorizationTo>,
}

/// A source: every list that is not empty must hold a match. Identities, namespaces and service
/// accounts are those proven by mTLS; a peer without mTLS matches none.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationFrom {
    /// SPIFFE identities, e.g. `spiffe://cluster.local/ns/shop/sa/cart`; a `*` at the end matches any
    /// rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Service accounts: `<namespace>/<name>`, or `<name>` in the policy's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// Address blocks of the peer, e.g. `10.0.0.0/8`; a bare address means that address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
}

/// An operation: every list that is not empty must hold a match. A rule with methods or paths never
/// matches opaque traffic when it allows, and always when it denies.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationTo {
    /// Ports of the workload (not of a Service), 1 to 65535.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Methods, e.g. `GET`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths: exact, or a prefix with `*` at the end, e.g. `/admin/*`. A gRPC call's path is
    /// `/<service>/<method>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}
