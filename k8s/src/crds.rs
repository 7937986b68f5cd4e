//! The kinds' definitions (CRDs) as the chart holds them, made from the Rust types.
//!
//! Before it: the types of this crate. After it: an API server, by way of the chart.
//!
//! Invariant: equal types give equal bytes.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{AuthorizationPolicy, Mesh, TlsPolicy, TrafficPolicy, chart::yaml};

/// The definitions, by kind.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![AuthorizationPolicy::crd(), Mesh::crd(), TlsPolicy::crd(), TrafficPolicy::crd()]
}

/// The chart's files: name and text.
pub fn files() -> Vec<(String, String)> {
    definitions().iter().map(|crd| (format!("{}.yaml", crd.spec.names.plural), text(crd))).collect()
}

fn text(crd: &CustomResourceDefinition) -> String {
    // A definition is plain data: maps with text keys, which JSON always takes.
    let mut value = serde_json::to_value(crd).unwrap_or(Value::Null);
    value["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "weft"});
    // With a kind go all its objects: Helm leaves it when the release is uninstalled.
    value["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    format!(
        "{{{{- /* Made by `cargo run -p weft-k8s --example crds`; do not edit. */ -}}}}\n{{{{- if .Values.crds.install }}}}\n{}{{{{- end }}}}\n",
        yaml::write(&value)
    )
}
