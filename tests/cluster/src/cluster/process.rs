//! The node's programs and their flags.
//!
//! Invariant: flags are data: nothing here starts anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::settings::{API_PORT, ETCD_PORT, NODE, joined, plans};
use super::{Options, State};

/// What loads an image's archive, without the archive.
pub(super) const IMPORT: [&str; 4] = ["--namespace=k8s.io", "images", "import", "--snapshotter=overlayfs"];

/// A program of the node.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Its name, which is also its log's.
    pub(super) program: &'static str,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
}

/// `PATH` inside: Kubernetes' programs, then the system's.
pub(super) fn path(programs: &Path) -> OsString {
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let folders = std::iter::once(programs.to_owned()).chain(system.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}

pub(super) fn containerd(state: &State) -> Daemon {
    let config = format!("--config={}", state.file("containerd.toml").display());
    daemon("containerd", [config, "--log-level=warn".into()])
}

pub(super) fn etcd(state: &State) -> Daemon {
    let (clients, peers) =
        (format!("http://127.0.0.1:{ETCD_PORT}"), format!("http://127.0.0.1:{}", ETCD_PORT + 1));
    daemon(
        "etcd",
        [
            format!("--name={NODE}"),
            format!("--data-dir={}", state.file("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster={NODE}={peers}"),
            "--log-level=warn".into(),
            "--logger=zap".into(),
            // What it holds is gone with the machine anyway.
            "--unsafe-no-fsync".into(),
        ],
    )
}

pub(super) fn api_server(state: &State, options: &Options) -> Daemon {
    let plans = plans(options);
    let file = |flag: &str, name: &str| format!("--{flag}={}", state.file("pki").join(name).display());
    daemon(
        "kube-apiserver",
        [
            format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"),
            format!("--bind-address={}", if options.dual_stack { "::" } else { "0.0.0.0" }),
            format!("--secure-port={API_PORT}"),
            format!(
                "--advertise-address={}",
                plans.first().map_or_else(String::new, |plan| plan.node.into())
            ),
            "--endpoint-reconciler-type=lease".into(),
            format!("--service-cluster-ip-range={}", joined(plans, |plan| plan.services)),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            "--authorization-mode=Node,RBAC".into(),
            // Beside those that are on by default, the webhooks and Pod Security among them.
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--requestheader-allowed-names=front-proxy".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "apiserver.crt"),
            file("tls-private-key-file", "apiserver.key"),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            file("kubelet-client-certificate", "apiserver-kubelet.crt"),
            file("kubelet-client-key", "apiserver-kubelet.key"),
            file("kubelet-certificate-authority", "ca.crt"),
            file("requestheader-client-ca-file", "ca.crt"),
            file("proxy-client-cert-file", "front-proxy.crt"),
            file("proxy-client-key-file", "front-proxy.key"),
        ],
    )
}

pub(super) fn controller_manager(state: &State, options: &Options) -> Daemon {
    let plans = plans(options);
    let file = |flag: &str, name: &str| format!("--{flag}={}", state.file("pki").join(name).display());
    let mut arguments = as_client(state, "controller-manager");
    arguments.extend([
        file("service-account-private-key-file", "sa.key"),
        file("root-ca-file", "ca.crt"),
        file("cluster-signing-cert-file", "ca.crt"),
        file("cluster-signing-key-file", "ca.key"),
        format!("--cluster-cidr={}", joined(plans, |plan| plan.pods)),
        format!("--service-cluster-ip-range={}", joined(plans, |plan| plan.services)),
        "--use-service-account-credentials=true".into(),
        // The default of 20 a second costs four seconds at the start.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        // Else it makes a folder under /usr/libexec.
        format!("--flex-volume-plugin-dir={}", state.file("volume-plugins").display()),
    ]);
    daemon("kube-controller-manager", arguments)
}

pub(super) fn scheduler(state: &State) -> Daemon {
    daemon("kube-scheduler", as_client(state, "scheduler"))
}

pub(super) fn kubelet(state: &State, options: &Options) -> Daemon {
    daemon(
        "kubelet",
        [
            format!("--config={}", state.file("kubelet.yaml").display()),
            format!("--kubeconfig={}", state.file("kubeconfig/kubelet").display()),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={}", joined(plans(options), |plan| plan.node)),
        ],
    )
}

pub(super) fn kube_proxy(state: &State) -> Daemon {
    daemon("kube-proxy", [format!("--config={}", state.file("kube-proxy.yaml").display())])
}

/// Flags of what lives by the API server alone.
fn as_client(state: &State, name: &str) -> Vec<String> {
    let kubeconfig = state.file("kubeconfig").join(name);
    let mut arguments: Vec<String> = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .iter()
        .map(|flag| format!("--{flag}={}", kubeconfig.display()))
        .collect();
    arguments
        .extend(["--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"].map(String::from));
    arguments
}

fn daemon(program: &'static str, arguments: impl IntoIterator<Item = String>) -> Daemon {
    Daemon { program, arguments: arguments.into_iter().collect() }
}
