//! Addresses of a cluster and its programs' configuration files.
//!
//! Invariant: every address stands here once; templates and flags take it from here.

use std::io;
use std::path::Path;

use super::{Options, State};
use crate::skip;

/// The node's name.
pub(super) const NODE: &str = "node1";
/// Where the API server listens, on every address of the node.
pub(super) const API_PORT: u16 = 6443;
/// Where etcd listens, on loopback; its peers' port is the next.
pub(super) const ETCD_PORT: u16 = 12379;

/// The addresses of one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The node's own.
    pub(super) node: &'static str,
    /// Length of the node's network prefix.
    pub(super) prefix: u8,
    /// Everything.
    pub(super) any: &'static str,
    /// Pods.
    pub(super) pods: &'static str,
    /// Services.
    pub(super) services: &'static str,
    /// The first of the Services' addresses, which is the API server's.
    pub(super) api: &'static str,
}

/// IPv4. Source: kubeadm's and kind's ranges.
const FOUR: Plan = Plan {
    node: "172.30.99.1",
    prefix: 24,
    any: "0.0.0.0/0",
    pods: "10.244.0.0/24",
    services: "10.96.0.0/16",
    api: "10.96.0.1",
};

/// IPv6, unique local addresses (RFC 4193).
const SIX: Plan = Plan {
    node: "fd99:172:30:99::1",
    prefix: 64,
    any: "::/0",
    pods: "fd99:10:244::/64",
    services: "fd99:10:96::/112",
    api: "fd99:10:96::1",
};

/// The families of a cluster, the first being that of single-stack Services.
pub(super) fn plans(options: &Options) -> &'static [Plan] {
    if options.dual_stack { &[FOUR, SIX] } else { &[FOUR] }
}

/// One field of every family, joined by commas, as Kubernetes' flags want it.
pub(super) fn joined(plans: &[Plan], field: impl Fn(&Plan) -> &'static str) -> String {
    plans.iter().map(field).collect::<Vec<_>>().join(",")
}

/// The templates, by the name under which they are written into the state folder.
const TEMPLATES: [(&str, &str); 6] = [
    ("containerd.toml", include_str!("templates/containerd.toml")),
    ("kubelet.yaml", include_str!("templates/kubelet.yaml")),
    ("kube-proxy.yaml", include_str!("templates/kube-proxy.yaml")),
    ("network.json", include_str!("templates/network.json")),
    ("objects.yaml", include_str!("templates/objects.yaml")),
    ("resolv.conf", "nameserver 127.0.0.1\n"),
];

/// Writes every configuration file into the state folder.
pub(super) fn write(state: &State, options: &Options) -> io::Result<()> {
    let plans = plans(options);
    let ranges: Vec<String> =
        plans.iter().map(|plan| format!(r#"[{{"subnet": "{}"}}]"#, plan.pods)).collect();
    let routes: Vec<String> = plans.iter().map(|plan| format!(r#"{{"dst": "{}"}}"#, plan.any)).collect();
    let mode = match options.proxy_mode {
        super::ProxyMode::Nftables => "nftables",
        super::ProxyMode::Iptables => "iptables",
    };
    let values = [
        ("@state@", state.folder().display().to_string()),
        ("@cgroup@", state.name()),
        ("@node@", NODE.to_owned()),
        ("@node-address@", FOUR.node.to_owned()),
        ("@pods@", joined(plans, |plan| plan.pods)),
        ("@pod-ranges@", ranges.join(", ")),
        ("@pod-routes@", routes.join(", ")),
        ("@proxy-mode@", mode.to_owned()),
        ("@network-plugins@", skip::NETWORK_PLUGINS.to_owned()),
    ];
    for (name, template) in TEMPLATES {
        let text = values.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value));
        std::fs::write(state.file(name), text)?;
    }
    Ok(())
}

/// Folders that the node's programs insist on, each hidden behind one of the state folder.
pub(super) const HIDDEN: [&str; 6] = [
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
];

/// Kernel settings that the kubelet would change for the whole machine, since they have no namespace: it
/// is shown files that say what it wants. Source: Kubernetes, `pkg/kubelet/cm`, protected kernel defaults.
pub(super) const SHOWN: [(&str, &str); 6] = [
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// The path below the state folder that stands for one of the machine's.
pub(super) fn behind(state: &State, path: &str) -> std::path::PathBuf {
    state.file("node").join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))
}
