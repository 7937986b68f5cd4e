//! Mesh: settings for every sidecar.
//!
//! Invariant: one object decides, the one named `mesh`; without it every default applies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Duration, target::SidecarsStatus, tls::MutualTls};

/// Settings for every sidecar. The object is named `mesh`; any other name is refused.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "Mesh",
    plural = "meshes",
    status = "MeshStatus",
    derive = "PartialEq",
    category = "weft",
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.trustDomain","description":"Trust domain."}"#,
    printcolumn = r#"{"name":"mTLS","type":"string","jsonPath":".spec.mutualTls","description":"mTLS demanded where no TlsPolicy says otherwise."}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status","description":"Whether it is in force at every target."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason","description":"Why, for machines."}"#,
    printcolumn = r#"{"name":"Sidecars","type":"integer","priority":1,"jsonPath":".status.sidecars.total","description":"Sidecars that it concerns."}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","priority":1,"jsonPath":".status.sidecars.applied","description":"Of these, those that run its newest version."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("self.metadata.name == 'mesh'").message("the Mesh is named mesh")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    /// Trust domain of the mesh, the first part of every identity. Default: `cluster.local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DOMAIN))]
    pub trust_domain: Option<String>,
    /// What happens to destinations that the control plane does not know. PassThrough: bytes go to the
    /// original destination as they are. Refuse: the connection is reset. Default: PassThrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_destination: Option<UnknownDestination>,
    /// mTLS demanded where no TlsPolicy says otherwise. Permissive: plaintext and mutual TLS are accepted.
    /// Strict: only mutual TLS is. Default: Permissive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_tls: Option<MutualTls>,
    /// Which requests are written to the access log. Off: none. Errors: refusals, resets and server
    /// errors. All: every request and connection. A TelemetryPolicy comes first. Default: Errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Which traces are kept. A TelemetryPolicy comes first, and says where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// How a sidecar leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// Treatment of destinations that the control plane does not know.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum UnknownDestination {
    /// Bytes go to the original destination as they are.
    #[default]
    PassThrough,
    /// The connection is reset.
    Refuse,
}

/// Which requests are logged.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum AccessLog {
    /// None.
    Off,
    /// Refusals, resets and server errors.
    #[default]
    Errors,
    /// Every request and connection.
    All,
}

/// Which traces are kept, where the caller sent no sampling decision and no TelemetryPolicy says otherwise.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// Share of traces that start in a sidecar and are kept, percent, 0 to 100, e.g. 0.5. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub sampling_percent: Option<f64>,
    /// Traces a second that each sidecar keeps of each service that is called, regardless of the share.
    /// Default: 1 where nothing says a share, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
}

/// How a sidecar leaves after SIGTERM.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// How long the inbound side keeps accepting, so that the endpoint's removal can spread. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linger: Option<Duration>,
    /// How long what is in flight may take. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Duration>,
}

/// What became of the settings.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshStatus {
    /// Conditions: Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// How far the settings have come among the sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<SidecarsStatus>,
}

/// A DNS name in lower case. Source: the SPIFFE ID standard §2.1; RFC 1123 §2.1.
const DOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
