//! HTTPRoute and GRPCRoute as facts: one shape for both, as the user wrote it.
//!
//! Where it stands: what [`Model::apply`](super::Model::apply) keeps of a route; *validate* turns it
//! into matches and filters, or says why not.
//!
//! Invariant: nothing is judged or defaulted here. The generated types repeat each filter four times
//! (rule or backend, HTTP or gRPC); here there is one of each.

use gateway_api::experimental::{grpcroutes::GrpcRoute, httproutes::HttpRoute};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Meta;
use crate::config::RouteKind;

/// One HTTPRoute or GRPCRoute.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The object.
    pub meta: Meta,
    /// Which of the two.
    pub kind: RouteKind,
    /// What it attaches to.
    pub parents: Vec<ParentRef>,
    /// Host names; a mesh ignores them (GEP-1294).
    pub hostnames: Vec<String>,
    /// Rules in order; absent: the field is not there.
    pub rules: Option<Vec<RuleFact>>,
    /// `useDefaultGateways`, when it is set.
    pub use_default_gateways: Option<String>,
    /// Why the route could not be read; then everything else is empty.
    pub unreadable: Option<String>,
}

impl Route {
    /// The facts of an HTTPRoute.
    pub(super) fn http(meta: Meta, route: &HttpRoute) -> Self {
        Self::lower(meta, RouteKind::Http, &route.spec)
    }

    /// The facts of a GRPCRoute.
    pub(super) fn grpc(meta: Meta, route: &GrpcRoute) -> Self {
        Self::lower(meta, RouteKind::Grpc, &route.spec)
    }

    fn lower(meta: Meta, kind: RouteKind, spec: &impl Serialize) -> Self {
        let spec = serde_json::to_value(spec).and_then(serde_json::from_value::<Spec>);
        let (spec, unreadable) = match spec {
            Ok(spec) => (spec, None),
            Err(error) => (Spec::default(), Some(error.to_string())),
        };
        Self {
            meta,
            kind,
            parents: spec.parent_refs,
            hostnames: spec.hostnames,
            rules: spec.rules,
            use_default_gateways: spec.use_default_gateways,
            unreadable,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    parent_refs: Vec<ParentRef>,
    hostnames: Vec<String>,
    rules: Option<Vec<RuleFact>>,
    use_default_gateways: Option<String>,
}

/// What a route attaches to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// API group; absent: the Gateway API's.
    pub group: Option<String>,
    /// Kind; absent: Gateway.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; absent: the route's.
    pub namespace: Option<String>,
    /// Port of the parent; absent: all.
    pub port: Option<i32>,
    /// Name of a port of the parent; absent: all.
    pub section_name: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleFact {
    /// Name given by the user.
    pub name: Option<String>,
    /// Matches; empty: everything.
    pub matches: Vec<MatchFact>,
    /// Filters in order.
    pub filters: Vec<FilterFact>,
    /// Where requests go.
    pub backend_refs: Vec<BackendRef>,
    /// Deadlines; only HTTP.
    pub timeouts: Option<TimeoutsFact>,
    /// The retry stanza, when there is one.
    pub retry: Option<Value>,
    /// The session persistence stanza, when there is one.
    pub session_persistence: Option<Value>,
}

/// One match of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchFact {
    /// Condition on the path; only HTTP.
    pub path: Option<TypedValue>,
    /// Condition on the method.
    pub method: Option<MethodFact>,
    /// Conditions on header fields.
    pub headers: Vec<ValueFact>,
    /// Conditions on query parameters; only HTTP.
    pub query_params: Vec<ValueFact>,
}

/// A value and how it is to be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TypedValue {
    /// "Exact", "PathPrefix" or "RegularExpression".
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The value.
    pub value: Option<String>,
}

/// Condition on the method.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MethodFact {
    /// HTTP method.
    Http(String),
    /// gRPC service and method.
    Grpc(GrpcMethod),
}

/// A gRPC service and method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GrpcMethod {
    /// "Exact" or "RegularExpression".
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Fully qualified service.
    pub service: Option<String>,
    /// Method.
    pub method: Option<String>,
}

/// Condition on a named value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ValueFact {
    /// Name of the field or parameter.
    pub name: String,
    /// "Exact" or "RegularExpression".
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The value.
    pub value: String,
}

/// One filter: its type, and the stanza of that type.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterFact {
    /// The filter's type, e.g. "RequestHeaderModifier".
    #[serde(rename = "type")]
    pub kind: String,
    /// Stanza of RequestHeaderModifier.
    pub request_header_modifier: Option<HeaderChange>,
    /// Stanza of ResponseHeaderModifier.
    pub response_header_modifier: Option<HeaderChange>,
    /// Stanza of RequestRedirect.
    pub request_redirect: Option<RedirectFact>,
    /// Stanza of URLRewrite.
    pub url_rewrite: Option<RewriteFact>,
}

/// Changes of header fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderChange {
    /// Replaces.
    pub set: Vec<HeaderField>,
    /// Adds.
    pub add: Vec<HeaderField>,
    /// Removes.
    pub remove: Vec<String>,
}

/// One header field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HeaderField {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedirectFact {
    /// Scheme of the answer's location.
    pub scheme: Option<String>,
    /// Host of the answer's location.
    pub hostname: Option<String>,
    /// Port of the answer's location.
    pub port: Option<i32>,
    /// Change of the path.
    pub path: Option<PathChange>,
    /// Status of the answer.
    pub status_code: Option<i64>,
}

/// A rewrite.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RewriteFact {
    /// Host to send.
    pub hostname: Option<String>,
    /// Change of the path.
    pub path: Option<PathChange>,
}

/// Change of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathChange {
    /// "ReplaceFullPath" or "ReplacePrefixMatch".
    #[serde(rename = "type")]
    pub kind: String,
    /// Value of ReplaceFullPath.
    pub replace_full_path: Option<String>,
    /// Value of ReplacePrefixMatch.
    pub replace_prefix_match: Option<String>,
}

/// Where requests go, with a share.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendRef {
    /// API group; absent or empty or "core": Kubernetes' own.
    pub group: Option<String>,
    /// Kind; absent: Service.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; absent: the route's.
    pub namespace: Option<String>,
    /// Port of the service.
    pub port: Option<i32>,
    /// Share; absent: 1.
    pub weight: Option<i32>,
    /// Filters for this backend only.
    pub filters: Vec<FilterFact>,
}

/// Deadlines of a rule, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeoutsFact {
    /// Deadline of the whole exchange.
    pub request: Option<String>,
    /// Deadline of one attempt.
    pub backend_request: Option<String>,
}
