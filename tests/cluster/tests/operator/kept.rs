//! What the leader keeps in order while people and accidents spoil it.

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{App, Mesh, field};

use super::authority::{self, Ca};

const WEBHOOK: &str = "mutatingwebhookconfiguration/weft-injector";
const API: &str = "apiservice/v1alpha1.observe.weft.dev";

#[test]
fn what_is_spoilt_by_hand_is_put_right() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    let before = bundles(mesh).unwrap();
    let trusted = authority::trusted(mesh).unwrap();
    assert!(trusted.contains("BEGIN CERTIFICATE") && before.len() == 2, "{before:?}");

    let foreign = json!(STANDARD.encode(Ca::root("nobody's").certificate));
    let patch: Vec<Value> = (0..before.len())
        .map(|at| json!({"op": "replace", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": foreign}))
        .collect();
    let patch = json!(patch).to_string();
    mesh.cluster.kubectl(&["patch", WEBHOOK, "--type=json", "--patch", &patch]).unwrap();
    let right = || Ok((bundles(mesh)? == before).then_some(()));
    mesh.cluster.wait_until(NAMESPACE, "the webhook's roots to be put right", right).unwrap();

    let bundle = || Ok::<_, anyhow::Error>(field(&mesh.object("", API)?, "spec.caBundle").clone());
    let held = bundle().unwrap();
    assert_eq!(held, before[0], "whoever calls the port trusts the same roots");
    let patch = json!([{"op": "replace", "path": "/spec/caBundle", "value": foreign}]).to_string();
    mesh.cluster.kubectl(&["patch", API, "--type=json", "--patch", &patch]).unwrap();
    let right = || Ok((bundle()? == held).then_some(()));
    mesh.cluster.wait_until(NAMESPACE, "the API's roots to be put right", right).unwrap();

    let right = || Ok((authority::trusted(mesh)? == trusted).then_some(()));
    mesh.cluster.kubectl(&["delete", "--namespace", NAMESPACE, "configmap/weft-trust"]).unwrap();
    mesh.cluster.wait_until(NAMESPACE, "the ConfigMap to be back", right).unwrap();
    let empty = r#"{"data": {"root.pem": ""}}"#;
    mesh.cluster
        .kubectl(&["patch", "--namespace", NAMESPACE, "configmap/weft-trust", "--patch", empty])
        .unwrap();
    mesh.cluster.wait_until(NAMESPACE, "its content to be back", right).unwrap();

    mesh.settle().unwrap();
    mesh.meshed("after").unwrap().run(&[App::new("server")]).unwrap();
}

/// What the API server trusts when it calls each webhook.
fn bundles(mesh: &Mesh) -> anyhow::Result<Vec<Value>> {
    let webhook = mesh.object("", WEBHOOK)?;
    let webhooks = field(&webhook, "webhooks").as_array().cloned().unwrap_or_default();
    Ok(webhooks.iter().map(|webhook| field(webhook, "clientConfig.caBundle").clone()).collect())
}

#[test]
fn a_deleted_authority_comes_back_as_it_was_and_one_that_cannot_be_used_changes_nothing() {
    let Some((mesh, _turn)) = super::installed(&[]) else { return };
    let space = mesh.meshed("authority").unwrap();
    space.run(&[App::new("server")]).unwrap();
    let client = space.steadily("client", &["http://server/", "--rate=40", "--fresh"]).unwrap();
    let entries = ["tls.crt", "tls.key", "ca.crt"];
    let held =
        || entries.iter().map(|entry| authority::read(mesh, entry)).collect::<anyhow::Result<Vec<_>>>();
    let before = held().unwrap();

    mesh.cluster.kubectl(&["delete", "--namespace", NAMESPACE, "secret/weft-ca"]).unwrap();
    let back = || Ok(Some(held()?));
    let after = mesh.cluster.wait_until(NAMESPACE, "the Secret to be back", back).unwrap();
    assert_eq!(after, before, "as it was");
    super::noticed(mesh, "weft-ca", "AuthorityRestored", "written back as it was");

    // A key that belongs to another certificate.
    authority::write(mesh, &[("tls.key", &Ca::root("other").key())]);
    super::noticed(mesh, "weft-ca", "AuthorityRefused", "the last good one stays in use");
    space.run(&[App::new("newcomer")]).unwrap();
    authority::write(mesh, &[("tls.key", &before[1])]);
    let report = client.successes_after(60).unwrap();
    assert_eq!(field(&report, "failed"), 0, "{report}");
    mesh.settle().unwrap();
}

#[test]
fn an_authority_in_cert_managers_shape_that_was_there_first_signs() {
    let Some((mesh, _turn)) = super::bare() else { return };
    let root = Ca::root("the company's root");
    let signer = root.signs("weft intermediate");
    mesh.cluster.kubectl(&["create", "namespace", NAMESPACE]).unwrap();
    mesh.cluster.apply(&authority::secret(&signer, &root.certificate)).unwrap();
    mesh.install(&[]).unwrap();

    assert_eq!(authority::trusted(mesh).unwrap().trim(), root.certificate.trim());
    assert_eq!(authority::read(mesh, "tls.crt").unwrap(), signer.certificate, "nobody wrote to it");
    let space = mesh.meshed("company").unwrap();
    space.run(&[App::new("server"), App::new("client")]).unwrap();
    let (_, address) = space.pod("app=server").unwrap();
    assert!(authority::leads_up_to(mesh, &address, &root.certificate).unwrap());
    let other = Ca::root("another root");
    assert!(!authority::leads_up_to(mesh, &address, &other.certificate).unwrap(), "which could be false");
    let answer = space
        .get_until("deployment/client-v1", "http://server/", &[], |answer| answer.status() == Some(200))
        .unwrap();
    assert_eq!(answer.status(), Some(200), "{answer:?}");
}

#[test]
fn when_the_replica_that_leads_is_deleted_another_goes_on_writing() {
    // Three replicas, on the only node there is.
    let Some((mesh, _turn)) = super::installed(&["--ha", "--set", "spread=None"]) else { return };
    let space = mesh.meshed("led").unwrap();
    space.run(&[App::new("server").replicas(2)]).unwrap();
    let client = space.steadily("client", &["http://server/", "--rate=40"]).unwrap();
    policy(mesh, "before");
    let leads = || mesh.leader();
    let first = mesh.cluster.wait_until(NAMESPACE, "one of three to lead", leads).unwrap();

    let pod = format!("pod/{first}");
    mesh.cluster.kubectl(&["delete", "--namespace", NAMESPACE, &pod]).unwrap();
    let other = || Ok(mesh.leader()?.filter(|leader| *leader != first));
    mesh.cluster.wait_until(NAMESPACE, "another to lead", other).unwrap();
    policy(mesh, "after");
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nowhere}
spec:
  parentRefs: [{group: '', kind: Service, name: server, port: 8081}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
";
    space.apply(route).unwrap();
    space
        .until("an event about the route", || {
            let about = "--field-selector=involvedObject.name=nowhere,reason=BackendNotFound";
            let events = space.kubectl(&["get", "events", about, "--output=name"])?;
            Ok((!events.is_empty()).then_some(()))
        })
        .unwrap();
    mesh.settle().unwrap();
    let report = client.successes_after(60).unwrap();
    assert_eq!(field(&report, "failed"), 0, "{report}");
}

/// Applies a policy, and waits until its status says that both servers have it.
fn policy(mesh: &Mesh, name: &str) {
    let manifest = format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: led}},
          spec: {{targetRefs: [{{kind: Workload, selector: {{app: server}}}}], action: Deny,
                  rules: [{{from: [{{namespaces: [elsewhere]}}]}}]}}}}"
    );
    mesh.cluster.apply(&manifest).unwrap();
    let applied = || {
        let object = mesh.object("led", &format!("authorizationpolicy/{name}"))?;
        let told = field(&object, "status.sidecars.applied") == &json!(2);
        if told { Ok(Some(())) } else { bail!("{}", field(&object, "status")) }
    };
    mesh.cluster.wait_until("led", "the policy to be applied at both servers", applied).unwrap();
}
