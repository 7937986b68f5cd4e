//! The kinds of weft.dev, as a real API server serves them.

use serde_json::Value;

const KINDS: [&str; 5] = ["AuthorizationPolicy", "Mesh", "TelemetryPolicy", "TlsPolicy", "TrafficPolicy"];

#[test]
fn every_field_of_every_kind_is_explained() {
    let Some((mesh, _turn)) = super::turn() else { return };
    let definitions = mesh.weft(&["install", "--crds-only"]).unwrap();
    mesh.cluster.apply(&definitions).unwrap();
    mesh.cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).unwrap();
    let served = || {
        let document = mesh.cluster.kubectl(&["get", "--raw", "/openapi/v3/apis/weft.dev/v1alpha1"])?;
        let document: Value = serde_json::from_str(&document)?;
        let name = |kind: &str| format!("dev.weft.v1alpha1.{kind}");
        let schemas = KINDS.map(|kind| document["components"]["schemas"][name(kind)].clone());
        Ok((!schemas.iter().any(Value::is_null)).then_some(schemas))
    };
    let schemas = mesh.cluster.wait_until("default", "the kinds to be documented", served).unwrap();
    for (kind, schema) in KINDS.iter().zip(&schemas) {
        let mut fields = Vec::new();
        undescribed(schema, kind, &mut fields);
        assert!(fields.is_empty(), "no description: {fields:?}");
        let resource = format!("{}.spec", kind.to_lowercase());
        let said = mesh.cluster.kubectl(&["explain", &resource]).unwrap();
        assert!(said.contains("DESCRIPTION:") && said.contains("FIELDS:"), "{said}");
        assert!(!said.contains("<no description>") && !said.contains("<empty>"), "{said}");
    }
}

/// The paths of all fields without a description.
fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(str::is_empty) {
            found.push(path.clone());
        }
        undescribed(field, &path, found);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            undescribed(&schema[inner], path, found);
        }
    }
}
