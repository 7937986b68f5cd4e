//! From a cluster that has never heard of Weft to one where it works, and on to a newer installation.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use weft_cluster::mesh::{CONTROL_PLANE, NAMESPACE};
use weft_cluster::scenario::{App, Mesh, Space, field};

/// As much of the Prometheus Operator's kind as PodMonitors of ours use, and nothing else of it.
const POD_MONITORS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, listKind: PodMonitorList, plural: podmonitors, singular: podmonitor}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [selector]
            properties:
              selector: {type: object, x-kubernetes-preserve-unknown-fields: true}
              namespaceSelector: {type: object, properties: {any: {type: boolean}}}
              podMetricsEndpoints:
                type: array
                items:
                  type: object
                  properties:
                    port: {type: string}
                    path: {type: string}
                    interval: {type: string, pattern: '^([0-9]+(ms|s|m|h))+$'}
                    relabelings:
                      type: array
                      items:
                        type: object
                        properties:
                          action: {type: string, enum: [replace, keep, drop]}
                          sourceLabels: {type: array, items: {type: string}}
                          regex: {type: string}
                          replacement: {type: string}
                          targetLabel: {type: string}
";

/// Applies as the documentation says, with options; gives what kubectl said, or why it refused.
fn applied(mesh: &Mesh, verb: &[&str], options: &[&str]) -> String {
    let manifests = mesh.weft(verb).unwrap();
    let arguments = [&["apply", "--filename=-"], options].concat();
    let output = mesh.cluster.try_kubectl(&arguments, &manifests).unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_cluster_without_anything_is_told_what_it_lacks_and_takes_all_that_is_rendered() {
    let Some((mesh, _turn)) = super::bare() else { return };
    let said = mesh.weft(&["check", "--pre"]).unwrap();
    assert!(said.contains("warn  Gateway API: not installed"), "{said}");
    assert!(said.contains("install the standard channel"), "what to do: {said}");
    assert!(said.contains("you may create everything"), "{said}");
    assert!(!said.contains("FAIL"), "{said}");
    let output = mesh.try_weft(&["check"], "").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("has no Deployment weft-control-plane"), "{said}");

    // A dry run makes no namespace, so that it must be there for what is in it.
    mesh.cluster.kubectl(&["create", "namespace", NAMESPACE]).unwrap();
    mesh.cluster.apply(POD_MONITORS).unwrap();
    let kind = ["wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com"];
    mesh.cluster.kubectl(&kind).unwrap();
    for flags in [
        &["install"][..],
        &["install", "--ha"],
        &["install", "--ha", "--set", "networkPolicy.enabled=true", "--set", "podMonitor.enabled=true"],
    ] {
        for side in [&["--dry-run=server"][..], &["--dry-run=server", "--server-side"]] {
            let said = applied(mesh, flags, side);
            assert!(said.contains("mutatingwebhookconfiguration"), "{said}");
            // Whoever made the namespace did not apply it, which kubectl remarks on.
            let warned =
                said.lines().any(|line| line.starts_with("Warning:") && !line.contains("last-applied"));
            assert!(!warned, "{flags:?} {side:?}: {said}");
        }
    }
    mesh.cluster.kubectl(&["delete", "crd", "podmonitors.monitoring.coreos.com"]).unwrap();
    // Nothing but the namespace was made.
    let there = mesh.cluster.kubectl(&["get", "all,crd", "--namespace", NAMESPACE, "--output=name"]).unwrap();
    assert!(!there.contains("weft"), "{there}");
}

#[test]
fn weft_needs_no_gateway_api_and_takes_it_up_when_it_comes() {
    let Some((mesh, _turn)) = super::bare() else { return };
    applied(mesh, &["install"], &["--server-side"]);
    mesh.cluster.rolled_out(NAMESPACE, CONTROL_PLANE).unwrap();
    // No wait of ours: the check waits by itself.
    let said = mesh.weft(&["check"]).unwrap();
    assert!(said.contains("warn  Gateway API: not installed"), "{said}");
    assert!(said.contains("a pod that asks for a sidecar gets one"), "{said}");
    super::noticed(mesh, "weft-ca", "AuthorityMade", "a new root was made");

    let space = mesh.meshed("young").unwrap();
    space.run(&[App::new("server"), App::new("client")]).unwrap();
    let answer = |header: &str| {
        space.get_until("deployment/client-v1", "http://server/", &[], |answer| {
            answer.status() == Some(200) && answer.received("x-routed").unwrap_or_default() == header
        })
    };
    answer("").unwrap();
    let before = control_plane(mesh);

    mesh.cluster.install_gateway_api().unwrap();
    space
        .apply(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: first}
spec:
  parentRefs: [{group: '', kind: Service, name: server, port: 80}]
  rules:
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-routed, value: 'yes'}]}}]
    backendRefs: [{name: server, port: 80}]
",
        )
        .unwrap();
    super::accepted(&space, "httproute/first");
    answer("yes").unwrap();
    assert_eq!(control_plane(mesh), before, "nothing was restarted for it");
    let said = mesh.weft(&["check"]).unwrap();
    // The applications of this test leave some ports to be guessed, and are told so.
    let mut warned = said.lines().filter(|line| line.trim_start().starts_with("warn"));
    assert!(
        said.contains("ok    Gateway API: v1") && warned.all(|line| line.contains(" protocols: ")),
        "{said}"
    );

    status_shows_everything(mesh, &space);
}

/// Names and restarts of the control plane's pods.
fn control_plane(mesh: &Mesh) -> Vec<(String, Value)> {
    let pods = mesh.replicas().unwrap().into_iter().map(|pod| {
        let object = mesh.object(NAMESPACE, &format!("pod/{pod}")).unwrap();
        (pod, field(&object, "status.containerStatuses.0.restartCount").clone())
    });
    pods.collect()
}

/// Every column of `weft status`, and the same in JSON.
fn status_shows_everything(mesh: &Mesh, space: &Space<'_>) {
    let leader = mesh.leader().unwrap().unwrap();
    let (server, _) = space.pod("app=server").unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let shown = || {
        let said = mesh.weft(&["status"])?;
        let words = |first: &str| {
            let line = said.lines().find(|line| line.starts_with(first)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let replica = words(&leader);
        let sidecar = words(&format!("young/{server}"));
        let namespace = words("young ");
        let told = replica.len() == 6 && replica[1..5] == [version, "yes", "leader", "2"];
        let left = sidecar.get(3).is_some_and(|left| left.starts_with("23h"));
        let good = told
            && namespace == ["young", "2", "2", "0"]
            && left
            && sidecar[1..3] == [version, "current"]
            && sidecar[4..] == ["left", "-"];
        if good { Ok(Some(said)) } else { bail!("{said}") }
    };
    let said = space.until("`weft status` to show both sidecars in order", shown).unwrap();
    assert!(!said.contains("refused"), "{said}");

    let said = mesh.weft(&["status", "--output=json", "--only=young"]).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said[0]["pod"], &said[0]["leader"]), (&json!(leader), &json!(true)), "{said}");
    let sidecars = field(&said[0], "status.sidecars.list");
    assert!(sidecars[0]["certificateEnds"].is_u64() && sidecars[1].is_object(), "{said}");

    let wrong = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: wrong}
spec:
  parentRefs: [{group: '', kind: Service, name: server, port: 4711}]
  rules: [{backendRefs: [{name: server, port: 80}]}]
";
    space.apply(wrong).unwrap();
    space
        .until("`weft status` to name the route that is not in force", || {
            let said = mesh.weft(&["status"])?;
            let found = said.contains("HTTPRoute young/wrong at") && said.contains("4711");
            if found { Ok(Some(())) } else { bail!("{said}") }
        })
        .unwrap();
    let said = mesh.weft(&["check"]).unwrap();
    assert!(said.contains("warn  configuration: 1 not in force everywhere: HTTPRoute young/wrong"), "{said}");
}

#[test]
fn applying_again_changes_nothing_and_an_upgrade_keeps_what_was_chosen() {
    let chosen = ["--set", "webhook.timeoutSeconds=7", "--set", "proxy.resources.cpuRequest=15m"];
    let Some((mesh, _turn)) = super::installed(&chosen) else { return };
    let before = versions(mesh);
    applied(mesh, &[&["install"], &chosen[..]].concat(), &["--server-side"]);
    assert_eq!(versions(mesh), before, "the same again");
    applied(mesh, &["upgrade"], &["--server-side"]);
    assert_eq!(versions(mesh), before, "this version's upgrade, with the values that were chosen");

    applied(mesh, &["upgrade", "--set", "podDisruptionBudget.enabled=true"], &["--server-side"]);
    applied(mesh, &["upgrade", "--set", "networkPolicy.enabled=true"], &["--server-side"]);
    mesh.cluster.rolled_out(NAMESPACE, CONTROL_PLANE).unwrap();
    for more in ["poddisruptionbudget/weft-control-plane", "networkpolicy/weft-control-plane"] {
        mesh.object(NAMESPACE, more).unwrap();
    }
    let webhook = mesh.object("", "mutatingwebhookconfiguration/weft-injector").unwrap();
    assert_eq!(field(&webhook, "webhooks.0.timeoutSeconds"), &json!(7));
    mesh.settle().unwrap();
    let space = mesh.meshed("upgraded").unwrap();
    // A control plane that ran before takes them when the kubelet brings the new ConfigMap, about once a minute.
    let patience = Duration::from_secs(300);
    mesh.cluster
        .wait_for(NAMESPACE, "the injector to take what was chosen", patience, || {
            let pod =
                space.kubectl(&["run", "probe", "--image=none", "--dry-run=server", "--output=json"])?;
            let pod: Value = serde_json::from_str(&pod)?;
            Ok((field(&pod, "spec.initContainers.1.resources.requests.cpu") == "15m").then_some(()))
        })
        .unwrap();
    space.run(&[App::new("server")]).unwrap();
    let pods = space.pods("app=server").unwrap();
    assert_eq!(field(&pods[0], "spec.initContainers.1.resources.requests.cpu"), "15m");
}

/// What an installation is made of, each with the version and the generation the API server gave it.
fn versions(mesh: &Mesh) -> Vec<String> {
    let kinds = "deployments,services,serviceaccounts,configmaps,roles,rolebindings,clusterroles,\
                 clusterrolebindings,mutatingwebhookconfigurations,customresourcedefinitions,namespaces";
    let text = mesh
        .cluster
        .kubectl(&[
            "get",
            kinds,
            "--all-namespaces",
            "--selector=app.kubernetes.io/part-of=weft",
            "--output=json",
        ])
        .unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let items = field(&list, "items").as_array().cloned().unwrap();
    assert!(items.len() > 12, "{text}");
    let line = |item: &Value| {
        let meta = &item["metadata"];
        // A Deployment's version changes with its status too.
        let version = if item["kind"] == "Deployment" { &Value::Null } else { &meta["resourceVersion"] };
        format!("{} {} {version} {}", item["kind"], meta["name"], meta["generation"])
    };
    items.iter().map(line).collect()
}

#[test]
fn a_shell_takes_the_completions() {
    let Some((mesh, _turn)) = super::turn() else { return };
    let script = mesh.weft(&["completions", "bash"]).unwrap();
    assert!(script.contains("uninstall"), "{script}");
    let file = mesh.cluster.folder().join("completions.bash");
    std::fs::write(&file, script).unwrap();
    let read = Command::new("bash").arg("-n").arg(&file).output().unwrap();
    assert!(read.status.success() && read.stderr.is_empty(), "{read:?}");
}

#[test]
fn every_verb_that_asks_a_cluster_finds_it_as_kubectl_does() {
    let Some((mesh, _turn)) = super::turn() else { return };
    let verbs = [&["check"][..], &["status"], &["upgrade"], &["uninstall"], &["inject", "--filename=-"]];
    for verb in verbs {
        for (flag, named) in [("--kubeconfig=/no/such/file", "/no/such/file"), ("--context=nobody", "nobody")]
        {
            let output = mesh.try_weft(&[verb, &[flag]].concat(), &App::new("any").manifests()).unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(named), "{verb:?} {flag}: {said}");
        }
    }
}
