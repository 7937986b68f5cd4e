//! The injector's settings and the mesh's roots: from files, or from the cluster that kubectl means.
//!
//! Invariant: with both files no cluster is asked.

use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use weft_control_plane_core::inject::{Injector, InjectorConfig};

use crate::cluster::{self, ConnectArgs, explain};

/// ConfigMap and entry of the injector's settings. Source: the names of Weft's own chart.
const SETTINGS: (&str, &str) = ("weft-injector", "injector.yaml");
/// ConfigMap and entry of the roots. Source: the names of Weft's own chart.
const ROOTS: (&str, &str) = ("weft-trust", "root.pem");

/// Where the ConfigMaps are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The cluster.
    pub(super) connect: &'a ConnectArgs,
    /// Namespace of the control plane.
    pub(super) namespace: &'a str,
}

/// The injector, from files where they are given.
pub(super) fn injector(
    config: Option<&Path>,
    roots: Option<&Path>,
    at: Place<'_>,
) -> anyhow::Result<Injector> {
    let config = text(config, at, SETTINGS, "--config")?;
    let roots = text(roots, at, ROOTS, "--trust-anchors")?;
    let config: InjectorConfig = serde_saphyr::from_str(&config).context("the injector's settings")?;
    Injector::new(config, &roots).context("the injector's settings")
}

fn text(file: Option<&Path>, at: Place<'_>, map: (&str, &str), flag: &str) -> anyhow::Result<String> {
    match file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())),
        None => cluster::block_on(entry(at, map)).with_context(|| {
            format!("ConfigMap {}/{} cannot be read: is Weft installed? Or give {flag}", at.namespace, map.0)
        }),
    }
}

async fn entry(at: Place<'_>, (name, entry): (&str, &str)) -> anyhow::Result<String> {
    let api: Api<ConfigMap> = Api::namespaced(at.connect.client().await?, at.namespace);
    let mut data = api.get(name).await.map_err(explain)?.data.unwrap_or_default();
    data.remove(entry).with_context(|| format!("it has no entry {entry}"))
}
