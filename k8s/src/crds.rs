//! The kinds' definitions (CRDs) as the chart holds them, made from the Rust types.
//!
//! Before it: the types of this crate. After it: an API server, by way of the chart.
//!
//! Invariant: equal types give equal bytes.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{AuthorizationPolicy, Mesh, TelemetryPolicy, TlsPolicy, TrafficPolicy, chart::yaml};

/// The definitions, by kind.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        AuthorizationPolicy::crd(),
        Mesh::crd(),
        TelemetryPolicy::crd(),
        TlsPolicy::crd(),
        TrafficPolicy::crd(),
    ]
}

/// The definitions as an API server is given them.
pub fn values() -> Vec<Value> {
    definitions().iter().map(value).collect()
}

/// The chart's files: name and text.
pub fn files() -> Vec<(String, String)> {
    let name = |crd: &CustomResourceDefinition| format!("{}.yaml", crd.spec.names.plural);
    definitions().iter().map(|crd| (name(crd), text(crd))).collect()
}

fn value(crd: &CustomResourceDefinition) -> Value {
    // A definition is plain data: maps with text keys, which JSON always takes.
    let mut value = serde_json::to_value(crd).unwrap_or(Value::Null);
    explain(&mut value);
    value["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "weft"});
    // With a kind go all its objects: Helm leaves it when the release is uninstalled.
    value["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    value
}

fn text(crd: &CustomResourceDefinition) -> String {
    format!(
        "{{{{- /* Made by `cargo run -p weft-k8s --example crds`; do not edit. */ -}}}}\n{{{{- if .Values.crds.install }}}}\n{}{{{{- end }}}}\n",
        yaml::write(&value(crd))
    )
}

/// Makes the definition read well in `kubectl explain`: the kind says what its spec does, and a sentence
/// is one line.
fn explain(definition: &mut Value) {
    for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        let kind = schema["properties"]["spec"]["description"].clone();
        schema["description"] = kind;
        unwrap_lines(schema);
    }
}

fn unwrap_lines(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => {
                        let paragraphs: Vec<String> =
                            text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
                        *text = paragraphs.join("\n\n");
                    }
                    other => unwrap_lines(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(unwrap_lines),
        _ => {}
    }
}
