//! A trial of what all else only points at: a pod that asks for a sidecar gets one.
//!
//! Invariant: the pod is a dry run; the API server asks the webhook and keeps nothing.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use weft_control_plane_core::inject::INJECT;

use super::Findings;

/// Where the pod would be. Source: every cluster has it, and it is nobody's.
const NAMESPACE: &str = "default";
/// The sidecar's container.
const SIDECAR: &str = "weft-proxy";
const REMEDY: &str = "right after an installation the API server needs a moment: try again; otherwise see \
                      `kubectl logs --namespace NAMESPACE deploy/weft-control-plane`, and whether the API server's \
                      network reaches the Service weft-control-plane on port 443";

/// Asks for the pod.
pub(super) async fn look(client: &Client, namespace: &str) -> Findings {
    let mut findings = Findings::of("Injection");
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let remedy = REMEDY.replace("NAMESPACE", namespace);
    match Api::namespaced(client.clone(), NAMESPACE).create(&dry_run, &pod()).await {
        Ok(made) if is_meshed(&made) => {
            findings.ok("a trial", "a pod that asks for a sidecar gets one (dry run)")
        }
        Ok(_) => findings.fail("a trial", "a pod that asks for a sidecar gets none (dry run)", &remedy),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            findings.warn(
                "a trial",
                format!("not made: {}", status.message),
                "ask someone who may create pods",
            );
        }
        Err(error) => findings.fail("a trial", error.to_string(), &remedy),
    }
    findings
}

fn pod() -> Pod {
    let container =
        Container { name: "app".into(), image: Some("weft-check".into()), ..Container::default() };
    Pod {
        metadata: ObjectMeta {
            name: Some("weft-check-trial".into()),
            labels: Some([(INJECT.to_owned(), "enabled".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
        ..Pod::default()
    }
}

fn is_meshed(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    all.any(|container| container.name == SIDECAR)
}
