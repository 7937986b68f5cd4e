//! The one thing that nothing else shows: that the API server reaches the webhook and takes its answer. A
//! pod that asks for a sidecar is created as a dry run.
//!
//! Before it: the installation was read. After it: nothing of the trial is left, not even an event.
//!
//! Invariant: nothing is written: the API server forgets a dry run once it has answered.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use weft_control_plane_core::inject::INJECT;
use weft_control_plane_core::model::SIDECAR_ANNOTATION;

use super::Findings;
use super::facts::Installation;
use crate::cluster::explain;

/// Where it is tried. Source: every cluster has it.
const NAMESPACE: &str = "default";
/// Name of the finding.
const CHECK: &str = "injection";

/// Tries it, unless the settings exclude the place.
pub(super) async fn look(client: &Client, installation: &Installation) -> Findings {
    let mut findings = Findings::of("Trial");
    let excluded = match &installation.injector {
        Some(Ok(config)) => config.skip_namespaces.iter().any(|name| name == NAMESPACE),
        _ => return findings,
    };
    if excluded {
        return findings;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let started = Instant::now();
    let made = match asking() {
        Ok(pod) => pods.create(&dry, &pod).await,
        Err(error) => Err(kube::Error::SerdeError(error)),
    };
    judge(made, started.elapsed().as_millis(), &mut findings);
    findings
}

fn asking() -> serde_json::Result<Pod> {
    serde_json::from_value(json!({
        "metadata": {"generateName": "weft-check-", "labels": {INJECT: "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]},
    }))
}

/// What the API server's answer means.
pub(super) fn judge(made: kube::Result<Pod>, millis: u128, findings: &mut Findings) {
    let pod = match made {
        Ok(pod) => pod,
        // Permissions, Pod Security and other makers' policies: they say nothing of the webhook.
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            let detail = format!("not tried: {}", status.message);
            return findings.warn(CHECK, detail, "ask someone who may create pods in the namespace default");
        }
        Err(error) => {
            let remedy = "see whether the API server may reach port 15017 of the control plane's pods";
            return findings.fail(CHECK, explain(error).to_string(), remedy);
        }
    };
    if pod.metadata.annotations.is_some_and(|annotations| annotations.contains_key(SIDECAR_ANNOTATION)) {
        findings.ok(CHECK, format!("a pod that asks gets its sidecar (dry run, {millis} ms)"));
    } else {
        findings.fail(
            CHECK,
            "a pod that asks would get no sidecar (dry run)",
            "see whether the API server may reach port 15017 of the control plane's pods, and its log",
        );
    }
}
