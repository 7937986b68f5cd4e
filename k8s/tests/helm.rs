//! The objects that Weft renders from its chart are those that Helm renders from it.
//!
//! Needs helm 3.18 or later: the variable WEFT_HELM, the cache of built programs, or PATH. Without it the
//! test says so past the captured output; with `CI=true` that is a failure.
//!
//! Invariant: objects are compared, not bytes.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weft_k8s::chart::{self, Part, Values};

/// Whether it is `--ha`, and what is set.
type Case = (bool, &'static [&'static str]);

const CASES: [Case; 16] = [
    (false, &[]),
    (true, &[]),
    (false, &["namespace.create=true"]),
    (false, &["crds.install=false"]),
    (true, &["networkPolicy.enabled=true", "podMonitor.enabled=true", "spread=Prefer"]),
    (false, &["podMonitor.enabled=true", "podMonitor.labels.release=prometheus", "podMonitor.interval=5s"]),
    (false, &["podDisruptionBudget.enabled=true", "replicas=2", "spread=None"]),
    (false, &["image.registry=registry.example/mesh", "image.tag=1.2", "image.pullPolicy=Always"]),
    (false, &["image.pullSecrets={one,two}", "priorityClassName=system-node-critical"]),
    (
        false,
        &["proxy.image=localhost/own/proxy:7", "proxy.uid=3000", "proxy.resources.cpuLimit=1500m"]
            as &[&str],
    ),
    (false, &["proxy.otlp=http://jaeger:4317", "proxy.drainLinger=3s", "proxy.drainDeadline=1m"]),
    (
        false,
        &["proxy.skipInboundPorts=22\\,9000-9100", "proxy.env.WEFT_STATE_DIR=/tmp", "log=debug\\,kube=warn"],
    ),
    (
        false,
        &["extraArgs={--max-streams=100,--intermediate}", "certificateLife=1h", "trustDomain=mesh.example"],
    ),
    (
        false,
        &["webhook.failurePolicy=Fail", "webhook.timeoutSeconds=10", "webhook.excludedNamespaces={only}"],
    ),
    (
        false,
        &[
            "webhook.blockRefused=true",
            "webhook.excludedNamespaces={kube-system,a,b}",
            "proxy.nativeSidecar=false",
        ],
    ),
    (
        true,
        &[
            "resources.limits.memory=1Gi",
            "resources.limits.cpu=2",
            "nodeSelector.disk=ssd",
            "nodeSelector.kubernetes\\.io/os=null",
        ],
    ),
];

#[test]
fn helm_template_and_weft_install_give_the_same_objects() {
    let Some(helm) = helm() else {
        return skip("there is no helm: set WEFT_HELM, or build it into the cache");
    };
    for (ha, set) in CASES {
        let mut values = Values { ha, ..Values::default() };
        set.iter().for_each(|set| values.set(set).unwrap());
        let ours = objects(&chart::render("mesh-system", &values, Part::All).unwrap());
        let theirs = objects(&template(&helm, ha, set));
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "ha {ha}, {set:?}");
        for (name, object) in &ours {
            assert_eq!(Some(object), theirs.get(name), "ha {ha}, {set:?}: {name}");
        }
    }
}

fn template(helm: &Path, ha: bool, set: &[&str]) -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart");
    let mut command = Command::new(helm);
    // A helm built without its release's settings believes in a very old Kubernetes.
    command.args(["template", "weft", "--namespace", "mesh-system", "--kube-version", "1.34.0"]).arg(&chart);
    if ha {
        command.arg("--values").arg(chart.join("values-ha.yaml"));
    }
    set.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{set:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects by kind and name; texts that hold YAML are read too, as their form may differ.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let mut objects = BTreeMap::new();
    for mut object in documents.into_iter().filter(|object| !object.is_null()) {
        if let Some(settings) = object.pointer_mut("/data/injector.yaml") {
            *settings = serde_saphyr::from_str(settings.as_str().unwrap()).unwrap();
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        assert!(objects.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    objects
}

/// Where helm is: named, in the cache of built programs, or in PATH.
fn helm() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("WEFT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("weft/parts")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/weft/parts")));
    let cached = cache.and_then(|cache| std::fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    let cached = cached.filter(|entry| entry.file_name().to_string_lossy().starts_with("helm-3.18"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    set("WEFT_HELM")
        .into_iter()
        .chain(cached.map(|entry| entry.path().join("helm")))
        .chain(std::env::split_paths(&path).map(|folder| folder.join("helm")))
        .find(|program| program.is_file())
}

/// Says past the captured output that the test could not run here; with `CI=true` that is a failure.
fn skip(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "must not be skipped in CI: {reason}");
    // The test has no other way to be heard; if even this fails there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "\nSKIPPED helm_template_and_weft_install: {reason}");
}
