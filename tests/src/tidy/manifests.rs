//! Who may import whom, read from the manifests, and what a core's text may not name.
//!
//! Invariant: a crate of ours that has no row here may import none of ours.

use super::modules::{Modules, Role};
use super::source;
use super::{Finding, Tree};

/// Of our own crates, what each may import; tests and the command line may import all.
/// Source: ARCHITECTURE.md, "who may import whom".
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("exposition", &[]),
    ("k8s", &[]),
    ("proxy/core", &[]),
    ("proxy/net", &["weft-proxy-core"]),
    ("proxy/app", &["weft-proxy-net", "weft-proxy-core", "weft-proto", "weft-exposition"]),
    ("control-plane/core", &["weft-k8s"]),
    ("control-plane/app", &["weft-control-plane-core", "weft-k8s", "weft-proto", "weft-exposition"]),
];
/// The folders whose crates see everything.
const SEE_ALL: [&str; 2] = ["cli", "tests"];
/// The folders of the pure crates.
const CORES: [&str; 2] = ["proxy/core", "control-plane/core"];
/// What a core may not depend on, by the beginning of its name: runtimes, sockets, wires, chance.
const NOT_IN_A_CORE: [&str; 16] = [
    "tokio",
    "hyper",
    "h2",
    "kube",
    "tonic",
    "prost",
    "tower",
    "axum",
    "rustls",
    "socket2",
    "rustix",
    "mio",
    "rand",
    "getrandom",
    "fastrand",
    "notify",
];
/// What a core's text may not name. Time and chance are arguments; the world is the caller's.
const NOT_IN_CORE_TEXT: [&str; 13] = [
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::env",
    "env::var",
    "std::fs",
    "std::process",
    "std::thread",
    "RandomState::new",
];

/// Manifests that import what they may not.
pub fn imports(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (manifest, text) in tree.ending("/Cargo.toml") {
        let folder = manifest.trim_end_matches("/Cargo.toml");
        let may = MAY_IMPORT.iter().find(|(name, _)| *name == folder).map_or(&[] as &[&str], |(_, may)| may);
        let sees_all = SEE_ALL.iter().any(|name| folder == *name || folder.starts_with(&format!("{name}/")));
        for name in dependencies(text) {
            let ours = name == "weft" || name.starts_with("weft-");
            if ours && !sees_all && !may.contains(&name.as_str()) {
                findings.push(Finding::new(manifest, "import", format!("may not import {name}")));
            }
            if CORES.contains(&folder) && NOT_IN_A_CORE.iter().any(|banned| is_of(&name, banned)) {
                let what = format!("a core decides and does nothing else: {name} does not belong in it");
                findings.push(Finding::new(manifest, "core", what));
            }
        }
    }
    findings
}

/// Cores whose text reaches for a clock, a socket, the environment, files or threads.
pub fn purity(tree: &Tree, modules: &Modules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for core in CORES {
        let inside = format!("{core}/src/");
        for (path, text) in tree.ending(".rs").filter(|(path, _)| path.starts_with(&inside)) {
            if modules.role(path) == Some(Role::Test) {
                continue;
            }
            let code = source::production(text);
            for word in NOT_IN_CORE_TEXT {
                if let Some(at) = code.find(word) {
                    let place = format!("{path}:{}", source::line_of(&code, at));
                    let what =
                        format!("a core takes time and the world as arguments, and does not name {word}");
                    findings.push(Finding::new(place, "core", what));
                }
            }
        }
    }
    findings
}

/// Whether a package is `family` itself or of it (`tokio`, `tokio-util`).
fn is_of(package: &str, family: &str) -> bool {
    package.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The names of a manifest's dependencies of every kind, with their real names where renamed.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.starts_with("workspace");
            if let Some((kind, name)) = section.rsplit_once('.')
                && kind.ends_with("dependencies")
                && !kind.starts_with("workspace")
            {
                names.push(name.to_owned());
            }
        } else if inside && !line.starts_with('#') && line.contains('=') {
            let renamed = line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
            let plain = line.split(['.', '=', ' ']).next();
            names.extend(renamed.or(plain).map(str::to_owned));
        }
    }
    names
}
