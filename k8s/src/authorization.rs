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
    category = "weft",
    shortname = "authz",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].kind","description":"Kind of the first target."}"#,
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.targetRefs[0].name","description":"Name of the first target, if it has one."}"#,
    printcolumn = r#"{"name":"Action","type":"string","jsonPath":".spec.action","description":"Whether a match allows or denies."}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","description":"Whether it acts or only records."}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status","description":"Whether it is in force at every target."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason","description":"Why, for machines."}"#,
    printcolumn = r#"{"name":"Sidecars","type":"integer","priority":1,"jsonPath":".status.sidecars.total","description":"Sidecars that it concerns."}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","priority":1,"jsonPath":".status.sidecars.applied","description":"Of these, those that run its newest version."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicySpec {
    /// What the policy applies to: 1 to 16 targets.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What a match means. Allow: what matches is allowed, and the rest of what the targets receive is
    /// denied. Deny: what matches is denied.
    pub action: AuthorizationAction,
    /// Whether the policy acts. Enforce: it does. Shadow: it only records what it would have done.
    /// Default: Enforce.
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
    #[schemars(length(min = 1, max = 253))]
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
    /// rest. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 2048), regex(pattern = IDENTITY)))]
    pub identities: Vec<String>,
    /// Namespaces, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63), regex(pattern = LABEL)))]
    pub namespaces: Vec<String>,
    /// Service accounts: `<namespace>/<name>`, or `<name>` in the policy's namespace. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 317), regex(pattern = SERVICE_ACCOUNT)))]
    pub service_accounts: Vec<String>,
    /// Address blocks of the peer, e.g. `10.0.0.0/8`; a bare address means that address. At most
    /// 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64), regex(pattern = ADDRESS_BLOCK)))]
    pub cidrs: Vec<String>,
}

/// An operation: every list that is not empty must hold a match. A rule with methods or paths never
/// matches opaque traffic when it allows, and always when it denies.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationTo {
    /// Ports of the workload (not of a Service), 1 to 65535. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1)))]
    pub ports: Vec<u16>,
    /// Methods, e.g. `GET`. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256), regex(pattern = TOKEN)))]
    pub methods: Vec<String>,
    /// Paths: exact, or a prefix with `*` at the end, e.g. `/admin/*`. A gRPC call's path is
    /// `/<service>/<method>`. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024), regex(pattern = PATH)))]
    pub paths: Vec<String>,
}

/// A SPIFFE identity, or a beginning of one and `*`. Source: the SPIFFE ID standard.
const IDENTITY: &str = r"^spiffe://[^*]*\*?$";
/// A DNS label. Source: RFC 1123 §2.1.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A service account, with or without its namespace. Source: RFC 1123 §2.1, as Kubernetes applies it.
const SERVICE_ACCOUNT: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
/// What looks like an address, or a block of addresses; whether it is one, the control plane decides.
const ADDRESS_BLOCK: &str = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$";
/// A method. Source: RFC 9110 §5.6.2.
const TOKEN: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
/// A path, or a beginning of one and `*`.
const PATH: &str = r"^/[^*]*\*?$";
