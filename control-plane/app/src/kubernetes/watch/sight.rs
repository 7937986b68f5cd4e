//! One object as the API server sent it → a fact for the model, or why it is none.
//!
//! Before it: `watch`. After it: `feed` puts it into the model, or into the list of what is refused.
//!
//! Invariant: no object stops a watch. What cannot be read is not in force, and its status says why; an
//! AuthorizationPolicy that cannot be read denies at its targets, so that no slip opens a door.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_control_plane_core::model::{self, Kind, Object, ObjectKey, ParentRef};
use weft_control_plane_core::report::{Condition, ObjectReport, Reason, Subject, Verdict};

use crate::kubernetes::trim::trim;

/// What an object came to.
#[derive(Debug)]
pub enum Sight {
    /// A fact.
    Good(Box<Object>),
    /// Not in force as written.
    Refused {
        /// Which object.
        key: ObjectKey,
        /// What its status says.
        report: ObjectReport,
        /// What stands in for it until it can be read.
        stand_in: Option<Box<Object>>,
    },
}

/// Sees an object of a kind. `None`: it has no name.
pub fn see(kind: Kind, api_version: &str, mut object: Value) -> Option<Sight> {
    let key = key(kind, &object)?;
    trim(kind, &mut object);
    if let Some(fields) = object.as_object_mut() {
        // Items of a list carry neither, and metadata has names of its own.
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.as_str().into());
    }
    let refused = |object: &Value, reason: String| Sight::Refused {
        report: refusal(kind, object, &reason),
        stand_in: stand_in(kind, &key, object),
        key: key.clone(),
    };
    // Kept for the report, where a refusal can have targets.
    let written = written_by_people(kind).then(|| object.clone());
    let written = written.as_ref().unwrap_or(&Value::Null);
    Some(match model::read(object) {
        Ok(Some(read)) => match unknown(kind, &read.unknown_fields) {
            None => Sight::Good(Box::new(read.object)),
            Some(reason) => refused(written, reason),
        },
        Ok(None) => refused(written, format!("{api_version} {kind} is not a kind of the mesh")),
        Err(error) => refused(written, error.to_string()),
    })
}

/// The key of an object by its metadata.
pub fn key(kind: Kind, object: &Value) -> Option<ObjectKey> {
    let text = |field: &str| object.get("metadata")?.get(field)?.as_str();
    let name = text("name").filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(kind, text("namespace").unwrap_or_default(), name))
}

/// Kinds whose objects people write for the mesh, and whose status can answer.
fn written_by_people(kind: Kind) -> bool {
    !matches!(kind, Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::Node | Kind::Namespace)
}

/// A field of a route that is not known here may narrow what the route matches: it is refused, not dropped.
fn unknown(kind: Kind, fields: &[String]) -> Option<String> {
    let mut spec = fields.iter().filter(|field| field.starts_with("spec")).map(String::as_str);
    let first = spec.next().filter(|_| written_by_people(kind))?;
    let all: Vec<&str> = std::iter::once(first).chain(spec).collect();
    Some(format!("not supported here: {}", all.join(", ")))
}

fn refusal(kind: Kind, object: &Value, reason: &str) -> ObjectReport {
    let why = match kind {
        Kind::HttpRoute | Kind::GrpcRoute => Reason::UnsupportedValue,
        _ => Reason::Invalid,
    };
    let verdict = |subject| Verdict { subject, conditions: vec![Condition::refused(why, reason)] };
    let mut verdicts: Vec<Verdict> = match kind {
        Kind::HttpRoute | Kind::GrpcRoute => parts::<ParentRef>(object, "/spec/parentRefs")
            .into_iter()
            .filter(ours)
            .map(Subject::Parent)
            .collect(),
        _ => parts(object, "/spec/targetRefs").into_iter().map(Subject::Target).collect::<Vec<_>>(),
    }
    .into_iter()
    .map(verdict)
    .collect();
    if verdicts.is_empty() && !matches!(kind, Kind::HttpRoute | Kind::GrpcRoute) {
        verdicts.push(verdict(Subject::Object));
    }
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
    ObjectReport { position: None, generation, uid, verdicts, warnings: Vec::new() }
}

/// Parents that a mesh answers for: Services.
fn ours(parent: &ParentRef) -> bool {
    parent.kind.as_deref() == Some("Service")
        && parent.group.as_deref().is_some_and(|it| matches!(it, "" | "core"))
}

/// The items of a list that can be read.
fn parts<T: DeserializeOwned>(object: &Value, path: &str) -> Vec<T> {
    let items = object.pointer(path).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(|item| T::deserialize(item).ok()).collect()
}

/// What holds at the targets of an AuthorizationPolicy that cannot be read: nobody is allowed.
fn stand_in(kind: Kind, key: &ObjectKey, object: &Value) -> Option<Box<Object>> {
    let shadow = object.pointer("/spec/mode").and_then(Value::as_str) == Some("Shadow");
    if kind != Kind::AuthorizationPolicy || shadow {
        return None;
    }
    let targets: Vec<weft_k8s::TargetRef> = parts(object, "/spec/targetRefs");
    let closed = json!({
        "apiVersion": format!("{}/{}", weft_k8s::GROUP, weft_k8s::VERSION),
        "kind": kind.as_str(),
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"targetRefs": targets, "action": "Allow", "rules": []},
    });
    Some(Box::new(model::read(closed).ok()??.object))
}
