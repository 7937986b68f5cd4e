//! The facts as seen, in Weft's words: services, endpoints, pods, routes, policies, settings.
//!
//! Where it stands: *index*, between the watch that brings objects and *validate* and *compile* that
//! read the whole.
//!
//! Invariant: the model judges nothing. An object that makes no sense is kept as it is, and refused
//! by *validate*, so that removing what it clashed with makes it good without a new event.
//! Invariant: the order in which objects arrive does not matter.

mod fact;
mod lower;
mod object;
mod read;
mod route;
mod workload;

use std::{collections::BTreeMap, sync::Arc};

use weft_k8s::{AuthorizationPolicySpec, MeshSpec, TlsPolicySpec, TrafficPolicySpec};

pub(crate) use self::fact::Fact;
pub use self::{
    object::{Kind, Object, ObjectKey},
    read::{Read, ReadError, read, unknown_fields},
    route::{
        BackendRef, FilterFact, GrpcMethod, HeaderChange, HeaderField, MatchFact, MethodFact, ParentRef,
        PathChange, RedirectFact, RewriteFact, Route, RuleFact, TimeoutsFact, TypedValue, ValueFact,
    },
    workload::{
        ContainerPort, Pod, SIDECAR_ANNOTATION, SIDECAR_CONTAINER, Service, ServiceKind, ServicePort, Slice,
        SliceEndpoint, SlicePort, TargetPort, Transport,
    },
};

/// Where an object was written: a file and a line, for messages only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The file, as the person knows it.
    pub file: Arc<str>,
    /// The line the object begins on, from 1.
    pub line: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What every fact knows about the object it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The object.
    pub key: ObjectKey,
    /// When the object was made, in seconds since 1970; absent in a folder.
    pub created: Option<i64>,
    /// Generation of the object's spec; absent in a folder.
    pub generation: Option<i64>,
    /// Where the object was written.
    pub position: Option<Position>,
}

impl Meta {
    /// Order of precedence between equals: the older, then the lower namespace and name. An object
    /// without a date is younger than any with one.
    pub fn seniority(&self) -> (i64, &str, &str) {
        (self.created.unwrap_or(i64::MAX), &self.key.namespace, &self.key.name)
    }
}

/// A policy of one kind: its object and its spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy<S> {
    /// The object.
    pub meta: Meta,
    /// What the user wrote.
    pub spec: S,
}

/// All facts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub(crate) services: BTreeMap<ObjectKey, Service>,
    pub(crate) slices: BTreeMap<ObjectKey, Slice>,
    pub(crate) pods: BTreeMap<ObjectKey, Pod>,
    pub(crate) routes: BTreeMap<ObjectKey, Route>,
    pub(crate) authorizations: BTreeMap<ObjectKey, Policy<AuthorizationPolicySpec>>,
    pub(crate) traffic: BTreeMap<ObjectKey, Policy<TrafficPolicySpec>>,
    pub(crate) tls: BTreeMap<ObjectKey, Policy<TlsPolicySpec>>,
    pub(crate) meshes: BTreeMap<ObjectKey, Policy<MeshSpec>>,
    pub(crate) unsupported: BTreeMap<ObjectKey, Meta>,
}

impl Model {
    /// Takes an object in, in place of an earlier one of the same kind, namespace and name.
    pub fn apply(&mut self, object: Object, position: Option<Position>) {
        let meta = object.meta(position);
        let key = meta.key.clone();
        match object {
            Object::Service(service) => drop(self.services.insert(key, lower::service(meta, &service))),
            Object::EndpointSlice(slice) => drop(self.slices.insert(key, lower::slice(meta, &slice))),
            Object::Pod(pod) => drop(self.pods.insert(key, lower::pod(meta, &pod))),
            Object::HttpRoute(route) => drop(self.routes.insert(key, Route::http(meta, &route))),
            Object::GrpcRoute(route) => drop(self.routes.insert(key, Route::grpc(meta, &route))),
            Object::AuthorizationPolicy(policy) => {
                self.authorizations.insert(key, Policy { meta, spec: policy.spec });
            }
            Object::TrafficPolicy(policy) => {
                self.traffic.insert(key, Policy { meta, spec: policy.spec });
            }
            Object::TlsPolicy(policy) => drop(self.tls.insert(key, Policy { meta, spec: policy.spec })),
            Object::Mesh(mesh) => drop(self.meshes.insert(key, Policy { meta, spec: mesh.spec })),
            Object::Unsupported(_) => drop(self.unsupported.insert(key, meta)),
        }
    }

    /// Forgets an object; an unknown one is no error.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        let key = ObjectKey::new(kind, namespace, name);
        match kind {
            Kind::Service => drop(self.services.remove(&key)),
            Kind::EndpointSlice => drop(self.slices.remove(&key)),
            Kind::Pod => drop(self.pods.remove(&key)),
            Kind::HttpRoute | Kind::GrpcRoute => drop(self.routes.remove(&key)),
            Kind::AuthorizationPolicy => drop(self.authorizations.remove(&key)),
            Kind::TrafficPolicy => drop(self.traffic.remove(&key)),
            Kind::TlsPolicy => drop(self.tls.remove(&key)),
            Kind::Mesh => drop(self.meshes.remove(&key)),
            Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => drop(self.unsupported.remove(&key)),
        }
    }

    /// The objects held, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services
            .keys()
            .chain(self.slices.keys())
            .chain(self.pods.keys())
            .chain(self.routes.keys())
            .chain(self.authorizations.keys())
            .chain(self.traffic.keys())
            .chain(self.tls.keys())
            .chain(self.meshes.keys())
            .chain(self.unsupported.keys())
    }

    /// A service by namespace and name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&ObjectKey::new(Kind::Service, namespace, name))
    }

    /// A pod by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(&ObjectKey::new(Kind::Pod, namespace, name))
    }
}

#[cfg(test)]
mod tests;
