//! TrafficPolicy: how clients reach a Service.
//!
//! Invariant: a policy is written by the Service's owner, in the Service's namespace.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration,
    target::{PolicyStatus, TargetRef},
};

/// How clients reach the targeted Services. At most one policy applies to a Service: the oldest.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    plural = "trafficpolicies",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    category = "weft",
    shortname = "tp",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].kind","description":"Kind of the first target."}"#,
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.targetRefs[0].name","description":"Name of the first target, if it has one."}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status","description":"Whether it is in force at every target."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason","description":"Why, for machines."}"#,
    printcolumn = r#"{"name":"Sidecars","type":"integer","priority":1,"jsonPath":".status.sidecars.total","description":"Sidecars that it concerns."}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","priority":1,"jsonPath":".status.sidecars.applied","description":"Of these, those that run its newest version."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.targetRefs.all(target, target.kind == 'Service')")
        .message("a TrafficPolicy targets Services"),
    validation = Rule::new("!has(self.connectTimeout) || duration(self.connectTimeout) > duration('0s')")
        .message("connectTimeout is 0s; write a longer time"),
    validation = Rule::new("!has(self.idleTimeout) || duration(self.idleTimeout) > duration('0s')")
        .message("idleTimeout is 0s; write a longer time")
)]
pub struct TrafficPolicySpec {
    /// The Services, 1 to 16.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Deadline of a TCP connect and TLS handshake. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// Idle upstream connections are closed after this. Default: 90s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Deadline of a request, retries included, where its route sets none. `0s`: none. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
    /// What may be under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How many retries may be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// When an endpoint that fails is left alone for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// Service port that serves while the circuit is open. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackRef>,
}

/// What may be under way at once, for each worker of a client's sidecar.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Connections to one endpoint, at least 1. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_connections: Option<u32>,
    /// Requests that may wait for a connection, at least 1. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_requests: Option<u32>,
}

/// How many retries may be under way.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// Retries in percent of active requests, 0 to 100. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// Retries a second that are always allowed. With `percent: 0` and 0 here nothing is retried.
    /// Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_per_second: Option<u32>,
}

/// When an endpoint that fails is ejected.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.baseEjection) || duration(self.baseEjection) > duration('0s')")
        .message("outlier.baseEjection is 0s; write a longer time"),
    validation = Rule::new("!has(self.baseEjection) || !has(self.maxEjection) || duration(self.maxEjection) >= duration(self.baseEjection)")
        .message("outlier.maxEjection is below outlier.baseEjection")
)]
pub struct Outlier {
    /// Consecutive failures (connect errors, resets, 5xx answers) before an endpoint is ejected; 0
    /// switches ejection off. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// First ejection time; it doubles with each that follows. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection: Option<Duration>,
    /// Longest ejection time, not below `baseEjection`. Default: 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection: Option<Duration>,
    /// Share of the endpoints that may be ejected while there is no fallback, percent, 0 to 100.
    /// Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max_ejected_percent: Option<u32>,
}

/// A service port that serves in another's place.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackRef {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Namespace of the Service. Default: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Port of the Service, 1 to 65535.
    #[schemars(range(min = 1))]
    pub port: u16,
}
