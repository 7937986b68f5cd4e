//! The kinds as a Kubernetes API server and a person see them.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;

#[test]
fn every_field_of_every_kind_is_documented() {
    for crd in [AuthorizationPolicy::crd(), TrafficPolicy::crd(), TlsPolicy::crd(), Mesh::crd()] {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut bare = Vec::new();
        undocumented(&schema["properties"]["spec"], "spec", &mut bare);
        assert!(bare.is_empty(), "{}: {bare:?}", crd["metadata"]["name"]);
    }
}

fn undocumented(schema: &Value, path: &str, bare: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().is_none_or(str::is_empty) {
            bare.push(path.clone());
        }
        undocumented(property, &path, bare);
        undocumented(&property["items"], &path, bare);
    }
}

#[test]
fn kinds_are_of_weft_dev_and_only_the_mesh_is_cluster_wide() {
    for (crd, name, scope) in [
        (AuthorizationPolicy::crd(), "authorizationpolicies.weft.dev", "Namespaced"),
        (TrafficPolicy::crd(), "trafficpolicies.weft.dev", "Namespaced"),
        (TlsPolicy::crd(), "tlspolicies.weft.dev", "Namespaced"),
        (Mesh::crd(), "meshes.weft.dev", "Cluster"),
    ] {
        assert_eq!(crd.metadata.name.as_deref(), Some(name));
        assert_eq!(crd.spec.scope, scope);
        assert_eq!((crd.spec.group.as_str(), crd.spec.versions[0].name.as_str()), (GROUP, VERSION));
    }
}

#[test]
fn an_api_server_can_take_the_schemas() {
    for crd in [AuthorizationPolicy::crd(), TrafficPolicy::crd(), TlsPolicy::crd(), Mesh::crd()] {
        let crd = serde_json::to_value(crd).unwrap();
        let mut found = Vec::new();
        unstructural(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut found);
        assert!(found.is_empty(), "{}: {found:?}", crd["metadata"]["name"]);
    }
}

/// What makes a schema not structural: Kubernetes refuses such a CRD.
fn unstructural(schema: &Value, path: &str, found: &mut Vec<String>) {
    for word in ["$ref", "definitions", "oneOf", "anyOf", "allOf", "const"] {
        if schema.get(word).is_some() {
            found.push(format!("{path}: {word}"));
        }
    }
    if schema["additionalProperties"].is_boolean() {
        found.push(format!("{path}: additionalProperties"));
    }
    if schema.get("type").is_none() && !path.is_empty() {
        found.push(format!("{path}: no type"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        unstructural(property, &format!("{path}.{name}"), found);
    }
    if let Some(items) = schema.get("items") {
        unstructural(items, &format!("{path}[]"), found);
    }
}

#[test]
fn an_api_server_checks_targets_by_itself() {
    let rules = |crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        let text = serde_json::to_string(&crd).unwrap();
        text.matches("\"x-kubernetes-validations\"").count()
    };
    assert_eq!(rules(AuthorizationPolicy::crd()), 2, "targets in spec and in status");
    assert_eq!(rules(TlsPolicy::crd()), 3);
    assert_eq!(rules(TrafficPolicy::crd()), 3);
    assert_eq!(rules(Mesh::crd()), 1);
}

#[test]
fn a_misspelt_field_is_refused_by_name() {
    let error = serde_json::from_value::<TrafficPolicySpec>(json!({
        "targetRefs": [{"kind": "Service", "name": "cart"}], "limits": {"maxConections": 3}
    }))
    .unwrap_err()
    .to_string();
    assert!(error.contains("maxConections"), "{error}");
}

#[test]
fn an_unknown_mode_is_refused_and_not_guessed() {
    let spec = json!({"targetRefs": [{"kind": "Mesh"}], "mode": "Sometimes"});
    assert!(serde_json::from_value::<TlsPolicySpec>(spec).is_err());
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    for (text, millis) in [("1m30s", 90_000), ("500ms", 500), ("0s", 0), ("1h", 3_600_000)] {
        let duration = Duration::parse(text).unwrap();
        assert_eq!(std::time::Duration::from(duration).as_millis(), millis, "{text}");
        assert_eq!(serde_json::to_value(duration).unwrap(), json!(text));
    }
    for text in ["", "1", "1.5s", "-1s", "1d", "100us", "1s1s1s1s1s", "123456s"] {
        assert!(Duration::parse(text).is_err(), "{text}");
    }
}
