//! The kinds of weft.dev, as a real API server serves them.

use std::path::{Path, PathBuf};

use serde_json::Value;

const KINDS: [&str; 4] = ["AuthorizationPolicy", "Mesh", "TlsPolicy", "TrafficPolicy"];

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

#[test]
fn good_examples_are_stored_and_bad_ones_refused_in_the_words_they_promise() {
    let Some((mesh, _turn)) = super::turn() else { return };
    mesh.cluster.apply(&mesh.weft(&["install", "--crds-only"]).unwrap()).unwrap();
    mesh.cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).unwrap();
    let namespace = mesh.cluster.kubectl(&["create", "namespace", "shop", "--dry-run=client", "-o", "yaml"]);
    mesh.cluster.apply(&namespace.unwrap()).unwrap();
    let dry = ["create", "--dry-run=server", "--filename=-"];
    for file in examples("good") {
        let text = std::fs::read_to_string(&file).unwrap();
        let output = mesh.try_kubectl(&dry, &text).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", file.display());
    }
    for file in examples("bad") {
        let text = std::fs::read_to_string(&file).unwrap();
        let promised: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# refused: ")).collect();
        assert!(!promised.is_empty(), "{} says not why", file.display());
        let output = mesh.try_kubectl(&dry, &text).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{} was accepted", file.display());
        for words in promised {
            assert!(said.contains(words), "{}: {words:?} is not in {said}", file.display());
        }
    }
}

fn examples(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/examples").join(kind);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|it| it == "yaml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{kind}");
    files
}
