//! What is the matter with facts: of a folder of manifests alone, or of a cluster's objects.
//!
//! Invariant: the very compiler of the control plane judges; a place is `file:line` where there are files.

use std::path::Path;

use weft_control_plane_core::lint::{Check, Lint, lint};

use super::{Finding, Findings, State};
use crate::folder::Folder;

/// Kinds that make pods, which a folder's mesh does not read. Source: the Kubernetes API.
const MAKERS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"];

/// Looks at a folder.
pub(super) fn look(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Findings::of("Manifests");
    let folder = match Folder::open(root) {
        Ok(folder) => folder,
        Err(error) => {
            findings.fail(
                "manifests",
                format!("{error:#}"),
                "correct what is named; nothing else was looked at",
            );
            return Ok(findings.list);
        }
    };
    let objects = folder.model.keys().count();
    let unread: Vec<String> = folder.ignored.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let beside =
        if unread.is_empty() { String::new() } else { format!("; not the mesh's: {}", unread.join(", ")) };
    findings.ok("manifests", format!("{objects} objects{beside}"));
    for field in &folder.unknown_fields {
        let remedy = "it is ignored here; is it a slip, or newer than this version?";
        findings.warn("unknown field", field.clone(), remedy);
    }
    let makers = MAKERS.iter().any(|kind| folder.ignored.contains_key(*kind));
    let all = lint(&folder.model, &folder.compiled);
    // Whose pods are made elsewhere may well have some.
    let pods_unknown =
        |lint: &&Lint| makers && matches!(lint.check, Check::NoEndpoint | Check::TargetMatchesNothing);
    let left_out = all.iter().filter(pods_unknown).count();
    let shown: Vec<&Lint> = all.iter().filter(|lint| !pods_unknown(lint)).collect();
    if left_out > 0 {
        let detail = format!(
            "{left_out} selectors match no Pod here; what Deployments and the like make is not known"
        );
        findings.warn("pods", detail, "look at the cluster for these: `weft check`");
    }
    told(&shown, &mut findings);
    Ok(findings.list)
}

/// Says what was found, and for each kind of thing of which nothing was, that all is well.
pub(super) fn told(lints: &[&Lint], findings: &mut Findings) {
    for check in CHECKS {
        let (name, well) = words(check);
        let found: Vec<&&Lint> = lints.iter().filter(|lint| lint.check == check).collect();
        if found.is_empty() && !well.is_empty() {
            findings.ok(name, well);
        }
        for lint in found {
            let place = lint.place.as_ref().map(ToString::to_string).unwrap_or_default();
            let before = if place.is_empty() { String::new() } else { format!("{place}: ") };
            let state = if check.fails() { State::Failed } else { State::Warning };
            findings.list.push(Finding {
                area: findings.area,
                check: name,
                state,
                detail: format!("{before}{}: {}", lint.object, lint.text),
                remedy: lint.remedy.to_owned(),
                object: lint.object.to_string(),
                place,
            });
        }
    }
}

/// In the order in which they are shown.
const CHECKS: [Check; 7] = [
    Check::NotInForce,
    Check::Warning,
    Check::PolicyOnBytes,
    Check::TargetMatchesNothing,
    Check::NoEndpoint,
    Check::ProtocolGuessed,
    Check::Unreferenced,
];

/// What a kind of finding is called, and what is said when there is none.
fn words(check: Check) -> (&'static str, &'static str) {
    match check {
        Check::NotInForce => ("configuration", "every route and policy is in force"),
        Check::Warning => ("remarks", ""),
        Check::PolicyOnBytes => ("policies on requests", "none applies to a port of bytes"),
        Check::TargetMatchesNothing => ("targets", "every target means something"),
        Check::NoEndpoint => ("endpoints", "every service has one"),
        Check::ProtocolGuessed => ("protocols", "every port declares its protocol"),
        Check::Unreferenced => ("unused", ""),
    }
}
