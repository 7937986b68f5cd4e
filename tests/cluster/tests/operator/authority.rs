//! Authorities of an operator's own, as a Secret holds them, and what sidecars present of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use weft_cluster::mesh::NAMESPACE;
use weft_cluster::scenario::{Mesh, field};

/// An authority's certificate, and its key.
pub(super) struct Ca {
    pub(super) certificate: String,
    params: CertificateParams,
    key: KeyPair,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    /// One that nobody signed but itself.
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = (params(name), KeyPair::generate().unwrap());
        Self { certificate: params.self_signed(&key).unwrap().pem(), params, key }
    }

    /// One that this one signed.
    pub(super) fn signs(&self, name: &str) -> Self {
        let (params, key) = (params(name), KeyPair::generate().unwrap());
        let issuer = Issuer::from_params(&self.params, &self.key);
        Self { certificate: params.signed_by(&key, &issuer).unwrap().pem(), params, key }
    }

    pub(super) fn key(&self) -> String {
        self.key.serialize_pem()
    }
}

/// The Secret as cert-manager writes it.
pub(super) fn secret(signer: &Ca, roots: &str) -> String {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "weft-ca", "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": signer.certificate, "tls.key": signer.key(), "ca.crt": roots},
    });
    object.to_string()
}

/// Writes entries of the Secret, all in one write.
pub(super) fn write(mesh: &Mesh, entries: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> =
        entries.iter().map(|(name, text)| ((*name).to_owned(), json!(STANDARD.encode(text)))).collect();
    let patch = json!({ "data": data }).to_string();
    let arguments = ["patch", "secret", "weft-ca", "--namespace", NAMESPACE, "--patch", &patch];
    mesh.cluster.kubectl(&arguments).unwrap();
}

/// An entry of the Secret.
pub(super) fn read(mesh: &Mesh, entry: &str) -> anyhow::Result<String> {
    let secret = mesh.object(NAMESPACE, "secret/weft-ca")?;
    let text = secret["data"][entry].as_str().unwrap_or_default();
    Ok(String::from_utf8(STANDARD.decode(text)?)?)
}

/// Whether the sidecar at this address presents a certificate that leads up to `root`, to whoever shakes
/// hands as the mesh does.
pub(super) fn leads_up_to(mesh: &Mesh, address: &str, root: &str) -> anyhow::Result<bool> {
    let file = mesh.cluster.folder().join("root.pem");
    std::fs::write(&file, root)?;
    let mut command = mesh.cluster.command("openssl");
    command.args(["s_client", "-connect", &format!("{address}:8080"), "-alpn", "weft/h1", "-CAfile"]);
    let output = command.arg(&file).stdin(std::process::Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // It asks for a certificate, which there is none of: what it presented was verified before that.
    anyhow::ensure!(said.contains("-----BEGIN CERTIFICATE-----"), "nothing was presented: {said}");
    Ok(said.contains("Verify return code: 0 (ok)") || said.contains("Verification: OK"))
}

/// The roots that the mesh says are trusted.
pub(super) fn trusted(mesh: &Mesh) -> anyhow::Result<String> {
    let map = mesh.object(NAMESPACE, "configmap/weft-trust")?;
    Ok(field(&map, "data").get("root.pem").and_then(Value::as_str).unwrap_or_default().to_owned())
}
