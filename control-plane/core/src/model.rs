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
mod probe;
mod read;
mod route;
mod workload;

use std::{collections::BTreeMap, sync::Arc};

use weft_k8s::{AuthorizationPolicySpec, MeshSpec, TelemetryPolicySpec, TlsPolicySpec, TrafficPolicySpec};

pub(crate) use self::fact::Fact;
pub use self::{
    object::{Kind, Object, ObjectKey},
    read::{Read, ReadError, read, unknown_fields},
    route::{
        BackendRef, FilterFact, GrpcMethod, HeaderChange, HeaderField, MatchFact, MethodFact, ParentRef,
        PathChange, RedirectFact, RewriteFact, Route, RuleFact, TimeoutsFact, TypedValue, ValueFact,
    },
    workload::{
        ContainerPort, Namespace, Node, Pod, SIDECAR_ANNOTATION, SIDECAR_CONTAINER, Service, ServiceKind,
        ServicePort, Slice, SliceEndpoint, SlicePort, TargetPort, Transport,
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
    /// What tells the object from an earlier one of its name; absent in a folder.
    pub uid: Option<String>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub(crate) root_namespace: String,
    pub(crate) services: BTreeMap<ObjectKey, Service>,
    pub(crate) slices: BTreeMap<ObjectKey, Slice>,
    pub(crate) pods: BTreeMap<ObjectKey, Pod>,
    pub(crate) routes: BTreeMap<ObjectKey, Route>,
    pub(crate) authorizations: BTreeMap<ObjectKey, Policy<AuthorizationPolicySpec>>,
    pub(crate) traffic: BTreeMap<ObjectKey, Policy<TrafficPolicySpec>>,
    pub(crate) tls: BTreeMap<ObjectKey, Policy<TlsPolicySpec>>,
    pub(crate) telemetry: BTreeMap<ObjectKey, Policy<TelemetryPolicySpec>>,
    pub(crate) meshes: BTreeMap<ObjectKey, Policy<MeshSpec>>,
    pub(crate) unsupported: BTreeMap<ObjectKey, Meta>,
    pub(crate) nodes: BTreeMap<ObjectKey, Node>,
    pub(crate) namespaces: BTreeMap<ObjectKey, Namespace>,
}

/// The namespace whose policies may be for the whole mesh. Source: the installation's default, as
/// istio-system is Istio's; otherwise whoever may write to any namespace could rule all.
const ROOT_NAMESPACE: &str = "weft-system";

impl Default for Model {
    fn default() -> Self {
        Self::ruled_from(ROOT_NAMESPACE)
    }
}

impl Model {
    /// No facts, of a mesh that is ruled from a namespace: only its policies may be for the whole mesh.
    pub fn ruled_from(namespace: &str) -> Self {
        Self {
            root_namespace: namespace.to_owned(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            pods: BTreeMap::new(),
            routes: BTreeMap::new(),
            authorizations: BTreeMap::new(),
            traffic: BTreeMap::new(),
            tls: BTreeMap::new(),
            telemetry: BTreeMap::new(),
            meshes: BTreeMap::new(),
            unsupported: BTreeMap::new(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// Takes an object in, in place of an earlier one of the same kind, namespace and name. Whether
    /// that changed a fact: most events of a cluster do not.
    pub fn apply(&mut self, object: Object, position: Option<Position>) -> bool {
        let meta = object.meta(position);
        let at = meta.key.clone();
        match object {
            Object::Service(service) => put(&mut self.services, at, lower::service(meta, &service)),
            Object::EndpointSlice(slice) => put(&mut self.slices, at, lower::slice(meta, &slice)),
            Object::Pod(pod) => put(&mut self.pods, at, lower::pod(meta, &pod)),
            Object::HttpRoute(route) => put(&mut self.routes, at, Route::http(meta, &route)),
            Object::GrpcRoute(route) => put(&mut self.routes, at, Route::grpc(meta, &route)),
            Object::AuthorizationPolicy(object) => {
                put(&mut self.authorizations, at, Policy { meta, spec: object.spec })
            }
            Object::TrafficPolicy(object) => put(&mut self.traffic, at, Policy { meta, spec: object.spec }),
            Object::TelemetryPolicy(object) => {
                put(&mut self.telemetry, at, Policy { meta, spec: object.spec })
            }
            Object::TlsPolicy(object) => put(&mut self.tls, at, Policy { meta, spec: object.spec }),
            Object::Mesh(mesh) => put(&mut self.meshes, at, Policy { meta, spec: mesh.spec }),
            Object::Unsupported(_) => put(&mut self.unsupported, at, meta),
            Object::Node(node) => put(&mut self.nodes, at, lower::node(meta, &node)),
            Object::Namespace(object) => put(&mut self.namespaces, at, lower::namespace(meta, *object)),
        }
    }

    /// Forgets an object; an unknown one is no error. Whether it was there.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) -> bool {
        let key = ObjectKey::new(kind, namespace, name);
        match kind {
            Kind::Service => self.services.remove(&key).is_some(),
            Kind::EndpointSlice => self.slices.remove(&key).is_some(),
            Kind::Pod => self.pods.remove(&key).is_some(),
            Kind::HttpRoute | Kind::GrpcRoute => self.routes.remove(&key).is_some(),
            Kind::AuthorizationPolicy => self.authorizations.remove(&key).is_some(),
            Kind::TrafficPolicy => self.traffic.remove(&key).is_some(),
            Kind::TlsPolicy => self.tls.remove(&key).is_some(),
            Kind::TelemetryPolicy => self.telemetry.remove(&key).is_some(),
            Kind::Mesh => self.meshes.remove(&key).is_some(),
            Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => self.unsupported.remove(&key).is_some(),
            Kind::Node => self.nodes.remove(&key).is_some(),
            Kind::Namespace => self.namespaces.remove(&key).is_some(),
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
            .chain(self.telemetry.keys())
            .chain(self.meshes.keys())
            .chain(self.unsupported.keys())
            .chain(self.nodes.keys())
            .chain(self.namespaces.keys())
    }

    /// A service by namespace and name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&ObjectKey::new(Kind::Service, namespace, name))
    }

    /// A pod by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(&ObjectKey::new(Kind::Pod, namespace, name))
    }

    /// All pods, in order.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&ObjectKey::new(Kind::Node, "", name))
    }

    /// A namespace by name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(&ObjectKey::new(Kind::Namespace, "", name))
    }

    /// The zone of a pod: its own label's, else its node's; empty: unknown.
    pub fn zone<'a>(&'a self, pod: &'a Pod) -> &'a str {
        match pod.zone.as_str() {
            "" => self.node(&pod.node).map_or("", |node| &node.zone),
            zone => zone,
        }
    }
}

/// Puts a fact in its place; whether that changed anything.
fn put<F: PartialEq>(facts: &mut BTreeMap<ObjectKey, F>, at: ObjectKey, fact: F) -> bool {
    let changed = facts.get(&at) != Some(&fact);
    if changed {
        facts.insert(at, fact);
    }
    changed
}

#[cfg(test)]
mod tests;
