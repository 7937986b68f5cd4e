//! The kinds as a Kubernetes API server and a person see them.

use std::path::Path;

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;

#[test]
fn every_field_of_every_kind_is_documented() {
    for crd in crds::definitions() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut bare = Vec::new();
        for part in ["spec", "status"] {
            undocumented(&schema["properties"][part], part, &mut bare);
        }
        assert!(bare.is_empty(), "{}: {bare:?}", crd["metadata"]["name"]);
        for column in crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap() {
            assert!(column["name"] == "Age" || column["description"].is_string(), "{column}");
        }
    }
}

#[test]
fn the_chart_holds_the_kinds_as_the_types_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/templates/crds");
    for (name, text) in crds::files() {
        let there = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(there == text, "{name} is not what the types say; run: cargo run -p weft-k8s --example crds");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), crds::files().len(), "a file of no kind");
}

#[test]
fn kinds_are_short_to_type_and_tell_what_became_of_them() {
    let short = |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        crd.spec.names.short_names.clone().unwrap_or_default()
    };
    let all = crds::definitions();
    let names: Vec<String> = all.iter().flat_map(short).collect();
    assert_eq!(names, ["authz", "telp", "tlsp", "tp"]);
    for crd in all {
        assert_eq!(crd.spec.names.categories.as_deref(), Some(&["weft".to_owned()][..]));
        let version = &crd.spec.versions[0];
        assert!(version.subresources.as_ref().is_some_and(|it| it.status.is_some()));
        let columns = version.additional_printer_columns.as_ref().unwrap();
        assert!(["Accepted", "Age"].iter().all(|name| columns.iter().any(|column| column.name == *name)));
    }
}

#[test]
fn good_examples_are_read_and_bad_ones_say_what_the_server_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = |part: &str| {
        let entries = std::fs::read_dir(folder.join(part)).unwrap().flatten();
        entries.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect::<Vec<_>>()
    };
    for text in files("good") {
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let spec = object["spec"].clone();
            let read = match object["kind"].as_str().unwrap() {
                "AuthorizationPolicy" => serde_json::from_value::<AuthorizationPolicySpec>(spec).err(),
                "TrafficPolicy" => serde_json::from_value::<TrafficPolicySpec>(spec).err(),
                "TelemetryPolicy" => serde_json::from_value::<TelemetryPolicySpec>(spec).err(),
                "TlsPolicy" => serde_json::from_value::<TlsPolicySpec>(spec).err(),
                "Mesh" => serde_json::from_value::<MeshSpec>(spec).err(),
                other => panic!("{other} is no kind of Weft"),
            };
            assert!(read.is_none(), "{object}: {read:?}");
        }
    }
    let bad = files("bad");
    assert!(bad.len() >= 25, "{}", bad.len());
    for text in bad {
        assert!(text.starts_with("# refused: "), "{text}");
        assert_eq!(serde_saphyr::from_multiple::<Value>(&text).unwrap().len(), 1);
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
        (TelemetryPolicy::crd(), "telemetrypolicies.weft.dev", "Namespaced"),
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
    for crd in crds::definitions() {
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
    assert_eq!(rules(TlsPolicy::crd()), 3, "and which targets");
    assert_eq!(rules(TelemetryPolicy::crd()), 6, "and the collector, and header fields twice");
    assert_eq!(rules(TrafficPolicy::crd()), 4, "and ejection");
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
