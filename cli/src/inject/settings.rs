//! The injector's settings and the mesh's roots: from files, or from the cluster that kubectl means.
//!
//! Invariant: with both files no cluster is asked.

use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use weft_control_plane_core::inject::{Injector, InjectorConfig};

/// ConfigMap and entry of the injector's settings. Source: the names of Weft's own chart.
const SETTINGS: (&str, &str) = ("weft-injector", "injector.yaml");
/// ConfigMap and entry of the roots. Source: the names of Weft's own chart.
const ROOTS: (&str, &str) = ("weft-trust", "root.pem");

/// The injector, from files where they are given.
pub(super) fn injector(
    config: Option<&Path>,
    roots: Option<&Path>,
    namespace: &str,
) -> anyhow::Result<Injector> {
    let config = text(config, namespace, SETTINGS, "--config")?;
    let roots = text(roots, namespace, ROOTS, "--trust-anchors")?;
    let config: InjectorConfig = serde_saphyr::from_str(&config).context("the injector's settings")?;
    Injector::new(config, &roots).context("the injector's settings")
}

fn text(file: Option<&Path>, namespace: &str, map: (&str, &str), flag: &str) -> anyhow::Result<String> {
    match file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())),
        None => entry(namespace, map).with_context(|| {
            format!("ConfigMap {}/{} cannot be read: is Weft installed? Or give {flag}", namespace, map.0)
        }),
    }
}

fn entry(namespace: &str, (name, entry): (&str, &str)) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let api: Api<ConfigMap> = Api::namespaced(Client::try_default().await?, namespace);
        let mut data = api.get(name).await?.data.unwrap_or_default();
        data.remove(entry).with_context(|| format!("it has no entry {entry}"))
    })
}
