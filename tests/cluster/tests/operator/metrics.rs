//! What a control plane in a cluster counts, and the autoscalers that use what sidecars count.

use anyhow::Context as _;
use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{App, Mesh};

/// The reference, which is made from the code.
const REFERENCE: &str = include_str!("../../../../docs/metrics.md");
/// The autoscalers that are shipped.
const AUTOSCALERS: [&str; 2] = [
    include_str!("../../../../observability/autoscaling/hpa-requests.yaml"),
    include_str!("../../../../observability/autoscaling/hpa-latency.yaml"),
];

/// Names and when they are shown, of the control plane's part of the reference.
fn described() -> Vec<(String, String)> {
    let (_, part) = REFERENCE.split_once("\n## Control plane\n").unwrap();
    let rows = part.lines().filter(|line| line.starts_with("| `weft_") || line.starts_with("| `process_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells.first().unwrap().trim_matches('`').to_owned(), (*cells.last().unwrap()).to_owned())
    })
    .collect()
}

/// A route to a service that does not exist: its status says so, and an event does.
const NOWHERE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nowhere}
spec:
  parentRefs: [{group: '', kind: Service, name: server}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
";

/// What a control plane's pod shows a scraper.
fn page(mesh: &Mesh, pod: &str) -> anyhow::Result<String> {
    let told = mesh.forwarded(NAMESPACE, pod, 15014, "/metrics")?;
    told["body"].as_str().map(str::to_owned).with_context(|| told.to_string())
}

#[test]
fn a_kind_that_the_control_plane_may_not_watch_is_counted() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    // As one who installs would: a field that another manager has changed stands in the way of the next install.
    let whole = mesh.weft(&["install"]).unwrap();
    let without = whole.replace(" telemetrypolicies, meshes]", " meshes]");
    assert_ne!(whole, without);
    mesh.cluster.apply(&without).unwrap();
    let ours = ["--namespace", NAMESPACE, "--selector=app.kubernetes.io/name=weft-control-plane"];
    mesh.cluster.kubectl(&[&["delete", "pods"], &ours[..]].concat()).unwrap();
    let counted = mesh.cluster.wait_until(NAMESPACE, "the refusal to be counted", || {
        let pods = mesh.cluster.kubectl(&[&["get", "pods", "--output=name"], &ours[..]].concat())?;
        let page = page(mesh, pods.lines().next().context("no replica")?)?;
        let refused = |line: &&str| line.starts_with("weft_control_plane_watch_failures_total{");
        Ok(page.lines().find(refused).map(str::to_owned))
    });
    let counted = counted.unwrap();
    assert!(counted.contains(r#"kind="TelemetryPolicy""#) && counted.contains("Forbidden"), "{counted}");
}

#[test]
fn a_control_plane_in_a_cluster_shows_every_family_of_the_reference() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    let space = mesh.meshed("counted").unwrap();
    space.run(&[App::new("server")]).unwrap();
    space.apply(NOWHERE).unwrap();
    let both = ["weft_control_plane_status_writes_total{", "weft_control_plane_events_total{"];
    let page = mesh.cluster.wait_until(NAMESPACE, "a status and an event to be written and counted", || {
        let leader = mesh.leader()?.context("nobody leads")?;
        let page = page(mesh, &format!("pod/{leader}"))?;
        Ok(both.iter().all(|name| page.contains(name)).then_some(page))
    });
    let page = page.unwrap();
    let described = described();
    assert!(described.len() > 40, "{described:?}");
    // What only shows once something failed or ended may not have happened here.
    let always =
        described.iter().filter(|(_, shown)| !shown.contains("once") || shown.contains("pod was shown"));
    for (name, shown) in always {
        assert!(page.lines().any(|line| line.starts_with(name.as_str())), "{name} ({shown}) in\n{page}");
    }
    for manifest in AUTOSCALERS {
        let taken =
            mesh.cluster.try_kubectl(&["apply", "--dry-run=server", "--filename=-"], manifest).unwrap();
        assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    }
}
