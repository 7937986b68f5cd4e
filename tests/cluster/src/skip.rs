//! What a cluster needs of a machine, and saying loudly that a test could not run without it.
//!
//! Invariant: with `CI=true` nothing is skipped: what is missing is a failure.

use std::io::Write as _;

use crate::part::{KUBERNETES, NAME_SERVER};
use crate::program;

/// Programs that the system provides, and the Debian package of each.
const PROGRAMS: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

/// Where Debian's containernetworking-plugins are.
pub(crate) const NETWORK_PLUGINS: &str = "/usr/lib/cni";

/// What this machine lacks for a cluster; `None` if nothing.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a cluster needs root".to_owned());
    }
    let mut lacks: Vec<String> = PROGRAMS
        .iter()
        .filter(|(name, _)| program::find(name).is_none())
        .map(|(name, package)| format!("{name} (package {package})"))
        .collect();
    if !std::path::Path::new(NETWORK_PLUGINS).join("bridge").exists() {
        lacks.push(format!("{NETWORK_PLUGINS} (package containernetworking-plugins)"));
    }
    if program::find("go").is_none() && !(KUBERNETES.is_built() && NAME_SERVER.is_built()) {
        lacks.push("go".to_owned());
    }
    (!lacks.is_empty()).then(|| format!("a cluster needs {}", lacks.join(", ")))
}

/// Says past the captured output that the current test could not run here; with `CI=true` that is a failure.
pub fn say(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} must not be skipped in CI: {reason}");
    // The test has no other way to be heard; if even this fails there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "\nSKIPPED {test}: {reason}");
}
