//! The status of Weft's own kinds: on the whole, target by target, and how far it has come among the
//! sidecars.
//!
//! Invariant: Accepted on the whole is True exactly when it is True at every target.

use serde_json::{Map, Value, json};
use weft_control_plane_core::report::{ObjectReport, Subject};

use super::reach::Reach;
use super::{Wanted, is_newer, merge};

/// The status that a policy must have; none: it has it, or it is about a newer generation.
pub fn policy_status(
    object: &Value,
    report: &ObjectReport,
    reach: Option<&Reach>,
    now: &str,
) -> Option<Value> {
    let held = object.get("status").cloned().unwrap_or(Value::Null);
    let seen = held.get("observedGeneration").and_then(Value::as_i64);
    if seen.zip(report.generation).is_some_and(|(seen, ours)| seen > ours) {
        return None;
    }
    let mut status = held.as_object().cloned().unwrap_or_default();
    if let Some(generation) = report.generation {
        status.insert("observedGeneration".to_owned(), json!(generation));
    }
    status.insert(
        "conditions".to_owned(),
        merge(held.get("conditions"), &whole(report), report.generation, now),
    );
    let targets = targets(&held, report, now);
    if targets.is_empty() {
        status.remove("targets");
    } else {
        status.insert("targets".to_owned(), Value::Array(targets));
    }
    put_reach(&mut status, reach);
    changed(held, status)
}

/// The status that the Mesh must have; none: it has it, or it is about a newer generation.
pub fn mesh_status(object: &Value, report: &ObjectReport, reach: Option<&Reach>, now: &str) -> Option<Value> {
    let held = object.get("status").cloned().unwrap_or(Value::Null);
    if is_newer(held.get("conditions"), report.generation) {
        return None;
    }
    let mut status = held.as_object().cloned().unwrap_or_default();
    status.insert(
        "conditions".to_owned(),
        merge(held.get("conditions"), &whole(report), report.generation, now),
    );
    put_reach(&mut status, reach);
    changed(held, status)
}

fn targets(held: &Value, report: &ObjectReport, now: &str) -> Vec<Value> {
    let known = held.get("targets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let entry = |(target, conditions): (Value, Vec<Wanted>)| {
        let before = known.iter().find(|entry| entry.get("targetRef") == Some(&target));
        let before = before.and_then(|entry| entry.get("conditions"));
        let conditions = merge(before, &conditions, report.generation, now);
        json!({ "targetRef": target, "conditions": conditions })
    };
    let wanted = report.verdicts.iter().filter_map(|verdict| match &verdict.subject {
        Subject::Target(target) => {
            let conditions = verdict.conditions.iter().map(Wanted::from).collect();
            Some((serde_json::to_value(target).ok()?, conditions))
        }
        Subject::Object | Subject::Parent(_) => None,
    });
    wanted.map(entry).collect()
}

/// Every kind of condition once: the first that is bad, or else the first.
fn whole(report: &ObjectReport) -> Vec<Wanted> {
    let mut whole: Vec<Wanted> = Vec::new();
    for condition in report.verdicts.iter().flat_map(|verdict| &verdict.conditions) {
        let wanted = Wanted::from(condition);
        match whole.iter_mut().find(|known| known.kind == wanted.kind) {
            None => whole.push(wanted),
            Some(known) if condition.is_problem() && known.status && known.kind != "PartiallyInvalid" => {
                *known = wanted;
            }
            Some(_) => {}
        }
    }
    whole
}

fn put_reach(status: &mut Map<String, Value>, reach: Option<&Reach>) {
    if let Some(reach) = reach {
        let refusing: Vec<Value> = reach
            .refusing
            .iter()
            .map(|refusal| json!({ "workload": refusal.workload, "reason": refusal.reason }))
            .collect();
        let sidecars = json!({ "total": reach.total, "applied": reach.applied, "refusing": refusing });
        status.insert("sidecars".to_owned(), sidecars);
    }
}

fn changed(held: Value, status: Map<String, Value>) -> Option<Value> {
    let status = Value::Object(status);
    (status != held).then_some(status)
}
