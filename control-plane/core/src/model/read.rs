//! One YAML or JSON document → one typed object, with what the types would have dropped.
//!
//! Where it stands: what a folder's watch calls for each document, and a Kubernetes watch for objects
//! that it received untyped.
//!
//! Invariant: nothing a user wrote in a route or in one of Weft's kinds vanishes in silence: it is
//! either in the object or in the list of unknown fields.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::{Kind, Object, ObjectKey};

/// A document that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The object.
    pub object: Object,
    /// Fields of the document that the object's kind does not have, e.g. `spec.rules[0].filter`.
    pub unknown_fields: Vec<String>,
}

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The document is no Kubernetes object.
    #[error("this is no Kubernetes object: {0}")]
    NoObject(&'static str),
    /// The kind is none of those that its group, or a person's slip, suggests.
    #[error("{found:?} is not a kind of {group:?}{hint}")]
    Kind {
        /// What the document says.
        found: String,
        /// The group it says so in.
        group: String,
        /// What may be meant.
        hint: String,
    },
    /// The kind is known, this version of it is not.
    #[error("{kind} of apiVersion {found:?} is not supported: write {expected:?}")]
    Version {
        /// The kind.
        kind: String,
        /// What the document says.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A field has a value that its kind does not allow.
    #[error("{object} is not valid: {reason}")]
    Invalid {
        /// Kind and name of the object.
        object: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads one document. `None`: an object of a kind that is not Weft's (a Deployment, say).
///
/// # Errors
/// [`ReadError`], when the document is no object, or not one that its kind allows: a missing or
/// mistyped field, an unknown value of an enumeration, an unknown field in one of Weft's own kinds.
pub fn read(mut document: Value) -> Result<Option<Read>, ReadError> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).map(str::to_owned);
    let api_version = text("apiVersion").ok_or(ReadError::NoObject("apiVersion is missing"))?;
    let kind = text("kind").ok_or(ReadError::NoObject("kind is missing"))?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let Some((kind, versions)) = KINDS
        .iter()
        .find(|(known, in_group, _)| known.as_str() == kind && *in_group == group)
        .map(|(kind, _, versions)| (*kind, *versions))
    else {
        return foreign(kind, group);
    };
    if !versions.is_empty() && !versions.contains(&api_version.as_str()) {
        let expected = versions.first().copied().unwrap_or_default();
        return Err(ReadError::Version { kind: kind.to_string(), found: api_version, expected });
    }
    let key = key(kind, &document)?;
    if !matches!(kind, Kind::Pod | Kind::Node)
        && let Some(fields) = document.as_object_mut()
    {
        // Written by controllers, us among them; only a Pod's and a Node's say something about the world.
        fields.remove("status");
    }
    typed(kind, document, &key).map(Some)
}

/// A kind that is not read: another's, unless it looks like a slip, which must not pass in silence.
fn foreign(kind: String, group: &str) -> Result<Option<Read>, ReadError> {
    if group.is_empty() && kind == "List" {
        return Err(ReadError::NoObject("write the items of a List as documents of their own"));
    }
    let alike = KINDS.iter().find(|(known, _, _)| known.as_str().eq_ignore_ascii_case(&kind));
    let hint = match alike {
        Some((known, of, _)) if *of == group => format!("; is {known} meant?"),
        _ if group == weft_k8s::GROUP => String::new(),
        _ => return Ok(None),
    };
    Err(ReadError::Kind { found: kind, group: group.to_owned(), hint })
}

/// Kinds, groups and versions that are read; the first version is the one to write. No versions: any.
const KINDS: &[(Kind, &str, &[&str])] = &[
    (Kind::Service, "", &["v1"]),
    (Kind::Pod, "", &["v1"]),
    (Kind::EndpointSlice, "discovery.k8s.io", &["discovery.k8s.io/v1"]),
    (
        Kind::HttpRoute,
        "gateway.networking.k8s.io",
        &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"],
    ),
    (Kind::GrpcRoute, "gateway.networking.k8s.io", &["gateway.networking.k8s.io/v1"]),
    (Kind::TlsRoute, "gateway.networking.k8s.io", &[]),
    (Kind::TcpRoute, "gateway.networking.k8s.io", &[]),
    (Kind::UdpRoute, "gateway.networking.k8s.io", &[]),
    (Kind::AuthorizationPolicy, weft_k8s::GROUP, &["weft.dev/v1alpha1"]),
    (Kind::TrafficPolicy, weft_k8s::GROUP, &["weft.dev/v1alpha1"]),
    (Kind::TlsPolicy, weft_k8s::GROUP, &["weft.dev/v1alpha1"]),
    (Kind::TelemetryPolicy, weft_k8s::GROUP, &["weft.dev/v1alpha1"]),
    (Kind::Mesh, weft_k8s::GROUP, &["weft.dev/v1alpha1"]),
    (Kind::Node, "", &["v1"]),
    (Kind::Namespace, "", &["v1"]),
];

fn key(kind: Kind, document: &Value) -> Result<ObjectKey, ReadError> {
    let metadata = |field: &str| document.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
    let name = metadata("name").filter(|name| !name.is_empty());
    let name = name.ok_or(ReadError::NoObject("metadata.name is missing"))?;
    Ok(ObjectKey::new(kind, metadata("namespace").unwrap_or("default"), name))
}

fn typed(kind: Kind, document: Value, key: &ObjectKey) -> Result<Read, ReadError> {
    match kind {
        Kind::Service => parse(document, key, Object::Service),
        Kind::Pod => parse(document, key, Object::Pod),
        Kind::EndpointSlice => parse(document, key, Object::EndpointSlice),
        Kind::HttpRoute => parse(document, key, Object::HttpRoute),
        Kind::GrpcRoute => parse(document, key, Object::GrpcRoute),
        Kind::AuthorizationPolicy => parse(document, key, Object::AuthorizationPolicy),
        Kind::TrafficPolicy => parse(document, key, Object::TrafficPolicy),
        Kind::TlsPolicy => parse(document, key, Object::TlsPolicy),
        Kind::TelemetryPolicy => parse(document, key, Object::TelemetryPolicy),
        Kind::Mesh => parse(document, key, Object::Mesh),
        Kind::Node => parse(document, key, Object::Node),
        Kind::Namespace => parse(document, key, Object::Namespace),
        Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            Ok(Read { object: Object::Unsupported(key.clone()), unknown_fields: Vec::new() })
        }
    }
}

fn parse<T: DeserializeOwned + Serialize>(
    document: Value,
    key: &ObjectKey,
    wrap: fn(Box<T>) -> Object,
) -> Result<Read, ReadError> {
    let invalid =
        |error: serde_json::Error| ReadError::Invalid { object: key.to_string(), reason: error.to_string() };
    let object: T = T::deserialize(&document).map_err(invalid)?;
    let kept = serde_json::to_value(&object).map_err(invalid)?;
    Ok(Read { object: wrap(Box::new(object)), unknown_fields: unknown_fields(&document, &kept) })
}

/// Paths that the original has and the re-serialised object lost: fields that its kind does not have.
/// Empty and null fields do not count.
pub fn unknown_fields(original: &Value, kept: &Value) -> Vec<String> {
    let mut lost = Vec::new();
    for (name, value) in original.as_object().into_iter().flatten() {
        compare(value, kept.get(name), name.clone(), &mut lost);
    }
    lost
}

fn compare(original: &Value, kept: Option<&Value>, path: String, lost: &mut Vec<String>) {
    match (original, kept) {
        (Value::Null, _) => {}
        (Value::Object(fields), None | Some(Value::Null)) if fields.is_empty() => {}
        (Value::Array(items), None | Some(Value::Null)) if items.is_empty() => {}
        (_, None | Some(Value::Null)) => lost.push(path),
        (Value::Object(fields), Some(kept)) => {
            for (name, value) in fields {
                compare(value, kept.get(name), format!("{path}.{name}"), lost);
            }
        }
        (Value::Array(items), Some(kept)) => {
            for (index, item) in items.iter().enumerate() {
                compare(item, kept.get(index), format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}
