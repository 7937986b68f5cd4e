//! What the injector costs whoever makes pods.

use std::io::Write as _;

use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{App, Mesh};

/// Pods that are made as a dry run.
const PODS: usize = 500;
/// The control plane's own histogram: from a whole request to its answer.
const OURS: &str = "weft_control_plane_injection_duration_seconds";
/// The API server's: what it waited for the webhook, TLS and network included.
const THEIRS: &str = "apiserver_admission_webhook_admission_duration_seconds";

#[test]
fn five_hundred_pods_are_shown_to_the_webhook_and_what_each_waited_is_told() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    let space = mesh.meshed("many").unwrap();
    let pods: Vec<String> = (0..PODS)
        .map(|at| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: pod-{at}}},
                   spec: {{containers: [{{name: app, image: none}}]}}}}"
            )
        })
        .collect();
    let before = [ours(mesh), theirs(mesh)];
    let mut arguments = vec!["create", "--dry-run=server", "--namespace", &space.name, "--filename=-"];
    arguments.push("--output=jsonpath={.metadata.annotations.weft\\.dev/sidecar}");
    let output = mesh.cluster.try_kubectl(&arguments, &pods.join("\n---\n")).unwrap();
    let marks = String::from_utf8_lossy(&output.stdout).matches("injected").count();
    assert_eq!((output.status.success(), marks), (true, PODS), "{}", String::from_utf8_lossy(&output.stderr));
    let after = [ours(mesh), theirs(mesh)];

    let mut line = format!("webhook, {PODS} pods:");
    for (name, (before, after)) in ["answering", "waiting"].iter().zip(before.iter().zip(&after)) {
        let counts: Vec<(f64, u64)> =
            after.iter().map(|(bound, count)| (*bound, count - of(before, *bound))).collect();
        let all = counts.last().map_or(0, |(_, count)| *count);
        assert!(all >= PODS as u64, "each pod was shown: {counts:?}");
        for part in [50, 99] {
            line += &format!(" {name} p{part} <= {} ms", quantile(&counts, part) * 1000.0);
        }
    }
    // Past the captured output: the figure is what this is for.
    writeln!(std::io::stderr().lock(), "{line}").unwrap();
    space.run(&[App::new("server")]).unwrap();
}

/// The bound below which this percentage lies.
fn quantile(counts: &[(f64, u64)], part: u64) -> f64 {
    let all = counts.last().map_or(0, |(_, count)| *count);
    counts.iter().find(|(_, count)| count * 100 >= all * part).map_or(f64::INFINITY, |(bound, _)| *bound)
}

fn of(counts: &[(f64, u64)], bound: f64) -> u64 {
    counts.iter().find(|(other, _)| *other == bound).map_or(0, |(_, count)| *count)
}

fn ours(mesh: &Mesh) -> Vec<(f64, u64)> {
    let leader = mesh.leader().unwrap().unwrap();
    let told = mesh.forwarded(NAMESPACE, &format!("pod/{leader}"), 15014, "/metrics").unwrap();
    let metrics = told["body"].as_str().unwrap_or_else(|| panic!("{told}"));
    buckets(metrics, |line| line.starts_with(&format!("{OURS}_bucket")))
}

fn theirs(mesh: &Mesh) -> Vec<(f64, u64)> {
    let metrics = mesh.cluster.kubectl(&["get", "--raw", "/metrics"]).unwrap();
    buckets(&metrics, |line| {
        line.starts_with(&format!("{THEIRS}_bucket")) && line.contains("name=\"namespace.injector.weft.dev\"")
    })
}

/// Bounds and the counts below them, of one histogram.
fn buckets(metrics: &str, of_it: impl Fn(&str) -> bool) -> Vec<(f64, u64)> {
    let lines = metrics.lines().filter(|line| of_it(line));
    let mut found: Vec<(f64, u64)> = Vec::new();
    for line in lines {
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok()).unwrap();
        let bound = bound.parse::<f64>().unwrap_or(f64::INFINITY);
        match found.iter_mut().find(|(other, _)| *other == bound) {
            Some((_, sum)) => *sum += count as u64,
            None => found.push((bound, count as u64)),
        }
    }
    found
}
