//! How one leaves: not by accident, and then without a trace.

use serde_json::Value;
use weft_cluster::scenario::{App, Space, field};

#[test]
fn leaving_waits_for_the_last_sidecar_and_what_users_wrote_stays_until_they_say_so() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    let space = mesh.meshed("leaving").unwrap();
    space.run(&[App::new("server")]).unwrap();
    let policy = "{apiVersion: weft.dev/v1alpha1, kind: TlsPolicy, metadata: {name: kept},
        spec: {targetRefs: [{kind: Namespace}], mode: Permissive}}";
    space.apply(policy).unwrap();

    let refused = mesh.try_weft(&["uninstall"], "").unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    let (pod, _) = space.pod("app=server").unwrap();
    for word in [&format!("leaving/{pod}"), "weft.dev/inject", "kubectl rollout restart", "--force"] {
        assert!(said.contains(word), "{word}: {said}");
    }

    // As it says.
    mesh.cluster.kubectl(&["label", "namespace", "leaving", "weft.dev/inject-"]).unwrap();
    space.kubectl(&["rollout", "restart", "deployment"]).unwrap();
    space.rolled_out("deployment/server-v1").unwrap();
    without_sidecars(&space);
    let names = mesh.weft(&["uninstall"]).unwrap();
    mesh.cluster.delete(&names).unwrap();
    let left = || {
        let kinds = "namespaces,clusterroles,clusterrolebindings,mutatingwebhookconfigurations";
        let part = "--selector=app.kubernetes.io/part-of=weft";
        let found = mesh.cluster.kubectl(&["get", kinds, part, "--output=name"])?;
        if found.is_empty() { Ok(Some(())) } else { anyhow::bail!(found) }
    };
    mesh.cluster.wait_until("leaving", "the installation to be gone", left).unwrap();
    let kept = space.object("tlspolicy/kept").unwrap();
    assert_eq!(field(&kept, "spec.mode"), "Permissive", "what users wrote stays");

    let names = mesh.weft(&["uninstall", "--crds"]).unwrap();
    mesh.cluster.delete(&names).unwrap();
    super::nothing_left(&mesh.cluster);
}

fn without_sidecars(space: &Space<'_>) {
    let look = || {
        let pods = space.pods("app=server")?;
        let plain = pods.iter().all(|pod| field(pod, "spec.initContainers") == &Value::Null);
        Ok((pods.len() == 1 && plain).then_some(()))
    };
    space.until("only pods without a sidecar", look).unwrap();
}
