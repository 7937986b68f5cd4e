//! The control plane's replicas and what each says of itself and of its sidecars.
//!
//! A sidecar is known to the replica that serves it and to no other, so all of them are asked, at once.
//!
//! Invariant: a replica that does not answer is told with the reason, not left out.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};

use super::{explain, get};

/// Port of the control plane's admin server. Source: the chart's.
const ADMIN: u16 = 15014;
/// Name of the control plane's Lease, and label of its pods. Source: the chart's.
const NAME: &str = "weft-control-plane";

/// One replica.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replica {
    /// Name of its pod.
    pub(crate) pod: String,
    /// Version, by the pod's label.
    pub(crate) version: String,
    /// Whether its pod is ready.
    pub(crate) ready: bool,
    /// Whether it writes status.
    pub(crate) leader: bool,
    /// What it says, or why it does not.
    #[serde(flatten)]
    pub(crate) page: Answer,
}

/// What a replica says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// Its status.
    Status(Page),
    /// Why there is none.
    Silent(String),
}

/// A replica's `/status`, as far as it is shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Page {
    /// Number of the published configuration; each replica counts its own.
    pub(crate) generation: u64,
    /// What became of routes and policies.
    pub(crate) objects: Vec<ObjectLine>,
    /// The sidecars it serves.
    pub(crate) sidecars: Sidecars,
}

/// What became of a route or policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectLine {
    /// Kind.
    pub(crate) kind: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// Whether it is in force wherever it attaches.
    pub(crate) accepted: bool,
    /// Conditions at everything it attaches to.
    pub(crate) conditions: Vec<ConditionLine>,
    /// Sidecars that refuse what was made of it, with the reason.
    pub(crate) refused_by: Vec<String>,
}

/// One condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConditionLine {
    /// What the object attaches to.
    pub(crate) on: String,
    /// Type.
    pub(crate) r#type: String,
    /// "True" or "False".
    pub(crate) status: String,
    /// Why, for a person.
    pub(crate) message: String,
}

/// The sidecars of one replica.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sidecars {
    /// One by one.
    pub(crate) list: Vec<Sidecar>,
}

/// One sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Sidecar {
    /// Its pod, `namespace/name`.
    pub(crate) workload: String,
    /// Its version.
    pub(crate) version: String,
    /// Configuration that it was last brought to.
    pub(crate) generation: u64,
    /// When its certificate ends, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_ends: Option<u64>,
    /// What it refuses.
    pub(crate) refusals: Vec<Refusal>,
}

/// Something that a sidecar refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    /// Name of the resource.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
}

impl Replica {
    /// What it says, if it does.
    pub(crate) fn status(&self) -> Option<&Page> {
        match &self.page {
            Answer::Status(page) => Some(page),
            Answer::Silent(_) => None,
        }
    }
}

/// Asks every replica.
///
/// # Errors
/// Pods cannot be listed, or there are none.
///
/// # Cancel safety
/// Dropping it closes the connections.
pub(crate) async fn replicas(client: &Client, namespace: &str) -> anyhow::Result<Vec<Replica>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_it = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    let pods = pods.list(&of_it).await.map_err(explain)?.items;
    let pods: Vec<Pod> = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    if pods.is_empty() {
        anyhow::bail!(
            "namespace {namespace} has no control plane: run `weft install | kubectl apply --server-side -f -`, or name its --namespace"
        );
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    // Who may not see the Lease sees everything else.
    let lease = leases.get_opt(NAME).await.unwrap_or_default();
    let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
    Ok(join_all(pods.iter().map(|pod| replica(client, namespace, pod, &holder))).await)
}

async fn replica(client: &Client, namespace: &str, pod: &Pod, holder: &str) -> Replica {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    let asked = match phase {
        "Running" => get(client, namespace, &name, ADMIN, "/status").await,
        phase => Err(anyhow::anyhow!("its pod is {phase}")),
    };
    let answer = match asked {
        Ok(body) => serde_json::from_slice(&body).map_or_else(
            |error| Answer::Silent(format!("its status is not understood: {error}")),
            Answer::Status,
        ),
        Err(error) => Answer::Silent(format!("{error:#}")),
    };
    let empty = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    Replica {
        version: labels.get("app.kubernetes.io/version").cloned().unwrap_or_default(),
        ready: is_ready(pod),
        // The holder is named for its pod and its process: `pod_process`.
        leader: holder.split('_').next() == Some(&name),
        page: answer,
        pod: name,
    }
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
