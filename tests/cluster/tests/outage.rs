//! What comes and goes while traffic flows: servers, clients, and the control plane itself.
//!
//! Invariant: these scenarios stop what all of a mesh share, so they take turns.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use weft_cluster::cluster::Cluster;
use weft_cluster::mesh::{CONTROL_PLANE, NAMESPACE};
use weft_cluster::scenario::{App, LOAD_IMAGE, Load, Mesh, Space, Wish, field};

/// The mesh of these scenarios, and the turn on it.
fn turn() -> Option<(&'static Mesh, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    // A scenario that failed has left the mesh as it was found, or the next one says so.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Some((Mesh::shared(Wish::default())?, turn))
}

/// Steady clients of three habits: kept connections, new ones, HTTP/2.
fn clients<'s>(space: &'s Space<'_>, url: &str) -> [Load<'s>; 3] {
    [("kept", &[][..]), ("fresh", &["--fresh"]), ("streams", &["--http2"])]
        .map(|(name, habit)| space.steadily(name, &[&[url, "--rate=40"], habit].concat()).unwrap())
}

/// Every client goes on for a while, and none has failed since it began.
fn unharmed(clients: &[Load<'_>]) {
    for client in clients {
        let report = client.successes_after(60).unwrap();
        assert_eq!(field(&report, "failed"), 0, "{report}");
    }
}

/// The pods of the control plane, those that are leaving among them.
fn replicas(cluster: &Cluster) -> Vec<String> {
    let selector = "--selector=app.kubernetes.io/name=weft-control-plane";
    let names =
        cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, selector, "--output=name"]).unwrap();
    names.lines().map(str::to_owned).collect()
}

#[test]
fn servers_and_clients_are_replaced_under_load_and_no_request_fails() {
    let Some((mesh, _turn)) = turn() else { return };
    let space = mesh.meshed("rolling").unwrap();
    // It stops listening the moment it is told to end, as most do.
    space.run(&[App::new("server").replicas(2).arguments(&["--on-term=finish"])]).unwrap();
    let clients = clients(&space, "http://server/");
    let before: Vec<String> = serving(&clients[0]);

    space.kubectl(&["rollout", "restart", "deployment/server-v1"]).unwrap();
    space.rolled_out("deployment/server-v1").unwrap();
    gone(&space, "app=server", 2);
    unharmed(&clients);
    let after = serving(&clients[0]);
    assert!(after.iter().filter(|pod| !before.contains(pod)).count() >= 2, "{before:?} {after:?}");

    let leaving = space.pod("app=kept").unwrap().0;
    let last = clients[0].follow(&leaving).unwrap();
    space.kubectl(&["rollout", "restart", "deployment/kept"]).unwrap();
    space.rolled_out("deployment/kept").unwrap();
    let report = last.hear().unwrap();
    assert_eq!(field(&report, "failed"), 0, "the client that left: {report}");
    gone(&space, "app=kept", 1);
    unharmed(&clients);
}

/// The pods that have served a client.
fn serving(client: &Load<'_>) -> Vec<String> {
    let report = client.successes_after(20).unwrap();
    field(&report, "pods").as_object().unwrap().keys().cloned().collect()
}

/// Waits until only so many pods are left.
fn gone(space: &Space<'_>, label: &str, left: usize) {
    let look = || Ok((space.pods(label)?.len() == left).then_some(()));
    space.until(&format!("{left} pods of {label}"), look).unwrap();
}

#[test]
fn the_control_plane_is_replaced_or_loses_a_replica_under_load_and_no_request_fails() {
    let Some((mesh, _turn)) = turn() else { return };
    let space = mesh.meshed("replaced").unwrap();
    space.run(&[App::new("server").replicas(2)]).unwrap();
    let clients = clients(&space, "http://server/");
    let cluster = &mesh.cluster;

    cluster.kubectl(&["rollout", "restart", "--namespace", NAMESPACE, CONTROL_PLANE]).unwrap();
    cluster.rolled_out(NAMESPACE, CONTROL_PLANE).unwrap();
    unharmed(&clients);

    // Several replicas, on the only node there is.
    mesh.install(&["--ha", "--set", "spread=None", "--set", "replicas=2"]).unwrap();
    let settled = || Ok(mesh.leader()?.filter(|_| mesh.replicas().is_ok_and(|pods| pods.len() == 2)));
    let first = cluster.wait_until(NAMESPACE, "one of two replicas to lead", settled).unwrap();
    cluster
        .kubectl(&["delete", "pod", "--namespace", NAMESPACE, &first, "--grace-period=0", "--force"])
        .unwrap();
    cluster
        .wait_until(NAMESPACE, "another leader", || Ok(settled()?.filter(|leader| *leader != first)))
        .unwrap();
    cluster.rolled_out(NAMESPACE, CONTROL_PLANE).unwrap();
    unharmed(&clients);
    // The new leader does what the old one did: configuration goes out, and its status comes in.
    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {name: nobody},
              spec: {targetRefs: [{kind: Workload, selector: {app: server}}], action: Deny, rules: [{from: [{namespaces: [elsewhere]}]}]}}",
        )
        .unwrap();
    space
        .until("the policy to be applied at both servers", || {
            let object = space.object("authorizationpolicy/nobody")?;
            let applied = field(&object, "status.sidecars.applied");
            if *applied == json!(2) { Ok(Some(())) } else { anyhow::bail!("{}", field(&object, "status")) }
        })
        .unwrap();
    unharmed(&clients);
    mesh.install(&[]).unwrap();
}

#[test]
fn without_a_control_plane_traffic_goes_on_and_new_pods_say_what_they_wait_for() {
    let Some((mesh, _turn)) = turn() else { return };
    let cluster = &mesh.cluster;
    mesh.install(&["--set", "webhook.failurePolicy=Fail"]).unwrap();
    let space = mesh.meshed("outage").unwrap();
    space.run(&[App::new("server").replicas(2)]).unwrap();
    let clients = clients(&space, "http://server/");
    let by_hand = mesh.try_weft(&["inject", "--filename=-"], &waiting_pod()).unwrap();
    let by_hand = String::from_utf8(by_hand.stdout).unwrap();
    let plain = mesh.plain("outage-by-hand").unwrap();

    scale(cluster, 0);
    unharmed(&clients);

    plain.apply(&by_hand).unwrap();
    plain
        .until("the sidecar to say what it waits for", || {
            let log = plain.kubectl(&["logs", "waiting", "--container=weft-proxy"])?;
            let said = log.lines().any(|line| line.contains("weft-control-plane.weft-system.svc:15010"));
            if said { Ok(Some(())) } else { anyhow::bail!("{log}") }
        })
        .unwrap();
    plain
        .until("the kubelet to say that it waits", || {
            let described = plain.kubectl(&["describe", "pod", "waiting"])?;
            if described.contains("Startup probe failed") { Ok(Some(())) } else { anyhow::bail!(described) }
        })
        .unwrap();
    space.kubectl(&["scale", "deployment/server-v1", "--replicas=3"]).unwrap();
    space
        .until("the refused pod's message", || {
            let events = space.kubectl(&["get", "events", "--output=json"])?;
            let events: Value = serde_json::from_str(&events)?;
            let items = field(&events, "items").as_array().cloned().unwrap_or_default();
            let told = items.iter().any(|event| {
                event["reason"] == "FailedCreate"
                    && event["message"].as_str().is_some_and(|text| text.contains("injector.weft.dev"))
            });
            Ok(told.then_some(()))
        })
        .unwrap();
    // A minute, by the clock of who asks 40 times a second.
    for _ in 0..3 {
        clients[0].successes_after(800).unwrap();
    }
    unharmed(&clients);

    scale(cluster, 1);
    mesh.settle().unwrap();
    plain.kubectl(&["wait", "pod/waiting", "--for=condition=Ready", "--timeout=120s"]).unwrap();
    space.rolled_out("deployment/server-v1").unwrap();
    gone(&space, "app=server", 3);
    unharmed(&clients);
    for pod in space.pods("app=server").unwrap().iter().chain(&plain.pods("app=waiting").unwrap()) {
        for list in ["status.containerStatuses", "status.initContainerStatuses"] {
            for container in field(pod, list).as_array().unwrap() {
                assert_eq!(container["restartCount"], 0, "nothing had to be restarted: {container}");
            }
        }
    }
    no_storm(mesh);
    mesh.install(&[]).unwrap();
}

/// What the only replica has been through since it came back: each sidecar came once or so, and the API
/// server was asked for each list once.
fn no_storm(mesh: &Mesh) {
    let replica = format!("pod/{}", mesh.replicas().unwrap().first().unwrap());
    let told = mesh.forwarded(NAMESPACE, &replica, 15014, "/metrics").unwrap();
    let metrics = told["body"].as_str().unwrap_or_else(|| panic!("{told}"));
    let values = |name: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("weft_control_plane_{name}")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect::<Vec<u64>>()
    };
    let connected: u64 = values("sidecars_connected").iter().sum();
    let accepted: u64 = values("connections_total{outcome=\"Accepted\"}").iter().sum();
    // One connection for the stream and, of who is new, one for the certificate.
    assert!(connected >= 7 && accepted <= 3 * connected, "{accepted} connections of {connected} sidecars");
    let lists = values("watch_lists_total");
    assert!(!lists.is_empty() && lists.iter().all(|lists| *lists == 1), "lists by kind: {lists:?}");
}

#[test]
fn a_pod_that_slipped_by_without_a_sidecar_is_reported() {
    let Some((mesh, _turn)) = turn() else { return };
    let space = mesh.meshed("slipped").unwrap();
    scale(&mesh.cluster, 0);
    space.run(&[App::new("server")]).unwrap();
    let pod = space.pods("app=server").unwrap().remove(0);
    assert_eq!(field(&pod, "spec.initContainers"), &Value::Null, "the webhook may be ignored by default");
    scale(&mesh.cluster, 1);
    mesh.settle().unwrap();
    let name = field(&pod, "metadata.name").clone();
    space
        .until("an event about the pod", || {
            let events = space.kubectl(&["get", "events", "--output=json"])?;
            let events: Value = serde_json::from_str(&events)?;
            let items = field(&events, "items").as_array().cloned().unwrap_or_default();
            let told = items.iter().any(|event| {
                event["type"] == "Warning"
                    && field(event, "involvedObject.name") == &name
                    && event["message"].as_str().is_some_and(|text| text.contains("sidecar"))
            });
            Ok(told.then_some(()))
        })
        .unwrap();
}

#[test]
fn what_was_uninstalled_leaves_nothing_and_can_be_installed_again() {
    let Some((mesh, _turn)) = turn() else { return };
    let cluster = &mesh.cluster;
    let names = mesh.weft(&["uninstall", "--force", "--crds"]).unwrap();
    cluster.delete(&names).unwrap();
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]).unwrap();
    let kinds: Vec<&str> =
        kinds.lines().filter(|kind| !kind.contains("weft.dev") && *kind != "events").collect();
    let kinds = kinds.join(",");
    let left = || {
        let labelled = ["get", &kinds, "--all-namespaces", "--ignore-not-found", "--output=name"];
        let found =
            cluster.kubectl(&[&labelled[..], &["--selector=app.kubernetes.io/part-of=weft"]].concat())?;
        let all = cluster.kubectl(&labelled)?;
        let named = all.lines().filter(|line| line.contains("/weft-") || line.contains("weft.dev"));
        let left: Vec<&str> = found.lines().chain(named).collect();
        if left.is_empty() { Ok(Some(())) } else { anyhow::bail!("{left:?}") }
    };
    cluster.wait_until(NAMESPACE, "nothing to be left", left).unwrap();
    mesh.install(&[]).unwrap();
}

fn scale(cluster: &Cluster, to: usize) {
    let to_replicas = format!("--replicas={to}");
    cluster.kubectl(&["scale", "--namespace", NAMESPACE, CONTROL_PLANE, &to_replicas]).unwrap();
    let look = || Ok((replicas(cluster).len() == to).then_some(()));
    cluster.wait_until(NAMESPACE, &format!("{to} replicas"), look).unwrap();
    cluster.rolled_out(NAMESPACE, CONTROL_PLANE).unwrap();
}

fn waiting_pod() -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: waiting, labels: {{app: waiting}}}}
spec: {{containers: [{{name: app, image: '{LOAD_IMAGE}', imagePullPolicy: Never, args: [serve]}}]}}
"
    )
}
