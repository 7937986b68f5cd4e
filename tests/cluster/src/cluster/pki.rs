//! Keys and certificates of a cluster: one authority, every program's certificate, a kubeconfig for each.
//!
//! Invariant: the keys live as long as the state folder and open nothing but this cluster.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::settings::{API_PORT, NODE, Plan};
use super::{Options, State, settings};

/// Who a program is to the API server, with a kubeconfig: name, common name, organisation.
const CLIENTS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:node1", "system:nodes"),
    ("proxy", "system:kube-proxy", ""),
];

/// Writes `pki/` and `kubeconfig/` into the state folder.
pub(super) fn write(state: &State, options: &Options) -> anyhow::Result<()> {
    let pki = Pki { authority: authority()?, folder: state.file("pki") };
    let kubeconfigs = state.file("kubeconfig");
    for folder in [&pki.folder, &kubeconfigs] {
        fs::create_dir_all(folder)?;
    }
    fs::write(pki.folder.join("ca.crt"), pki.authority.pem())?;
    fs::write(pki.folder.join("ca.key"), pki.authority.key().serialize_pem())?;
    let service_accounts = KeyPair::generate()?;
    fs::write(pki.folder.join("sa.key"), service_accounts.serialize_pem())?;
    fs::write(pki.folder.join("sa.pub"), service_accounts.public_key_pem())?;

    let plans = settings::plans(options);
    pki.server("apiserver", "kube-apiserver", &api_names(plans))?;
    pki.server("kubelet-server", NODE, &node_names(plans))?;
    pki.client("apiserver-kubelet", "kube-apiserver-kubelet", "system:masters")?;
    pki.client("front-proxy", "front-proxy", "")?;
    for (name, common, organisation) in CLIENTS {
        pki.client(name, common, organisation)?;
        fs::write(kubeconfigs.join(name), pki.kubeconfig(name)?)?;
    }
    Ok(())
}

fn api_names(plans: &[Plan]) -> Vec<String> {
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"];
    let full = "kubernetes.default.svc.cluster.local";
    let addresses = plans.iter().flat_map(|plan| [plan.api, plan.node]);
    names.into_iter().chain([full]).chain(addresses).map(str::to_owned).collect()
}

fn node_names(plans: &[Plan]) -> Vec<String> {
    [NODE, "127.0.0.1"].into_iter().chain(plans.iter().map(|plan| plan.node)).map(str::to_owned).collect()
}

fn authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "weft-test-cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Pki {
    fn server(&self, file: &str, common: &str, names: &[String]) -> anyhow::Result<()> {
        let params = CertificateParams::new(names)?;
        self.issue(file, params, (common, ""), ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, file: &str, common: &str, organisation: &str) -> anyhow::Result<()> {
        let params = CertificateParams::default();
        self.issue(file, params, (common, organisation), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        file: &str,
        mut params: CertificateParams,
        (common, organisation): (&str, &str),
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        params.distinguished_name.push(DnType::CommonName, common);
        if !organisation.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        fs::write(self.folder.join(format!("{file}.crt")), certificate.pem())?;
        fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }

    fn kubeconfig(&self, name: &str) -> anyhow::Result<String> {
        let data = |file: String| -> anyhow::Result<String> {
            let text = fs::read(self.folder.join(&file)).with_context(|| file)?;
            Ok(STANDARD.encode(text))
        };
        Ok(format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters: [{{name: weft, cluster: {{server: 'https://127.0.0.1:{API_PORT}', \
             certificate-authority-data: {}}}}}]\n\
             users: [{{name: {name}, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
             contexts: [{{name: weft, context: {{cluster: weft, user: {name}}}}}]\n\
             current-context: weft\n",
            data("ca.crt".to_owned())?,
            data(format!("{name}.crt"))?,
            data(format!("{name}.key"))?,
        ))
    }
}
