use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};
use weft_control_plane_core::inject::{INJECT, Injector, InjectorConfig};

use super::*;

/// A root as far as the injector looks.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

fn injector(block_refused: bool) -> Injector {
    let config = InjectorConfig { block_refused, ..InjectorConfig::new("localhost/weft/weft-proxy:0.1.0") };
    Injector::new(config, ROOT).unwrap()
}

fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "object": pod,
        },
    })
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}, "spec": spec})
}

fn app() -> Value {
    json!({"containers": [{"name": "app", "image": "app", "futureField": {"a": [1]}}]})
}

fn meshed(name: &str) -> NamespaceFacts {
    let labels: BTreeMap<_, _> = [(INJECT.to_owned(), "enabled".to_owned())].into();
    NamespaceFacts { name: name.to_owned(), labels, annotations: BTreeMap::new() }
}

fn ask(review: &Value, injector: &Injector) -> (Value, Answer) {
    let answer = answer(&serde_json::to_vec(review).unwrap(), injector, &meshed).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (body.get("response").unwrap().clone(), answer)
}

#[test]
fn the_patch_makes_of_the_users_pod_what_the_injector_decided() {
    let mut pod = pod(app());
    let (response, answer) = ask(&review(&pod), &injector(false));
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u1"), &json!(true)));
    assert_eq!(answer.outcome, Outcome::Injected);
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "weft-proxy");
    assert_eq!(pod["spec"]["containers"], app()["containers"]);
}

#[test]
fn garbage_is_an_error_in_words_and_never_a_panic() {
    let empty = json!({"apiVersion": "admission.k8s.io/v1"});
    let old = json!({"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "a"}});
    for body in
        [b"".to_vec(), b"\xff{".to_vec(), b"[]".to_vec(), empty.to_string().into(), old.to_string().into()]
    {
        assert!(answer(&body, &injector(false), &meshed).is_err());
    }
    let objects =
        [json!(null), json!([]), json!({"spec": 3}), json!({"metadata": [], "spec": {"containers": {}}})];
    for object in objects {
        let (response, answer) = ask(&review(&object), &injector(false));
        assert_eq!((&response["allowed"], answer.outcome), (&json!(true), Outcome::Refused), "{object}");
    }
}

#[test]
fn a_refused_pod_is_allowed_with_a_warning_and_its_owner_is_told() {
    let mut pod = pod(json!({"hostNetwork": true, "containers": [{"name": "app"}]}));
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": true}]);
    let (response, answer) = ask(&review(&pod), &injector(false));
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{response}");
    let about = answer.refusal.unwrap().about;
    assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some("ReplicaSet"), Some("web-1")));
    assert_eq!(about.namespace.as_deref(), Some("shop"));
}

#[test]
fn a_mesh_that_says_so_blocks_what_it_cannot_inject() {
    let pod = pod(json!({"hostNetwork": true, "containers": [{"name": "app"}]}));
    let (response, _) = ask(&review(&pod), &injector(true));
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(403)));
}

#[test]
fn a_dry_run_tells_nobody() {
    let mut review = review(&pod(json!({"hostNetwork": true, "containers": [{"name": "app"}]})));
    review["request"]["dryRun"] = json!(true);
    let (_, answer) = ask(&review, &injector(false));
    assert_eq!((answer.outcome, answer.refusal), (Outcome::Refused, None));
}

#[test]
fn what_is_no_creation_of_a_pod_is_allowed_as_it_is() {
    for (pointer, value) in [("operation", json!("UPDATE")), ("subResource", json!("ephemeralcontainers"))] {
        let mut review = review(&pod(app()));
        review["request"][pointer] = value;
        let (response, answer) = ask(&review, &injector(false));
        assert_eq!((&response["allowed"], answer.outcome), (&json!(true), Outcome::Skipped));
        assert_eq!(response.get("patch"), None);
    }
}
