//! A trial of what all else only points at: a pod that asks for a sidecar gets one.
//!
//! Before it: the installation was read. After it: nothing of the trial is left, not even an event.
//!
//! Invariant: the pod is a dry run; the API server asks the webhook and keeps nothing.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use weft_control_plane_core::inject::INJECT;
use weft_control_plane_core::model::SIDECAR_ANNOTATION;

use super::Findings;
use super::facts::Installation;
use crate::cluster::explain;

/// Where the pod would be. Source: every cluster has it, and it is nobody's.
const NAMESPACE: &str = "default";
/// Name of the finding.
const CHECK: &str = "a trial";
const REMEDY: &str = "see `kubectl logs --namespace NAMESPACE deploy/weft-control-plane`, and whether the API server's \
                      network reaches the Service weft-control-plane on port 443";

/// Asks for the pod, unless the settings say that none there gets a sidecar.
pub(super) async fn look(client: &Client, namespace: &str, installation: &Installation) -> Findings {
    let mut findings = Findings::of("Injection");
    let excluded = match &installation.injector {
        Some(Ok(config)) => config.skip_namespaces.iter().any(|name| name == NAMESPACE),
        // Which has been said.
        _ => true,
    };
    if !excluded {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let made = Api::namespaced(client.clone(), NAMESPACE).create(&dry_run, &pod()).await;
        judge(made, namespace, &mut findings);
    }
    findings
}

/// What the API server's answer means.
pub(super) fn judge(made: kube::Result<Pod>, namespace: &str, findings: &mut Findings) {
    let remedy = REMEDY.replace("NAMESPACE", namespace);
    match made {
        Ok(made) if is_meshed(&made) => {
            findings.ok(CHECK, "a pod that asks for a sidecar gets one (dry run)");
        }
        Ok(_) => findings.fail(CHECK, "a pod that asks for a sidecar gets none (dry run)", &remedy),
        // Permissions, Pod Security, policies of other makers: they say nothing of the webhook.
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            let detail = format!("not made: {}", status.message);
            findings.warn(CHECK, detail, "ask someone who may create pods in the namespace default");
        }
        Err(error) => findings.fail(CHECK, explain(error).to_string(), &remedy),
    }
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
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(SIDECAR_ANNOTATION))
}
