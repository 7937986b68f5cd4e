//! What becomes of an object stands in its status, by the Gateway API's book.

use serde_json::{Value, json};
use weft_cluster::scenario::{App, Space, field};

const OURS: &str = "weft.dev/control-plane";
const PARENT: &str = r#"{group: "", kind: Service, name: web}"#;

fn route(name: &str, parent: &str, backend: &str, port: u16) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{parent}]
  rules: [{{backendRefs: [{{name: {backend}, port: {port}}}]}}]
"
    )
}

/// The entries of a route's status, once ours is about its newest generation.
fn parents(space: &Space<'_>, route: &str) -> Vec<Value> {
    space
        .until(&format!("the status of {route}"), || {
            let object = space.object(&format!("httproute/{route}"))?;
            let generation = field(&object, "metadata.generation").clone();
            let parents = field(&object, "status.parents").as_array().cloned().unwrap_or_default();
            let ours = parents.iter().find(|parent| parent["controllerName"] == OURS);
            let seen = ours.is_some_and(|ours| {
                let conditions = field(ours, "conditions").as_array().map(Vec::as_slice).unwrap_or_default();
                !conditions.is_empty() && conditions.iter().all(|one| one["observedGeneration"] == generation)
            });
            if seen { Ok(Some(parents)) } else { anyhow::bail!("{}", field(&object, "status")) }
        })
        .unwrap()
}

fn condition(parent: &Value, kind: &str) -> Value {
    let all = field(parent, "conditions").as_array().unwrap().clone();
    all.into_iter().find(|one| one["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {parent}"))
}

#[test]
fn a_good_route_is_accepted_by_us_and_keeps_what_others_said_of_it() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("status").unwrap();
    space.apply(&App::new("web").manifests()).unwrap();
    space.apply(&route("good", PARENT, "web", 80)).unwrap();
    let found = parents(&space, "good");
    let [ours] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(ours["parentRef"], json!({"group": "", "kind": "Service", "name": "web"}));
    for kind in ["Accepted", "ResolvedRefs"] {
        let condition = condition(ours, kind);
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("True"), &json!(kind)),
            "{condition}"
        );
        assert_eq!(condition["observedGeneration"], 1, "{condition}");
        assert!(
            condition["lastTransitionTime"].as_str().is_some_and(|time| time.ends_with('Z')),
            "{condition}"
        );
    }
    let since = condition(ours, "Accepted")["lastTransitionTime"].clone();

    let foreign = json!({
        "controllerName": "example.com/other",
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
        "conditions": [{"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "mine",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let patch = json!([{"op": "add", "path": "/status/parents/-", "value": foreign}]).to_string();
    space
        .kubectl(&["patch", "httproute", "good", "--subresource=status", "--type=json", "--patch", &patch])
        .unwrap();
    space.apply(&route("good", PARENT, "web", 8081)).unwrap();
    let found = parents(&space, "good");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&foreign), "{found:?}");
    let ours = found.iter().find(|parent| parent["controllerName"] == OURS).unwrap();
    let accepted = condition(ours, "Accepted");
    assert_eq!((&accepted["observedGeneration"], &accepted["lastTransitionTime"]), (&json!(2), &since));
}

#[test]
fn a_wrong_route_says_what_is_wrong_with_it_until_it_is_put_right() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("wrong").unwrap();
    space.apply(&App::new("web").manifests()).unwrap();

    space.apply(&route("backend", PARENT, "nobody", 80)).unwrap();
    let found = parents(&space, "backend");
    assert_eq!(condition(&found[0], "Accepted")["status"], "True");
    let refs = condition(&found[0], "ResolvedRefs");
    assert_eq!((&refs["status"], &refs["reason"]), (&json!("False"), &json!("BackendNotFound")), "{refs}");
    assert!(refs["message"].as_str().unwrap().contains("nobody"), "{refs}");

    space.apply(&route("port", r#"{group: "", kind: Service, name: web, port: 4711}"#, "web", 80)).unwrap();
    let found = parents(&space, "port");
    let accepted = condition(&found[0], "Accepted");
    assert_eq!(
        (&accepted["status"], &accepted["reason"]),
        (&json!("False"), &json!("NoMatchingParent")),
        "{accepted}"
    );
    assert!(accepted["message"].as_str().unwrap().contains("4711"), "{accepted}");
    assert_eq!(found[0]["parentRef"]["port"], 4711);

    let other = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: kind}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{group: example.com, kind: Bucket, name: web, port: 80}]}]
";
    space.apply(other).unwrap();
    let refs = condition(&parents(&space, "kind")[0], "ResolvedRefs");
    assert_eq!((&refs["status"], &refs["reason"]), (&json!("False"), &json!("InvalidKind")), "{refs}");

    let event = space
        .until("an event about the route", || {
            let events = space.kubectl(&[
                "get",
                "events",
                "--field-selector=involvedObject.name=backend",
                "--output=json",
            ])?;
            let events: Value = serde_json::from_str(&events)?;
            Ok(events["items"].as_array().and_then(|items| items.first()).cloned())
        })
        .unwrap();
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("BackendNotFound")), "{event}");

    space.apply(&route("backend", PARENT, "web", 80)).unwrap();
    space
        .until("the route to be put right", || {
            let refs = condition(&parents(&space, "backend")[0], "ResolvedRefs");
            Ok((refs["status"] == "True").then_some(()))
        })
        .unwrap();
}

#[test]
fn while_one_rule_of_a_route_works_it_is_accepted_and_partially_invalid() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("partial").unwrap();
    space.run(&[App::new("web"), App::new("client")]).unwrap();
    let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: partial}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - {matches: [{path: {value: /odd}}], backendRefs: [{name: web, port: 80}],
     filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Bucket, name: b}}]}
  - {backendRefs: [{name: web, port: 80}]}
";
    space.apply(text).unwrap();
    let found = parents(&space, "partial");
    assert_eq!(condition(&found[0], "Accepted")["status"], "True");
    let partial = condition(&found[0], "PartiallyInvalid");
    assert_eq!(
        (&partial["status"], &partial["reason"]),
        (&json!("True"), &json!("UnsupportedValue")),
        "{partial}"
    );
    assert!(partial["message"].as_str().unwrap().starts_with("Dropped Rule"), "{partial}");
    let from = "deployment/client-v1";
    space.get_until(from, "http://web/odd", &[], |answer| answer.status() == Some(500)).unwrap();
    assert_eq!(space.get(from, "http://web/", &[]).unwrap().status(), Some(200));
}

/// The project's examples of a kind: good ones, or bad ones, which say what the server answers.
fn examples(part: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/examples").join(part);
    let files = std::fs::read_dir(folder).unwrap();
    let mut texts: Vec<_> =
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    texts.sort();
    texts
}

#[test]
fn the_server_takes_every_good_example_and_answers_every_bad_one_in_its_words() {
    let Some(mesh) = super::mesh() else { return };
    let apply = |text: &str| mesh.cluster.dry_run(text);
    for text in examples("good") {
        apply(&text).unwrap();
    }
    for text in examples("bad") {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# refused: ")).unwrap();
        let error = apply(&text).expect_err(&text).to_string();
        assert!(error.contains(expected), "{error}\nfor:\n{text}");
    }
}

#[test]
fn what_the_kinds_cannot_be_is_refused_before_it_is_stored() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("refused").unwrap();
    let wrong = "{apiVersion: weft.dev/v1alpha1, kind: TlsPolicy, metadata: {name: wrong},
        spec: {targetRefs: [{kind: Service, name: web}], mode: Strict}}";
    let error = space.apply(wrong).unwrap_err().to_string();
    assert!(error.contains("a TlsPolicy targets workloads, a namespace or the mesh"), "{error}");
    let explained = space.kubectl(&["explain", "authorizationpolicies.spec.rules.from"]).unwrap();
    assert!(explained.contains("serviceAccounts") && explained.contains("proven by mTLS"), "{explained}");
}
