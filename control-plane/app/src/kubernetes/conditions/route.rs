//! The status of a route: one entry for each parent that is ours. Source: Gateway API, RouteStatus.
//!
//! Invariant: an entry of another controller, or for a parent of a kind that is not ours, is never
//! written, changed or removed.

use serde_json::{Map, Value, json};
use weft_control_plane_core::model::ParentRef;
use weft_control_plane_core::report::{ObjectReport, Subject};

use super::reach::Reach;
use super::{APPLIED, CONTROLLER, Wanted, is_newer, merge};

/// Fields that tell one parent from another, with what an absent one means in a route of a namespace.
const FIELDS: [&str; 6] = ["group", "kind", "namespace", "name", "sectionName", "port"];

/// The status that a route must have; none: it has it, or it is about a newer generation.
///
/// `object` is the route as the API server has it: its `spec.parentRefs` and `status`.
pub fn route_status(
    object: &Value,
    report: &ObjectReport,
    reach: Option<&Reach>,
    now: &str,
) -> Option<Value> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let status = object.get("status").cloned().unwrap_or(Value::Null);
    let existing = status.get("parents").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_ours = |entry: &Value| entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER);
    if existing.iter().any(|it| is_ours(it) && is_newer(it.get("conditions"), report.generation)) {
        return None;
    }
    let mut wanted = wanted(object, report, reach);
    let mut parents: Vec<Value> = Vec::new();
    for entry in &existing {
        if !is_ours(entry) {
            parents.push(entry.clone());
            continue;
        }
        let held = entry.get("parentRef").unwrap_or(&Value::Null);
        let at = wanted.iter().position(|(parent, _)| same(parent, held, namespace));
        if let Some((_, conditions)) = at.map(|at| wanted.remove(at)) {
            let mut entry = entry.clone();
            let merged = merge(entry.get("conditions"), &conditions, report.generation, now);
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("conditions".to_owned(), merged);
            }
            parents.push(entry);
        }
    }
    parents.extend(wanted.into_iter().map(|(parent, conditions)| {
        let conditions = merge(None, &conditions, report.generation, now);
        json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions })
    }));
    (parents != existing).then(|| {
        let mut status = status.as_object().cloned().unwrap_or_default();
        status.insert("parents".to_owned(), Value::Array(parents));
        Value::Object(status)
    })
}

/// Each parent of ours, each once, and what is to be said there.
fn wanted(object: &Value, report: &ObjectReport, reach: Option<&Reach>) -> Vec<(Value, Vec<Wanted>)> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let mut wanted: Vec<(Value, Vec<Wanted>)> = Vec::new();
    for verdict in &report.verdicts {
        let parents = match &verdict.subject {
            Subject::Parent(parent) => vec![parent_ref(object, parent, namespace)],
            // A kind that is refused whole: at each of its parents that would be ours.
            Subject::Object => spec_parents(object).filter(|parent| is_service(parent)).cloned().collect(),
            Subject::Target(_) => Vec::new(),
        };
        for parent in parents {
            if wanted.iter().any(|(known, _)| same(known, &parent, namespace)) {
                continue;
            }
            let mut conditions: Vec<Wanted> = verdict.conditions.iter().map(Wanted::from).collect();
            conditions.extend(reach.and_then(applied));
            wanted.push((parent, conditions));
        }
    }
    wanted
}

/// The condition that says that sidecars refuse a route; none while none does.
fn applied(reach: &Reach) -> Option<Wanted> {
    (reach.refuse > 0).then(|| Wanted {
        kind: APPLIED,
        status: false,
        reason: "RefusedBySidecars".to_owned(),
        message: reach.to_string(),
    })
}

/// The parent as the user wrote it, so that whoever compares finds it.
fn parent_ref(object: &Value, parent: &ParentRef, namespace: &str) -> Value {
    let mut fields = Map::new();
    let texts = [
        ("group", &parent.group),
        ("kind", &parent.kind),
        ("namespace", &parent.namespace),
        ("sectionName", &parent.section_name),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            fields.insert(field.to_owned(), json!(text));
        }
    }
    fields.insert("name".to_owned(), json!(parent.name));
    if let Some(port) = parent.port {
        fields.insert("port".to_owned(), json!(port));
    }
    let made = Value::Object(fields);
    spec_parents(object).find(|written| same(written, &made, namespace)).cloned().unwrap_or(made)
}

fn spec_parents(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten()
}

/// Whether two references name the same parent. Source: Gateway API, the defaults of ParentReference.
fn same(one: &Value, other: &Value, namespace: &str) -> bool {
    FIELDS.iter().all(|field| field_of(one, field, namespace) == field_of(other, field, namespace))
}

fn field_of(parent: &Value, field: &str, namespace: &str) -> Value {
    let default = || match field {
        "group" => json!("gateway.networking.k8s.io"),
        "kind" => json!("Gateway"),
        "namespace" => json!(namespace),
        _ => Value::Null,
    };
    let value = parent.get(field).filter(|value| !value.is_null());
    match value.and_then(Value::as_str) {
        // The standard's own examples write it so.
        Some("core") if field == "group" => json!(""),
        _ => value.cloned().unwrap_or_else(default),
    }
}

fn is_service(parent: &Value) -> bool {
    field_of(parent, "group", "") == json!("") && field_of(parent, "kind", "") == json!("Service")
}
