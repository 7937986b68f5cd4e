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
#[path = "operator/rotation.rs"]
mod rotation;
#[path = "operator/webhook.rs"]
mod webhook;

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use serde_json::Value;
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
    removed(turn.0);
    let crds = turn.0.cluster.kubectl(&["get", "crds", "--output=name"]).unwrap();
    let gateway: Vec<&str> =
        crds.lines().filter(|name| name.ends_with("gateway.networking.k8s.io")).collect();
    if !gateway.is_empty() {
        turn.0.cluster.kubectl(&[&["delete"], &gateway[..]].concat()).unwrap();
    }
    Some(turn)
}

/// A turn on a cluster where Weft was installed with these flags, after the Gateway API's kinds.
fn installed(flags: &[&str]) -> Option<Turn> {
    let turn = turn()?;
    removed(turn.0);
    turn.0.cluster.install_gateway_api().unwrap();
    turn.0.install(flags).unwrap();
    Some(turn)
}

/// Removes Weft and what scenarios have left, however they ended.
fn removed(mesh: &Mesh) {
    let spaces = mesh.cluster.kubectl(&["get", "namespaces", "--output=name"]).unwrap();
    let system = ["namespace/default", "namespace/weft-system"];
    let left: Vec<&str> = spaces
        .lines()
        .filter(|name| !system.contains(name) && !name.starts_with("namespace/kube-"))
        .collect();
    if !left.is_empty() {
        mesh.cluster.kubectl(&[&["delete"], &left[..]].concat()).unwrap();
    }
    let names = mesh.weft(&["uninstall", "--force", "--crds"]).unwrap();
    // In this order the last thing named is gone last.
    let deleted = mesh.try_kubectl(&["delete", "--ignore-not-found", "--filename=-"], &names).unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
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
        let ours = |line: &&str| line.contains(" weft") || line.contains("weft.dev");
        let left: Vec<&str> = all.lines().filter(ours).collect();
        if left.is_empty() { Ok(Some(())) } else { bail!("{left:?}") }
    };
    cluster.wait_until(NAMESPACE, "nothing of Weft to be left", left).unwrap();
}

/// Waits for an event of this reason on an object of Weft's namespace; gives its message.
fn noticed(mesh: &Mesh, about: &str, reason: &str) -> String {
    let look = || {
        let about = format!("--field-selector=involvedObject.name={about},reason={reason}");
        let text =
            mesh.cluster.kubectl(&["get", "events", "--namespace", NAMESPACE, &about, "--output=json"])?;
        let events: Value = serde_json::from_str(&text)?;
        Ok(field(&events, "items.0.message").as_str().map(str::to_owned))
    };
    mesh.cluster.wait_until(NAMESPACE, &format!("an event {reason} on {about}"), look).unwrap()
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
