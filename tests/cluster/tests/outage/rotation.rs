//! The drill of docs/rotation.md on a mesh under load, and a sidecar that restarts when it is long over.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{App, Mesh, Space, field};

use super::{clients, turn, unharmed};

/// A root of one's own: certificate and key.
fn root() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the next root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// As `openssl x509 -fingerprint -sha256` has it, without its colons.
fn fingerprint(pem: &str) -> Value {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    digest(&SHA256, &der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn write(mesh: &Mesh, entries: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> = entries
        .iter()
        .map(|(name, text)| ((*name).to_owned(), BASE64_STANDARD.encode(text).into()))
        .collect();
    let patch = json!({ "data": data }).to_string();
    let secret = ["patch", "secret", "weft-ca", "--namespace", NAMESPACE, "--type=merge", "--patch", &patch];
    mesh.cluster.kubectl(&secret).unwrap();
}

/// What each sidecar of the space says of itself.
fn sidecars(space: &Space<'_>) -> anyhow::Result<Vec<Value>> {
    let pods = space.kubectl(&["get", "pods", "--output=name"])?;
    let ask = |pod: &str| Ok(space.get(pod, "http://127.0.0.1:15020/config", &[])?.0["json"].clone());
    pods.lines().map(ask).collect()
}

fn all_trust(space: &Space<'_>, roots: &[&Value]) {
    space
        .until("every sidecar to trust these roots", || {
            let sidecars = sidecars(space)?;
            let found: Vec<&Value> = sidecars.iter().map(|sidecar| &sidecar["roots"]).collect();
            let same = |found: &&Value| {
                found.as_array().is_some_and(|found| {
                    found.len() == roots.len() && roots.iter().all(|root| found.contains(root))
                })
            };
            if found.iter().all(same) { Ok(Some(())) } else { anyhow::bail!("{found:?}") }
        })
        .unwrap();
}

#[test]
fn the_root_is_replaced_under_load_and_a_sidecar_that_restarts_long_after_comes_back() {
    let Some((mesh, _turn)) = turn() else { return };
    // So short that all are renewed within the scenario.
    mesh.install(&["--set", "certificateLife=30s"]).unwrap();
    let space = mesh.meshed("rotation").unwrap();
    space.run(&[App::new("server").replicas(2), App::new("old-timer")]).unwrap();
    let clients = clients(&space, "http://server/");
    let pod = space.pods("app=old-timer").unwrap().remove(0);
    let name = field(&pod, "metadata.name").as_str().unwrap().to_owned();
    let trusted = mesh.object(NAMESPACE, "configmap/weft-trust").unwrap();
    let old = field(&trusted, "data").get("root.pem").and_then(Value::as_str).unwrap().to_owned();
    let (new, key) = root();
    let (of_old, of_new) = (fingerprint(&old), fingerprint(&new));

    write(mesh, &[("ca.crt", &[old.trim_end(), "\n", &new].concat())]);
    all_trust(&space, &[&of_old, &of_new]);
    unharmed(&clients);

    write(mesh, &[("tls.crt", &new), ("tls.key", &key)]);
    let taken = |sidecar: &Value| field(sidecar, "certificate.taken").as_u64().unwrap_or_default();
    let before: Vec<u64> = sidecars(&space).unwrap().iter().map(taken).collect();
    space
        .until("every leaf to be signed anew", || {
            let now: Vec<u64> = sidecars(&space)?.iter().map(taken).collect();
            // The first may have been under way.
            let renewed = now.iter().zip(&before).all(|(now, before)| *now >= before + 2);
            if renewed { Ok(Some(())) } else { anyhow::bail!("{before:?} {now:?}") }
        })
        .unwrap();
    unharmed(&clients);

    write(mesh, &[("ca.crt", &new)]);
    all_trust(&space, &[&of_new]);
    unharmed(&clients);

    // Its pod still has the old root alone.
    let given = pod.to_string();
    // The signature is what no two have in common.
    let signature = |pem: &str| pem.lines().rev().nth(1).unwrap().to_owned();
    assert!(given.contains(&signature(&old)) && !given.contains(&signature(&new)), "{given}");
    let drained =
        space.get(&format!("pod/{name}"), "http://127.0.0.1:15020/drain", &["--method=POST"]).unwrap();
    assert_eq!(drained.status(), Some(202), "{drained:?}");
    space
        .until("the sidecar to be restarted and ready", || {
            let pod = space.object(&format!("pod/{name}"))?;
            let all = field(&pod, "status.initContainerStatuses").as_array().cloned().unwrap_or_default();
            let sidecar = all.iter().find(|one| one["name"] == "weft-proxy").cloned().unwrap_or_default();
            if sidecar["restartCount"] == 1 && sidecar["ready"] == true {
                return Ok(Some(()));
            }
            anyhow::bail!("{sidecar}")
        })
        .unwrap();
    let from = format!("pod/{name}");
    let served = |answer: &weft_cluster::scenario::Answer| answer.status() == Some(200);
    space.get_until(&from, "http://server/afterwards", &[], served).unwrap();
    let entry = space.logged("app=server", |entry| entry["http.path"] == "/afterwards").unwrap();
    assert_eq!(entry["src.identity"], "spiffe://cluster.local/ns/rotation/sa/old-timer", "{entry}");
    unharmed(&clients);
    mesh.install(&[]).unwrap();
}
