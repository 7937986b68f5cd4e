//! What an API server expects of an API: the discovery documents, and refusals in its own form.
//!
//! Source: Kubernetes' API conventions and meta/v1: APIGroupList, APIGroup, APIResourceList, Status.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{GROUP, VERSION};

/// `/apis`.
pub(super) fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})
}

/// `/apis/observe.weft.dev`.
pub(super) fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    })
}

/// `/apis/observe.weft.dev/v1alpha1`.
pub(super) fn resources(known: &[(&str, &str, &str)]) -> Value {
    let one = |(name, singular, verb): &(&str, &str, &str)| {
        json!({
            "name": name,
            "singularName": singular,
            "namespaced": true,
            "kind": "Question",
            "verbs": [verb],
        })
    };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": known.iter().map(one).collect::<Vec<_>>(),
    })
}

/// A refusal.
pub(super) fn refuse(code: StatusCode, text: &str) -> Response {
    let reason = match code {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "BadRequest",
    };
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": reason,
        "code": code.as_u16(),
    });
    (code, axum::Json(status)).into_response()
}
