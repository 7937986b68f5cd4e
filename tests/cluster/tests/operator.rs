//! What an operator does with an installation, from a cluster that knows nothing of it to one that has
//! forgotten it, and what the control plane keeps in order by itself meanwhile.
//!
//! Invariant: these scenarios install and remove what all of a mesh share, so they take turns; each makes
//! the cluster what it needs first, whatever the one before has left.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

#[path = "operator/authority.rs"]
mod authority;
#[path = "operator/install.rs"]
mod install;
#[path = "operator/kept.rs"]
mod kept;
#[path = "operator/kinds.rs"]
mod kinds;
#[path = "operator/leave.rs"]
mod leave;
#[path = "operator/metrics.rs"]
mod metrics;
#[path = "operator/observe.rs"]
mod observe;
#[path = "operator/rotation.rs"]
mod rotation;
#[path = "operator/webhook.rs"]
mod webhook;

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use weft_cluster::cluster::Cluster;
use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{Mesh, Space, Wish, field};

/// The cluster, for as long as it is nobody else's.
type Turn = (&'static Mesh, MutexGuard<'static, ()>);

/// The cluster of these scenarios, and the turn on it.
fn turn() -> Option<Turn> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Some((Mesh::shared(Wish { bare: true, ..Wish::default() })?, turn))
}

/// A turn on a cluster with neither Weft nor the Gateway API's kinds.
fn bare() -> Option<Turn> {
    let turn = turn()?;
    let cluster = &turn.0.cluster;
    let left = swept(turn.0);
    let names = turn.0.weft(&["uninstall", "--force", "--crds"]).unwrap();
    let deleted = cluster.try_kubectl(&["delete", "--ignore-not-found", "--filename=-"], &names).unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    let crds = cluster.kubectl(&["get", "crds", "--output=name"]).unwrap();
    let gateway = crds.lines().filter(|name| name.ends_with("gateway.networking.k8s.io")).map(str::to_owned);
    let gateway: Vec<String> = gateway.collect();
    if !gateway.is_empty() {
        cluster.kubectl(&words(&["delete"], &gateway)).unwrap();
    }
    if !left.is_empty() {
        cluster.kubectl(&words(&["wait", "--for=delete", "--timeout=60s"], &left)).unwrap();
    }
    Some(turn)
}

/// A turn on a cluster where Weft is installed with these flags, beside the Gateway API's kinds, over
/// whatever installation was there.
fn installed(flags: &[&str]) -> Option<Turn> {
    let turn = turn()?;
    swept(turn.0);
    turn.0.cluster.install_gateway_api().unwrap();
    turn.0.install(flags).unwrap();
    Some(turn)
}

/// Deletes the namespaces that scenarios have left, however they ended, without waiting; gives their names.
fn swept(mesh: &Mesh) -> Vec<String> {
    let spaces = mesh.cluster.kubectl(&["get", "namespaces", "--output=name"]).unwrap();
    let system = ["namespace/default", "namespace/weft-system"];
    let left = spaces.lines().filter(|name| !system.contains(name) && !name.starts_with("namespace/kube-"));
    let left: Vec<String> = left.map(str::to_owned).collect();
    if !left.is_empty() {
        // One that was on its way out may be gone by now.
        mesh.cluster.kubectl(&words(&["delete", "--wait=false", "--ignore-not-found"], &left)).unwrap();
    }
    left
}

fn words<'w>(first: &[&'w str], more: &'w [String]) -> Vec<&'w str> {
    first.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

/// Waits until the cluster knows nothing of Weft any more, of whatever kind.
fn nothing_left(cluster: &Cluster) {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]).unwrap();
    let kinds: Vec<&str> =
        kinds.lines().filter(|kind| !kind.contains("weft.dev") && !kind.starts_with("events")).collect();
    let kinds = kinds.join(",");
    let columns = "--output=custom-columns=KIND:.kind,NAME:.metadata.name,OF:.metadata.labels.app\\.kubernetes\\.io/part-of";
    let left = || {
        let all = cluster.kubectl(&["get", &kinds, "--all-namespaces", "--ignore-not-found", columns])?;
        let ours = |line: &&str| {
            line.contains(" weft-") || line.contains("weft.dev") || line.trim_end().ends_with(" weft")
        };
        let left: Vec<&str> = all.lines().filter(ours).collect();
        if left.is_empty() { Ok(Some(())) } else { bail!("{left:?}") }
    };
    cluster.wait_until(NAMESPACE, "nothing of Weft to be left", left).unwrap();
}

/// Waits for an event of this reason, in these words, on an object of Weft's namespace.
fn noticed(mesh: &Mesh, about: &str, reason: &str, words: &str) {
    let look = || {
        let of_it = format!("--field-selector=involvedObject.name={about},reason={reason}");
        let said = mesh.cluster.kubectl(&[
            "get",
            "events",
            "--namespace",
            NAMESPACE,
            &of_it,
            "--output=jsonpath={.items[*].message}",
        ])?;
        if said.contains(words) { Ok(Some(())) } else { bail!("{said}") }
    };
    mesh.cluster.wait_until(NAMESPACE, &format!("an event {reason} on {about}"), look).unwrap();
}

/// Waits until a route's only parent says Accepted.
fn accepted(space: &Space<'_>, route: &str) {
    space
        .until(&format!("{route} to be accepted"), || {
            let object = space.object(route)?;
            let conditions = field(&object, "status.parents.0.conditions").as_array().cloned();
            let accepted = conditions.into_iter().flatten().find(|condition| condition["type"] == "Accepted");
            match accepted {
                Some(accepted) if accepted["status"] == "True" => Ok(Some(())),
                other => bail!("{other:?}"),
            }
        })
        .unwrap();
}
