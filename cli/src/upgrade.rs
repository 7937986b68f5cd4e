//! `weft upgrade`: what this version's installation is made of, with the values that the cluster's
//! installation was given.
//!
//! `weft upgrade | kubectl apply --server-side -f -`. Reads one ConfigMap, writes nothing.
//!
//! Invariant: what was given at the installation stays, unless it is given anew; what was not given
//! takes this version's default.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;
use weft_k8s::chart::{self, VALUES_CONFIG_MAP, Values};

use crate::cluster::{self, ClusterArgs};
use crate::install;

/// Settings of an upgrade.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    give: install::Give,
}

/// Prints the objects.
pub(crate) fn run(args: &UpgradeArgs) -> anyhow::Result<()> {
    let mut values = cluster::block_on(kept(&args.cluster))?;
    args.give.onto(&mut values)?;
    install::print(&chart::install(&args.cluster.namespace, &values, args.give.part())?)
}

/// The values that the installation was given.
async fn kept(args: &ClusterArgs) -> anyhow::Result<Values> {
    let maps: Api<ConfigMap> = Api::namespaced(args.client().await?, &args.namespace);
    let map = maps.get_opt(VALUES_CONFIG_MAP).await.map_err(cluster::explain)?;
    let map = map.ok_or_else(|| {
        anyhow::anyhow!(
            "namespace {} holds no installation made by `weft install` (no ConfigMap {VALUES_CONFIG_MAP}): use `weft install`, or `helm upgrade` if Helm installed it",
            args.namespace
        )
    })?;
    Values::kept(&json!(map.data)).map_err(|error| {
        anyhow::anyhow!("ConfigMap {VALUES_CONFIG_MAP}: {error}; use `weft install` with all values")
    })
}
