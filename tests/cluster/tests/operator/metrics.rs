//! What a control plane in a cluster counts, and the autoscalers that use what sidecars count.

use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::App;

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

#[test]
fn a_control_plane_in_a_cluster_shows_every_family_of_the_reference() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    let space = mesh.meshed("counted").unwrap();
    space.run(&[App::new("server")]).unwrap();
    let leader = mesh.leader().unwrap().unwrap();
    let told = mesh.forwarded(NAMESPACE, &format!("pod/{leader}"), 15014, "/metrics").unwrap();
    let page = told["body"].as_str().unwrap_or_else(|| panic!("{told}"));
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
