//! What an object's status must be: a pure function of the status it has, of the report and of the
//! sidecars.
//!
//! Before it: *compile*'s report. After it: `conditions::writer` sends what differs.
//!
//! Invariant: only our own entries and condition types are touched; what others wrote, and what we do
//! not know, stays byte for byte.
//! Invariant: a status that is right already is not written: the answer is then none.
//! Invariant: `lastTransitionTime` changes only with `status`; PartiallyInvalid is only ever True.
//! Invariant: a report on an older generation never replaces one on a newer.

mod policy;
pub mod reach;
mod reports;
mod route;
pub mod writer;

use serde_json::{Map, Value, json};
use weft_control_plane_core::report::{Condition, ConditionType};

pub use self::policy::{mesh_status, policy_status};
pub use self::route::route_status;

/// Who writes our entries in the status of routes. Source: the installation's name.
pub const CONTROLLER: &str = "weft.dev/control-plane";
/// Type of the condition that says that sidecars refuse what was made of a route. Source: Weft's own, in
/// Weft's own domain, as the Gateway API asks of types beyond its own.
pub const APPLIED: &str = "weft.dev/Applied";
/// Longest message of a condition. Source: the API's own limit, 32 KiB.
const MESSAGE: usize = 32 * 1024;

/// A condition as it is about to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    kind: &'static str,
    status: bool,
    reason: String,
    message: String,
}

impl From<&Condition> for Wanted {
    fn from(condition: &Condition) -> Self {
        Self {
            kind: condition.kind.as_str(),
            status: condition.status,
            reason: condition.reason.as_str().to_owned(),
            message: condition.message.clone(),
        }
    }
}

/// Types that are ours to set and to remove.
const OURS: [&str; 4] = [
    ConditionType::Accepted.as_str(),
    ConditionType::ResolvedRefs.as_str(),
    ConditionType::PartiallyInvalid.as_str(),
    APPLIED,
];

/// The conditions of one list: ours as wanted, in their places; others as they are.
fn merge(existing: Option<&Value>, wanted: &[Wanted], generation: Option<i64>, now: &str) -> Value {
    let existing = existing.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut merged: Vec<Value> = Vec::new();
    let kind_of = |condition: &Value| condition.get("type").and_then(Value::as_str).map(str::to_owned);
    for condition in existing {
        let kind = kind_of(condition);
        let again = kind.is_some() && merged.iter().any(|other| kind_of(other) == kind);
        match wanted.iter().find(|wanted| kind.as_deref() == Some(wanted.kind)) {
            Some(_) if again => {}
            Some(wanted) => merged.push(one(Some(condition), wanted, generation, now)),
            None if kind.as_deref().is_some_and(|kind| OURS.contains(&kind)) => {}
            None => merged.push(condition.clone()),
        }
    }
    for wanted in wanted {
        if !merged.iter().any(|condition| kind_of(condition).as_deref() == Some(wanted.kind)) {
            merged.push(one(None, wanted, generation, now));
        }
    }
    Value::Array(merged)
}

fn one(existing: Option<&Value>, wanted: &Wanted, generation: Option<i64>, now: &str) -> Value {
    let status = if wanted.status { "True" } else { "False" };
    let since = existing
        .filter(|existing| existing.get("status").and_then(Value::as_str) == Some(status))
        .and_then(|existing| existing.get("lastTransitionTime"))
        .and_then(Value::as_str)
        .unwrap_or(now);
    let mut condition = Map::new();
    condition.insert("type".to_owned(), json!(wanted.kind));
    condition.insert("status".to_owned(), json!(status));
    if let Some(generation) = generation {
        condition.insert("observedGeneration".to_owned(), json!(generation));
    }
    condition.insert("lastTransitionTime".to_owned(), json!(since));
    condition.insert("reason".to_owned(), json!(wanted.reason));
    condition.insert("message".to_owned(), json!(shortened(&wanted.message)));
    Value::Object(condition)
}

/// Whether a list of conditions is about a later generation than ours.
fn is_newer(conditions: Option<&Value>, generation: Option<i64>) -> bool {
    let Some(generation) = generation else { return false };
    let conditions = conditions.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ours = conditions.iter().filter(|condition| {
        condition.get("type").and_then(Value::as_str).is_some_and(|kind| OURS.contains(&kind))
    });
    ours.filter_map(|condition| condition.get("observedGeneration")?.as_i64()).any(|seen| seen > generation)
}

fn shortened(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MESSAGE)).unwrap_or(message)
}

/// Our problems in a status: what a person has to act on, each once, as "reason: message".
pub(crate) fn problems(status: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let lists = |key: &str| status.get(key).and_then(Value::as_array).into_iter().flatten();
    let ours = |entry: &&Value| {
        entry.get("controllerName").and_then(Value::as_str).is_none_or(|name| name == CONTROLLER)
    };
    let entries = lists("parents").filter(ours).chain(lists("targets")).chain([status]);
    for condition in entries.filter_map(|entry| entry.get("conditions")?.as_array()).flatten() {
        let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
        let bad = match text("type") {
            "PartiallyInvalid" => text("status") == "True",
            "Accepted" | "ResolvedRefs" | APPLIED => text("status") == "False",
            _ => false,
        };
        let line = format!("{}: {}", text("reason"), text("message"));
        if bad && !problems.contains(&line) {
            problems.push(line);
        }
    }
    problems
}

#[cfg(test)]
mod tests;
