//! Who gets a sidecar, who does not, and how one hears of it.

use serde_json::Value;
use weft_cluster::scenario::{App, LOAD_IMAGE, field};

#[test]
fn what_cannot_be_injected_is_said_in_an_event_and_never_silently_left_out() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("on-the-node").unwrap();
    let said = space
        .apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: flat}}, spec: {{hostNetwork: true, containers: [
               {{name: app, image: '{LOAD_IMAGE}', imagePullPolicy: Never, args: [serve, '--http=18080']}}]}}}}"
        ))
        .unwrap();
    assert!(said.contains("Warning: ") && said.contains("hostNetwork"), "{said}");
    let pod = space.object("pod/flat").unwrap();
    assert_eq!(field(&pod, "spec.initContainers"), &Value::Null, "{pod}");
    space
        .until("an event about it", || {
            let events = space.kubectl(&["get", "events", "--output=json"])?;
            let events: Value = serde_json::from_str(&events)?;
            let found = field(&events, "items").as_array().is_some_and(|items| {
                items.iter().any(|event| {
                    event["type"] == "Warning"
                        && field(event, "involvedObject.name") == "flat"
                        && event["message"].as_str().is_some_and(|message| message.contains("hostNetwork"))
                })
            });
            Ok(found.then_some(()))
        })
        .unwrap();
}

#[test]
fn a_pod_declines_by_label_and_asks_by_label() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("declines").unwrap();
    space.run(&[App::new("in"), App::new("out").label("weft.dev/inject", "disabled")]).unwrap();
    let containers = |label: &str| {
        let pods = space.pods(label).unwrap();
        field(&pods[0], "spec.initContainers").as_array().map_or(0, Vec::len)
    };
    assert_eq!((containers("app=in"), containers("app=out")), (2, 0));
    let plain = mesh.plain("asks").unwrap();
    plain.run(&[App::new("asks").label("weft.dev/inject", "enabled")]).unwrap();
    let pods = plain.pods("app=asks").unwrap();
    assert_eq!(field(&pods[0], "spec.initContainers.1.name"), "weft-proxy");
}

#[test]
fn an_annotation_sets_and_a_misspelt_one_is_warned_about() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("annotated").unwrap();
    let pod = |name: &str, annotation: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{{annotation}}}}},
               spec: {{containers: [{{name: app, image: '{LOAD_IMAGE}', imagePullPolicy: Never, args: [serve]}}]}}}}"
        )
    };
    let said =
        space.apply(&pod("good", "weft.dev/cpu-request: 25m, weft.dev/skip-inbound-ports: '8080'")).unwrap();
    assert!(!said.contains("Warning"), "{said}");
    let sidecar = field(&space.object("pod/good").unwrap(), "spec.initContainers.1").clone();
    assert_eq!(field(&sidecar, "resources.requests.cpu"), "25m", "{sidecar}");

    let said = space.apply(&pod("typo", "weft.dev/cpu-requst: 25m")).unwrap();
    assert!(said.contains("Warning: ") && said.contains("weft.dev/cpu-request"), "{said}");

    let said = space.apply(&pod("bad", "weft.dev/cpu-request: plenty"));
    let said = said.unwrap_or_else(|error| error.to_string());
    assert!(said.contains("weft.dev/cpu-request") && said.contains("plenty"), "{said}");

    // What is skipped is the application's own: strict mode does not guard it.
    let outside = mesh.plain("annotated-outside").unwrap();
    outside.run(&[App::new("stranger")]).unwrap();
    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: TlsPolicy, metadata: {name: strict},
              spec: {targetRefs: [{kind: Namespace}], mode: Strict}}",
        )
        .unwrap();
    space.kubectl(&["wait", "pod/good", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    let (_, address) = space.pod("app=good").unwrap();
    let answer = outside.get("deployment/stranger-v1", &format!("http://{address}:8080/"), &[]).unwrap();
    assert_eq!(answer.status(), Some(200), "{answer:?}");
}

#[test]
fn on_an_older_kubelet_the_sidecar_is_a_container_like_others_and_carries_mutual_tls() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("older").unwrap();
    let old = |name| App::new(name).annotation("weft.dev/native-sidecar", "false");
    space.run(&[old("server"), old("client")]).unwrap();
    let pod = &space.pods("app=server").unwrap()[0];
    let names: Vec<_> =
        field(pod, "spec.containers").as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert!(names.contains(&&Value::from("weft-proxy")), "{names:?}");
    let good = |answer: &weft_cluster::scenario::Answer| answer.status() == Some(200);
    space.get_until("deployment/client-v1", "http://server/old", &[], good).unwrap();
    let entry = space.logged("app=server", |entry| entry["http.path"] == "/old").unwrap();
    assert_eq!(entry["security"], "mutual_tls", "{entry}");
}

#[test]
fn weft_inject_gives_the_very_pod_that_the_webhook_gives() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.plain("by-hand").unwrap();
    let manifests = App::new("hand").manifests();
    let output = mesh.try_weft(&["inject", "--filename=-"], &manifests).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    space.apply(&String::from_utf8(output.stdout).unwrap()).unwrap();
    space.rolled_out("deployment/hand-v1").unwrap();
    let meshed = mesh.meshed("by-webhook").unwrap();
    meshed.run(&[App::new("hand")]).unwrap();
    let sidecar = |space: &weft_cluster::scenario::Space<'_>| {
        let pods = space.pods("app=hand").unwrap();
        let mut sidecar = field(&pods[0], "spec.initContainers.1").clone();
        let mounts = sidecar["volumeMounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["name"].as_str().unwrap_or_default().starts_with("kube-api-access"));
        sidecar
    };
    assert_eq!(sidecar(&space), sidecar(&meshed));
}
