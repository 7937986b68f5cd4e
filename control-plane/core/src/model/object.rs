//! The kinds of object that the model takes, as Kubernetes types them.
//!
//! Where it stands: the argument of [`Model::apply`](super::Model::apply).
//!
//! Invariant: a closed list. What is not here is not Weft's and never reaches the model.

use gateway_api::experimental::{grpcroutes::GrpcRoute, httproutes::HttpRoute};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use weft_k8s::{AuthorizationPolicy, Mesh, TelemetryPolicy, TlsPolicy, TrafficPolicy};

use super::{Meta, Position};

/// Kinds of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Kubernetes Service.
    Service,
    /// Kubernetes EndpointSlice.
    EndpointSlice,
    /// Kubernetes Pod.
    Pod,
    /// Gateway API HTTPRoute.
    HttpRoute,
    /// Gateway API GRPCRoute.
    GrpcRoute,
    /// Gateway API TLSRoute: known, and refused until it is supported.
    TlsRoute,
    /// Gateway API TCPRoute: known, and refused until it is supported.
    TcpRoute,
    /// Gateway API UDPRoute: known, and refused until it is supported.
    UdpRoute,
    /// Weft's AuthorizationPolicy.
    AuthorizationPolicy,
    /// Weft's TrafficPolicy.
    TrafficPolicy,
    /// Weft's TlsPolicy.
    TlsPolicy,
    /// Weft's TelemetryPolicy.
    TelemetryPolicy,
    /// Weft's Mesh; it has no namespace.
    Mesh,
    /// Kubernetes Node; it has no namespace.
    Node,
    /// Kubernetes Namespace; it is in none.
    Namespace,
}

impl Kind {
    /// The name that users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::TlsPolicy => "TlsPolicy",
            Self::TelemetryPolicy => "TelemetryPolicy",
            Self::Mesh => "Mesh",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
        }
    }

    /// Whether objects of this kind are in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Mesh | Self::Node | Self::Namespace)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace; empty where the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object; the namespace is dropped where the kind has none.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// "namespace/name", the name on the wire.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Kubernetes Service.
    Service(Box<Service>),
    /// Kubernetes EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// Kubernetes Pod.
    Pod(Box<Pod>),
    /// Gateway API HTTPRoute.
    HttpRoute(Box<HttpRoute>),
    /// Gateway API GRPCRoute.
    GrpcRoute(Box<GrpcRoute>),
    /// Weft's AuthorizationPolicy.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// Weft's TrafficPolicy.
    TrafficPolicy(Box<TrafficPolicy>),
    /// Weft's TlsPolicy.
    TlsPolicy(Box<TlsPolicy>),
    /// Weft's TelemetryPolicy.
    TelemetryPolicy(Box<TelemetryPolicy>),
    /// Weft's Mesh.
    Mesh(Box<Mesh>),
    /// Kubernetes Node.
    Node(Box<Node>),
    /// Kubernetes Namespace.
    Namespace(Box<Namespace>),
    /// A kind that is known and not supported yet; the report refuses it by name.
    Unsupported(ObjectKey),
}

impl Object {
    /// The object's name. Without a namespace it is in "default", as kubectl has it.
    pub fn key(&self) -> ObjectKey {
        match self.split() {
            Err(key) => key.clone(),
            Ok((kind, metadata)) => ObjectKey::new(
                kind,
                metadata.namespace.as_deref().unwrap_or("default"),
                metadata.name.as_deref().unwrap_or_default(),
            ),
        }
    }

    /// What the fact keeps of the object itself.
    pub(super) fn meta(&self, position: Option<Position>) -> Meta {
        let metadata = self.split().ok().map(|(_, metadata)| metadata);
        Meta {
            key: self.key(),
            created: metadata.and_then(|m| m.creation_timestamp.as_ref()).map(|time| time.0.as_second()),
            generation: metadata.and_then(|m| m.generation),
            uid: metadata.and_then(|m| m.uid.clone()),
            position,
        }
    }

    fn split(&self) -> Result<(Kind, &ObjectMeta), &ObjectKey> {
        Ok(match self {
            Self::Service(object) => (Kind::Service, &object.metadata),
            Self::EndpointSlice(object) => (Kind::EndpointSlice, &object.metadata),
            Self::Pod(object) => (Kind::Pod, &object.metadata),
            Self::HttpRoute(object) => (Kind::HttpRoute, &object.metadata),
            Self::GrpcRoute(object) => (Kind::GrpcRoute, &object.metadata),
            Self::AuthorizationPolicy(object) => (Kind::AuthorizationPolicy, &object.metadata),
            Self::TrafficPolicy(object) => (Kind::TrafficPolicy, &object.metadata),
            Self::TlsPolicy(object) => (Kind::TlsPolicy, &object.metadata),
            Self::TelemetryPolicy(object) => (Kind::TelemetryPolicy, &object.metadata),
            Self::Mesh(object) => (Kind::Mesh, &object.metadata),
            Self::Node(object) => (Kind::Node, &object.metadata),
            Self::Namespace(object) => (Kind::Namespace, &object.metadata),
            Self::Unsupported(key) => return Err(key),
        })
    }
}
