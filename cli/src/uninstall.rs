//! `weft uninstall`: names of everything that an installation is made of, for `kubectl delete`.
//!
//! `weft uninstall | kubectl delete --ignore-not-found -f -`. The webhook comes first, so that no pod waits for
//! a control plane that is gone; the namespace, and with it the rest, comes last.
//!
//! Invariant: nothing is deleted here, and nothing that users wrote is named unless they ask for it.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use weft_control_plane_core::model::SIDECAR_ANNOTATION;
use weft_k8s::chart::{self, Part, Values, yaml};

use crate::cluster::{self, ClusterArgs};
use crate::install;

/// How many pods are named one by one. Source: ours; a screen has 24 lines.
const NAMED: usize = 10;

/// Settings of the removal.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The definitions of the kinds too: every policy that users wrote goes with them.
    #[arg(long)]
    crds: bool,
    /// Although pods still have a sidecar, and without asking the cluster.
    #[arg(long)]
    force: bool,
}

/// Prints the names.
pub(crate) fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    if !args.force {
        cluster::block_on(without_sidecars(&args.cluster))?;
    }
    install::print(&names(&args.cluster.namespace, args.crds)?)
}

/// Refuses while pods have sidecars: those live on with what they hold, until their certificates end.
async fn without_sidecars(args: &ClusterArgs) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::all(args.client().await?);
    let pods = pods.list(&ListParams::default()).await.map_err(cluster::explain)?;
    let meshed: Vec<String> = pods
        .items
        .iter()
        .filter(|pod| pod.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(SIDECAR_ANNOTATION)))
        .map(|pod| {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
        })
        .collect();
    if meshed.is_empty() {
        return Ok(());
    }
    let more = meshed.len().saturating_sub(NAMED);
    let list: Vec<String> = meshed.into_iter().take(NAMED).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    anyhow::bail!(
        "pods still have a sidecar: {}{more}. Take the label weft.dev/inject from their namespaces and restart them (kubectl rollout restart), or give --force",
        list.join(", ")
    )
}

/// Everything that an installation may be made of and that does not go with its namespace, by name.
fn names(namespace: &str, crds: bool) -> anyhow::Result<String> {
    let part = if crds { Part::All } else { Part::WithoutCrds };
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&chart::install(namespace, &Values::default(), part)?)?;
    let mut named: Vec<(u8, Value)> = objects
        .into_iter()
        .filter(|object| object["metadata"].get("namespace").is_none_or(|of| of != namespace))
        .map(|object| (turn(&object["kind"]), reference(&object)))
        .collect();
    named.sort_by_key(|(turn, _)| *turn);
    Ok(named.iter().map(|(_, object)| format!("---\n{}", yaml::write(object))).collect())
}

/// When an object goes.
fn turn(kind: &Value) -> u8 {
    match kind.as_str() {
        // Neither may be asked for while nobody answers.
        Some("MutatingWebhookConfiguration" | "APIService") => 0,
        Some("CustomResourceDefinition") => 1,
        Some("Namespace") => 2,
        // The control plane may keep its permissions until it is gone.
        _ => 3,
    }
}

/// As much of an object as `kubectl delete` needs.
fn reference(object: &Value) -> Value {
    let mut reference = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"name": object["metadata"]["name"]},
    });
    if let Some(namespace) = object["metadata"].get("namespace") {
        reference["metadata"]["namespace"] = namespace.clone();
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(crds: bool) -> Vec<String> {
        let text = names("weft-system", crds).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_webhook_goes_first_and_what_users_wrote_stays() {
        let kinds = kinds(false);
        assert_eq!(kinds.first().map(String::as_str), Some("MutatingWebhookConfiguration"));
        assert!(!kinds.contains(&"CustomResourceDefinition".to_owned()));
        assert!(kinds.contains(&"Namespace".to_owned()));
        assert_eq!(kinds.iter().filter(|kind| kind.starts_with("ClusterRole")).count(), 7);
        assert!(kinds.get(..2).is_some_and(|first| first.contains(&"APIService".to_owned())));
        assert!(kinds.contains(&"RoleBinding".to_owned()), "one is not in the installation's namespace");
    }

    #[test]
    fn the_kinds_go_when_they_are_named() {
        assert_eq!(kinds(true).iter().filter(|kind| *kind == "CustomResourceDefinition").count(), 5);
    }
}
