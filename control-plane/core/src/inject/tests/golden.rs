//! Pods as their users wrote them (`golden/pods`) and what becomes of them (`golden/expected`).
//!
//! After a change that is meant: `WEFT_GOLDEN=write cargo test -p weft-control-plane-core golden`, and read
//! the difference before it is committed.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::*;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/inject/golden").join(name)
}

fn parse(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Every pod by the name of its file.
pub(super) fn pods() -> Vec<(String, Value)> {
    let files = fs::read_dir(folder("pods")).unwrap().map(|entry| entry.unwrap().path());
    let mut pods: Vec<_> = files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, parse(&fs::read_to_string(path).unwrap()))
        })
        .collect();
    pods.sort_by(|one, other| one.0.cmp(&other.0));
    pods
}

fn outcome(decision: Decision) -> Value {
    match decision {
        Decision::Inject(injected) => {
            json!({"decision": "inject", "warnings": injected.warnings, "pod": injected.pod})
        }
        Decision::Skip(skip) => json!({"decision": "skip", "reason": skip.text()}),
        Decision::Refuse(reason) => json!({"decision": "refuse", "reason": reason}),
    }
}

#[test]
fn every_golden_pod_becomes_what_is_expected_of_it() {
    let write = std::env::var("WEFT_GOLDEN").is_ok_and(|value| value == "write");
    let pods = pods();
    assert!(pods.len() > 30, "the folder of pods is not read");
    for (name, pod) in &pods {
        let found = outcome(injector().decide(pod, &meshed()));
        let path = folder("expected").join(format!("{name}.yaml"));
        if write {
            fs::write(&path, serde_saphyr::to_string(&found).unwrap()).unwrap();
        }
        let expected =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(found, parse(&expected), "{name}");
    }
    let expected = fs::read_dir(folder("expected")).unwrap().count();
    assert_eq!(expected, pods.len(), "an expectation without a pod");
}

#[test]
fn injecting_again_changes_nothing_and_removing_gives_the_pod_back() {
    for (name, pod) in pods() {
        let Decision::Inject(injected) = injector().decide(&pod, &meshed()) else { continue };
        assert_eq!(injector().decide(&injected.pod, &meshed()), Decision::Skip(Skip::Already), "{name}");
        let mut as_it_was = pod.clone();
        // What was empty is absent, and a mark that was there goes too.
        for list in ["volumes", "initContainers"] {
            let spec = as_it_was["spec"].as_object_mut().unwrap();
            if spec.get(list).is_some_and(Value::is_null) {
                spec.remove(list);
            }
        }
        if name == "mark-only" {
            as_it_was["metadata"].as_object_mut().unwrap().remove("annotations");
        }
        let mut removed = remove(&injected.pod).unwrap();
        if pod.get("metadata").is_none() {
            removed.as_object_mut().unwrap().remove("metadata");
        }
        assert_eq!(removed, as_it_was, "{name}");
    }
}

/// A pod's volumes, or a template's.
fn volumes(pod: &Value) -> Vec<Value> {
    pod["spec"]["volumes"].as_array().cloned().unwrap_or_default()
}

#[test]
fn all_that_is_added_but_the_init_container_is_as_restricted_as_pod_security_wants() {
    for (name, pod) in pods() {
        let Decision::Inject(injected) = injector().decide(&pod, &meshed()) else { continue };
        let spec = injected.pod["spec"].clone();
        let lists = ["initContainers", "containers"];
        let all = lists.iter().flat_map(|list| spec[*list].as_array().cloned().unwrap_or_default());
        let sidecar = all.clone().find(|container| container["name"] == "weft-proxy").unwrap();
        let security = &sidecar["securityContext"];
        for (field, value) in [
            ("allowPrivilegeEscalation", json!(false)),
            ("runAsNonRoot", json!(true)),
            ("readOnlyRootFilesystem", json!(true)),
            ("seccompProfile", json!({"type": "RuntimeDefault"})),
            ("capabilities", json!({"drop": ["ALL"]})),
        ] {
            assert_eq!(security[field], value, "{name}: {field}");
        }
        let (before, after) = (volumes(&pod), volumes(&injected.pod));
        let added: Vec<_> = after.iter().filter(|volume| !before.contains(volume)).collect();
        assert!(
            added.iter().all(|volume| volume.get("emptyDir").or(volume.get("projected")).is_some()),
            "{name}"
        );
        let is_ours = |mount: &Value| added.iter().any(|volume| volume["name"] == mount["name"]);
        for container in all.clone().filter(|container| container["name"] != "weft-proxy") {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            assert!(!mounts.iter().any(is_ours), "{name}: others see what is the sidecar's: {container}");
        }
        let init = all.clone().find(|container| container["name"] == "weft-init").unwrap();
        assert_eq!(init["securityContext"]["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    }
}
