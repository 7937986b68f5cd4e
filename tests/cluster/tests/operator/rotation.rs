//! The drill of docs/rotation.md, while traffic flows and certificates are renewed all the time.

use anyhow::{Context as _, bail};
use serde_json::Value;
use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{App, Load, Mesh, Space, field};

use super::authority::{self, Ca};

/// Life of a leaf, seconds: half of it passes between renewals.
const LIFE: u64 = 40;
/// Three clients, two servers, and one that waits.
const SIDECARS: usize = 6;

#[test]
fn a_root_is_replaced_step_by_step_and_no_request_fails() {
    let Some((mesh, _turn)) = super::installed(&["--set", &format!("certificateLife={LIFE}s")]) else {
        return;
    };
    let space = mesh.meshed("rotation").unwrap();
    // The elder is asked nothing until its turn comes.
    space.run(&[App::new("server").replicas(2), App::new("elder")]).unwrap();
    let clients =
        [("kept", &[][..]), ("fresh", &["--fresh"]), ("streams", &["--http2"])].map(|(name, habit)| {
            space.steadily(name, &[&["http://server/", "--rate=40"], habit].concat()).unwrap()
        });
    let old = authority::read(mesh, "ca.crt").unwrap();
    let new = Ca::root("the new root");
    let address = field(&space.pods("app=server").unwrap()[0], "status.podIP").as_str().unwrap().to_owned();

    // 1. Trust both.
    let both = format!("{}\n{}", old.trim_end(), new.certificate);
    authority::write(mesh, &[("ca.crt", &both)]);
    told(mesh, 2);
    none_behind(mesh, &space);
    unharmed(&clients);
    assert!(authority::leads_up_to(mesh, &address, &old).unwrap());

    // 2. Sign with the new one; every leaf follows at its renewal.
    authority::write(mesh, &[("tls.crt", &new.certificate), ("tls.key", &new.key())]);
    super::noticed(mesh, "weft-ca", "AuthorityReplaced", "trusting 2 roots");
    renewed(mesh, &space);
    assert!(authority::leads_up_to(mesh, &address, &new.certificate).unwrap());
    unharmed(&clients);

    // 3. Drop the old one.
    authority::write(mesh, &[("ca.crt", &new.certificate)]);
    told(mesh, 1);
    none_behind(mesh, &space);
    assert!(!authority::leads_up_to(mesh, &address, &old).unwrap());
    unharmed(&clients);
    renewed(mesh, &space);
    unharmed(&clients);

    mesh.settle().unwrap();
    // One that knew only the old root when it was made begins anew.
    restarted(mesh, &space, "app=elder");
    space.run(&[App::new("newcomer")]).unwrap();
    for from in ["deployment/newcomer-v1", "deployment/elder-v1"] {
        space.get_until(from, "http://server/", &[], |answer| answer.status() == Some(200)).unwrap();
    }
    unharmed(&clients);
}

/// Kills a pod's sidecar, and waits until it is ready again.
fn restarted(mesh: &Mesh, space: &Space<'_>, label: &str) {
    let sidecar = || {
        let pods = space.pods(label)?;
        let all = field(&pods[0], "status.initContainerStatuses").as_array().cloned().unwrap_or_default();
        all.into_iter().find(|status| status["name"] == "weft-proxy").context("no sidecar")
    };
    let id = sidecar().unwrap()["containerID"].as_str().unwrap().replace("containerd://", "");
    let kill = ["--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", &id];
    let killed = mesh.cluster.command("ctr").args(kill).output().unwrap();
    assert!(killed.status.success(), "{killed:?}");
    space
        .until("the sidecar to be ready again", || {
            let status = sidecar()?;
            if status["restartCount"] == 1 && status["ready"] == true {
                Ok(Some(()))
            } else {
                bail!("{status}")
            }
        })
        .unwrap();
}

/// Waits until the mesh tells so many roots.
fn told(mesh: &Mesh, roots: usize) {
    let look = || {
        let trusted = authority::trusted(mesh)?;
        Ok((trusted.matches("BEGIN CERTIFICATE").count() == roots).then_some(()))
    };
    mesh.cluster.wait_until(NAMESPACE, &format!("{roots} roots in weft-trust"), look).unwrap();
}

/// All sidecars, as `weft status` has them, with the configuration that is published.
fn sidecars(mesh: &Mesh) -> anyhow::Result<Vec<(Value, u64)>> {
    let said: Value = serde_json::from_str(&mesh.weft(&["status", "--output=json"])?)?;
    let replicas = said.as_array().cloned().unwrap_or_default();
    let of = |replica: &Value| {
        let published = field(replica, "status.generation").as_u64().unwrap_or_default();
        let list = field(replica, "status.sidecars.list").as_array().cloned().unwrap_or_default();
        list.into_iter().map(move |sidecar| (sidecar, published)).collect::<Vec<_>>()
    };
    Ok(replicas.iter().flat_map(of).collect())
}

/// Waits until no sidecar is behind, as the drill says.
fn none_behind(mesh: &Mesh, space: &Space<'_>) {
    let look = || {
        let all = sidecars(mesh)?;
        let behind =
            all.iter().find(|(sidecar, published)| sidecar["generation"].as_u64() != Some(*published));
        match behind {
            None if all.len() >= SIDECARS => Ok(Some(())),
            other => bail!("{other:?} of {}", all.len()),
        }
    };
    space.until("no sidecar to be behind", look).unwrap();
}

/// Waits until every leaf was signed after now.
fn renewed(mesh: &Mesh, space: &Space<'_>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let look = || {
        let all = sidecars(mesh)?;
        let ends = |sidecar: &Value| sidecar["certificateEnds"].as_u64().unwrap_or_default();
        let old = all.iter().find(|(sidecar, _)| ends(sidecar) <= now + LIFE);
        match old {
            None if all.len() >= SIDECARS => Ok(Some(())),
            other => bail!("{other:?} of {}", all.len()),
        }
    };
    space.until("every certificate to be renewed", look).unwrap();
}

/// Every client goes on for a while, and none has failed since it began.
fn unharmed(clients: &[Load<'_>]) {
    for client in clients {
        let report = client.successes_after(60).unwrap();
        assert_eq!(field(&report, "failed"), 0, "{report}");
    }
}
