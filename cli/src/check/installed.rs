//! The installation: its kinds, replicas, leader, roots, webhook and settings.
//!
//! Invariant: pure; what there is and the time are arguments.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use weft_k8s::chart;
use x509_parser::pem::Pem;

use super::Findings;
use super::facts::Installation;
use crate::status::span;

/// A root that ends within this many seconds is told about. Source: ours, 30 days; replacing one takes
/// as long as the longest-lived pod's restart at worst.
const SOON: i64 = 30 * 86_400;
/// What applies everything again.
const AGAIN: &str = "run `weft upgrade | kubectl apply --server-side -f -`";

/// Whether there is an installation at all.
pub(super) const INSTALLED: &str = "installed";

/// Kinds, replicas, leader and settings.
pub(super) fn control_plane(installation: &Installation, namespace: &str) -> Findings {
    let mut findings = Findings::of("Control plane");
    let Some(deployment) = &installation.deployment else {
        findings.fail(
            INSTALLED,
            format!("namespace {namespace} has no Deployment weft-control-plane"),
            "run `weft install | kubectl apply --server-side -f -`, or name its --namespace",
        );
        return findings;
    };
    replicas(deployment, namespace, &mut findings);
    kinds(&installation.kinds, &mut findings);
    let holder = installation.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
    match holder.filter(|holder| !holder.is_empty()) {
        Some(holder) => findings.ok("leader", holder),
        None => findings.fail(
            "leader",
            "no replica holds the Lease weft-control-plane: no status is written",
            &format!("see why: kubectl logs -n {namespace} deployment/weft-control-plane"),
        ),
    }
    match &installation.injector {
        Some(Ok(config)) => findings.ok("injector's settings", format!("sidecars run {}", config.image)),
        Some(Err(reason)) => findings.fail("injector's settings", reason.clone(), AGAIN),
        None => findings.fail("injector's settings", "there is no ConfigMap weft-injector", AGAIN),
    }
    findings
}

fn replicas(deployment: &Deployment, namespace: &str, findings: &mut Findings) {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    let updated = status.and_then(|status| status.updated_replicas).unwrap_or(0);
    let detail = format!("{ready} of {wanted} ready, {updated} of the newest version");
    if ready >= wanted && updated >= wanted {
        findings.ok("replicas", detail);
    } else {
        let remedy = format!(
            "see why: kubectl describe pods -n {namespace} -l app.kubernetes.io/name=weft-control-plane"
        );
        findings.fail("replicas", detail, &remedy);
    }
    let labels = deployment.metadata.labels.as_ref();
    let version =
        labels.and_then(|labels| labels.get("app.kubernetes.io/version")).cloned().unwrap_or_default();
    if version == chart::version() {
        findings.ok("version", version);
    } else {
        let detail = format!("the control plane is {version}, this command is {}", chart::version());
        findings.warn("version", detail, &format!("{AGAIN}, or use the command of that version"));
    }
}

fn kinds(there: &[CustomResourceDefinition], findings: &mut Findings) {
    let mut behind = Vec::new();
    for wanted in weft_k8s::crds::values() {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let found = there.iter().find(|crd| crd.metadata.name.as_deref() == Some(name));
        let found = found.and_then(|crd| serde_json::to_value(crd).ok()).unwrap_or(Value::Null);
        if !holds(&found["spec"], &wanted["spec"]) {
            behind.push(if found.is_null() { format!("{name} (missing)") } else { name.to_owned() });
        }
    }
    if behind.is_empty() {
        findings.ok("kinds", "the definitions are this version's");
    } else {
        let remedy = "run `weft install --crds-only | kubectl apply --server-side -f -`";
        findings.fail("kinds", format!("not this version's: {}", behind.join(", ")), remedy);
    }
}

/// Whether everything of `wanted` is in `there`, which an API server has filled with defaults.
pub(super) fn holds(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| there.get(key).is_some_and(|there| holds(there, wanted)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| holds(there, wanted))
        }
        (Value::Number(there), Value::Number(wanted)) => there.as_f64() == wanted.as_f64(),
        _ => there == wanted,
    }
}

/// Roots, and the webhook that stands on them.
pub(super) fn trust(installation: &Installation, now: i64) -> Findings {
    let mut findings = Findings::of("Trust");
    if installation.deployment.is_none() {
        return findings;
    }
    let roots = installation.roots.as_deref().map(certificates).unwrap_or_default();
    if roots.is_empty() {
        findings.fail(
            "roots",
            "the ConfigMap weft-trust holds no certificate",
            "the control plane writes it once it leads: see its log and the Secret weft-ca",
        );
    }
    for root in &roots {
        let left = root.ends - now;
        if left <= 0 {
            let detail = format!("{} ended {} ago", root.subject, span(-left));
            findings.fail(
                "roots",
                detail,
                "replace the Secret weft-ca by a new root and restart the mesh's pods",
            );
        } else if left < SOON {
            let detail = format!("{} ends in {}", root.subject, span(left));
            let remedy = "rotate it: add the new root to ca.crt of the Secret weft-ca, then replace tls.crt and tls.key";
            findings.warn("roots", detail, remedy);
        } else {
            findings.ok("roots", format!("{}, {} left", root.subject, span(left)));
        }
    }
    webhook(installation.webhook.as_ref(), &roots, &mut findings);
    findings
}

fn webhook(
    configuration: Option<&MutatingWebhookConfiguration>,
    roots: &[Certificate],
    findings: &mut Findings,
) {
    let Some(webhooks) = configuration.and_then(|it| it.webhooks.as_ref()).filter(|list| !list.is_empty())
    else {
        return findings.fail(
            "webhook",
            "there is no configuration weft-injector: no pod is injected",
            AGAIN,
        );
    };
    let expected: BTreeSet<&Vec<u8>> = roots.iter().map(|root| &root.der).collect();
    let stale: Vec<&str> = webhooks
        .iter()
        .filter(|webhook| {
            let bundle = webhook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
            let held = certificates(&String::from_utf8_lossy(bundle.unwrap_or_default()));
            held.is_empty() || held.iter().map(|root| &root.der).collect::<BTreeSet<_>>() != expected
        })
        .map(|webhook| webhook.name.as_str())
        .collect();
    if stale.is_empty() {
        let policy = webhooks.iter().find_map(|webhook| webhook.failure_policy.clone()).unwrap_or_default();
        findings.ok("webhook", format!("the API server trusts the mesh's roots; failure policy {policy}"));
    } else {
        findings.fail(
            "webhook",
            format!(
                "caBundle of {} is not the mesh's roots: the API server cannot call it",
                stale.join(", ")
            ),
            "the leader puts it right within a minute; if it does not, see its log for what it may not do",
        );
    }
}

/// A certificate, as far as it is looked at.
pub(super) struct Certificate {
    subject: String,
    ends: i64,
    der: Vec<u8>,
}

/// The certificates in a PEM text; what is none is left out.
pub(super) fn certificates(pem: &str) -> Vec<Certificate> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    blocks
        .filter_map(|block| {
            let certificate = block.parse_x509().ok()?;
            let (subject, ends) =
                (certificate.subject().to_string(), certificate.validity().not_after.timestamp());
            Some(Certificate { subject, ends, der: block.contents.clone() })
        })
        .collect()
}
