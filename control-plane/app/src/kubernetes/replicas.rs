//! The control plane's other replicas: who is asked for what only it knows.
//!
//! Where it stands: below the writer of conditions, and below who looks at the mesh.
//!
//! Invariant: only replicas that run are named, and never this one.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

/// What marks a replica. Source: the installation's labels.
const LABELS: &str = "app.kubernetes.io/name=weft-control-plane";
/// Replicas that are asked. Source: Weft's own; an installation has two or three.
const MOST: usize = 16;

/// The other replicas.
pub(crate) struct Others {
    api: Api<Pod>,
    /// This replica's own pod.
    own: String,
}

impl Others {
    /// Those in the namespace of `api`, but the pod `own`.
    pub(crate) fn new(api: Api<Pod>, own: String) -> Self {
        Self { api, own }
    }

    /// The names and addresses of those that run now, at most [`MOST`].
    ///
    /// # Errors
    /// The API server does not list pods.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn list(&self) -> kube::Result<Vec<(String, IpAddr)>> {
        let pods = self.api.list(&ListParams::default().labels(LABELS)).await?.items;
        Ok(pods.into_iter().filter_map(|pod| other(&self.own, pod)).take(MOST).collect())
    }
}

/// Name and address of a pod that is not `own` and runs.
fn other(own: &str, pod: Pod) -> Option<(String, IpAddr)> {
    let name = pod.metadata.name.filter(|name| name != own)?;
    let status = pod.status.filter(|status| status.phase.as_deref() == Some("Running"))?;
    Some((name, status.pod_ip?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_others_that_run_and_have_an_address_are_named() {
        let named = |name: &str, phase: &str, ip: &str| {
            let pod = json!({"metadata": {"name": name}, "status": {"phase": phase, "podIP": ip}});
            other("own", serde_json::from_value(pod).unwrap()).map(|(name, _)| name)
        };
        assert_eq!(named("other", "Running", "10.0.0.7"), Some("other".to_owned()));
        for (name, phase, ip) in
            [("own", "Running", "10.0.0.8"), ("new", "Pending", "10.0.0.9"), ("odd", "Running", "")]
        {
            assert_eq!(named(name, phase, ip), None);
        }
    }
}
