//! The mesh: what the replicas say of their sidecars, pods that should have one, and what is refused.
//!
//! Invariant: the very function that injects says which pods should have a sidecar.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use weft_control_plane_core::inject::{Decision, Injector, NamespaceFacts};
use weft_k8s::chart;

use super::Findings;
use super::facts::Installation;
use crate::cluster::{Answer, Replica, Sidecar, explain, replicas};
use crate::status::span;

/// How many are named one by one. Source: ours; a screen has 24 lines.
const NAMED: usize = 5;
/// A certificate that ends within this many seconds is told about. Source: ours; half of an hour-long life,
/// which is as short as one is useful, would have been renewed by then.
const SOON: i64 = 15 * 60;
/// Pods of one page of a list. Source: client-go's default.
const PAGE: u32 = 500;

/// Looks at all of it; what cannot be seen is a finding too.
pub(super) async fn look(client: &Client, namespace: &str, installation: &Installation) -> Findings {
    let mut findings = Findings::of("Mesh");
    match replicas(client, namespace).await {
        Ok(replicas) => {
            silent(&replicas, &mut findings);
            let now = k8s_openapi::jiff::Timestamp::now().as_second();
            of_sidecars(&replicas, now, &mut findings);
        }
        Err(error) => {
            findings.fail("replicas' status", format!("{error:#}"), "see `weft status`");
        }
    }
    let injector = match (&installation.injector, &installation.roots) {
        (Some(Ok(config)), Some(roots)) => Injector::new(config.clone(), roots).ok(),
        _ => None,
    };
    if let Some(injector) = injector {
        match without_sidecar(client, &injector).await {
            Ok(pods) => pods_finding(&pods, &mut findings),
            Err(error) => {
                findings.warn("pods", format!("{error:#}"), "ask someone who may list pods and namespaces");
            }
        }
    }
    findings
}

fn silent(replicas: &[Replica], findings: &mut Findings) {
    for replica in replicas {
        if let Answer::Silent(reason) = &replica.page {
            let detail = format!("{}: {reason}", replica.pod);
            findings.warn("replicas' status", detail, "sidecars of this replica are not looked at");
        }
    }
}

/// All that replicas say of their sidecars.
pub(super) fn of_sidecars(replicas: &[Replica], now: i64, findings: &mut Findings) {
    sidecars(replicas, findings);
    certificates(replicas, now, findings);
    acknowledged(replicas, findings);
    refused(replicas, findings);
}

fn all(replicas: &[Replica]) -> impl Iterator<Item = (&Sidecar, u64)> {
    let pages = replicas.iter().filter_map(Replica::status);
    pages.flat_map(|page| page.sidecars.list.iter().map(move |sidecar| (sidecar, page.generation)))
}

/// Certificates that have ended, or are about to.
pub(super) fn certificates(replicas: &[Replica], now: i64, findings: &mut Findings) {
    let (mut ended, mut ending, mut known) = (Vec::new(), Vec::new(), 0);
    for (sidecar, _) in all(replicas) {
        let Some(ends) = sidecar.certificate_ends.and_then(|ends| i64::try_from(ends).ok()) else { continue };
        known += 1;
        let left = ends - now;
        if left <= 0 {
            ended.push(format!("{} ({} ago)", sidecar.workload, span(-left)));
        } else if left < SOON {
            ending.push(format!("{} (in {})", sidecar.workload, span(left)));
        }
    }
    if !ended.is_empty() {
        let detail = format!("{} of {known} have ended: {}", ended.len(), some(&ended));
        let remedy = "see in the sidecar's log why it cannot renew: `kubectl logs POD -c weft-proxy`";
        findings.fail("certificates", detail, remedy);
    }
    if !ending.is_empty() {
        let detail = format!("{} of {known} end soon: {}", ending.len(), some(&ending));
        let remedy = "they are renewed at half of their life: see why not, `kubectl logs POD -c weft-proxy`";
        findings.warn("certificates", detail, remedy);
    }
    if known > 0 && ended.is_empty() && ending.is_empty() {
        findings.ok("certificates", format!("{known} sidecars hold one that is good for a while"));
    }
}

/// Sidecars that have not taken what is published.
pub(super) fn acknowledged(replicas: &[Replica], findings: &mut Findings) {
    let total = all(replicas).count();
    let is_behind = |(sidecar, published): &(&Sidecar, u64)| sidecar.generation != *published;
    let behind: Vec<String> = all(replicas)
        .filter(is_behind)
        .map(|(sidecar, published)| format!("{} ({} of {published})", sidecar.workload, sidecar.generation))
        .collect();
    if !behind.is_empty() {
        let detail = format!("{} of {total} sidecars are behind: {}", behind.len(), some(&behind));
        let remedy = "one that stays behind is stuck: see `kubectl logs POD -c weft-proxy`, and restart it";
        findings.fail("acknowledged", detail, remedy);
    } else if total > 0 {
        findings.ok("acknowledged", format!("{total} sidecars show what is published"));
    }
}

pub(super) fn sidecars(replicas: &[Replica], findings: &mut Findings) {
    let all: Vec<_> =
        replicas.iter().filter_map(Replica::status).flat_map(|page| &page.sidecars.list).collect();
    let others: Vec<String> = all
        .iter()
        .filter(|sidecar| sidecar.version != chart::version())
        .map(|sidecar| format!("{} {}", sidecar.workload, sidecar.version))
        .collect();
    if replicas.iter().all(|replica| replica.status().is_none()) {
        return;
    }
    if others.is_empty() {
        findings.ok("sidecars", format!("{} connected, all of version {}", all.len(), chart::version()));
    } else {
        let detail = format!("{} of {} are of another version: {}", others.len(), all.len(), some(&others));
        findings.warn("sidecars", detail, "restart them when it suits: kubectl rollout restart");
    }
}

pub(super) fn refused(replicas: &[Replica], findings: &mut Findings) {
    if replicas.iter().all(|replica| replica.status().is_none()) {
        return;
    }
    let mut objects = Vec::new();
    let mut refusals = Vec::new();
    for page in replicas.iter().filter_map(Replica::status) {
        let not_accepted = page.objects.iter().filter(|object| !object.accepted);
        objects.extend(
            not_accepted.map(|object| format!("{} {}/{}", object.kind, object.namespace, object.name)),
        );
        let refusing = page.sidecars.list.iter().filter(|sidecar| !sidecar.refusals.is_empty());
        refusals.extend(refusing.map(|sidecar| match sidecar.refusals.first() {
            Some(first) if !first.reason.is_empty() => {
                format!("{} ({}: {})", sidecar.workload, first.name, first.reason)
            }
            _ => sidecar.workload.clone(),
        }));
    }
    objects.sort();
    objects.dedup();
    if objects.is_empty() {
        findings.ok("configuration", "every route and policy is in force");
    } else {
        let detail = format!("{} not in force everywhere: {}", objects.len(), some(&objects));
        findings.warn("configuration", detail, "see why: `weft status`, or the object's status");
    }
    if !refusals.is_empty() {
        let detail =
            format!("{} sidecar(s) keep an older configuration: {}", refusals.len(), some(&refusals));
        findings.fail("refusals", detail, "see what they refuse: `weft status`; a newer sidecar may know it");
    }
}

/// A pod without a sidecar, and why that is.
type Without = (String, Option<String>);

async fn without_sidecar(client: &Client, injector: &Injector) -> anyhow::Result<Vec<Without>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespaces = namespaces.list(&ListParams::default()).await.map_err(explain)?;
    let facts: BTreeMap<String, NamespaceFacts> = namespaces
        .into_iter()
        .map(|namespace| {
            let meta = namespace.metadata;
            let name = meta.name.unwrap_or_default();
            let facts = NamespaceFacts {
                name: name.clone(),
                labels: meta.labels.unwrap_or_default(),
                annotations: meta.annotations.unwrap_or_default(),
            };
            (name, facts)
        })
        .collect();
    let pods: Api<Pod> = Api::all(client.clone());
    let mut without = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = pods.list(&params).await.map_err(explain)?;
        without.extend(page.items.iter().filter_map(|pod| judge(pod, &facts, injector)));
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(without),
        }
    }
}

/// Whether a living pod should have a sidecar and has none.
pub(super) fn judge(
    pod: &Pod,
    facts: &BTreeMap<String, NamespaceFacts>,
    injector: &Injector,
) -> Option<Without> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let namespace = facts.get(pod.metadata.namespace.as_deref()?)?;
    let name = format!("{}/{}", namespace.name, pod.metadata.name.as_deref()?);
    match injector.decide(&serde_json::to_value(pod).ok()?, namespace) {
        Decision::Skip(_) => None,
        Decision::Inject(_) => Some((name, None)),
        Decision::Refuse(reason) => Some((name, Some(reason))),
    }
}

fn pods_finding(pods: &[Without], findings: &mut Findings) {
    let missing: Vec<String> =
        pods.iter().filter(|(_, reason)| reason.is_none()).map(|(name, _)| name.clone()).collect();
    let refused: Vec<String> =
        pods.iter().filter_map(|(name, reason)| Some(format!("{name} ({})", reason.as_ref()?))).collect();
    if pods.is_empty() {
        findings.ok("pods", "every pod that should have a sidecar has one");
    }
    if !missing.is_empty() {
        let detail = format!("{} should have a sidecar and have none: {}", missing.len(), some(&missing));
        findings.warn("pods", detail, "restart them: kubectl rollout restart");
    }
    if !refused.is_empty() {
        let detail = format!("{} should have a sidecar and cannot: {}", refused.len(), some(&refused));
        findings.warn("pods", detail, "change them, or label them weft.dev/inject: disabled");
    }
}

/// The first few, and how many more.
fn some(list: &[String]) -> String {
    let first: Vec<&str> = list.iter().take(NAMED).map(String::as_str).collect();
    let more = list.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}
