//! One fact of any kind, for whoever compares models or follows what a fact refers to.
//!
//! Where it stands: between the model and the compiler, which asks what an object was and what it is.
//!
//! Invariant: a fact is found under exactly the key that the model lists it by.

use std::collections::BTreeMap;

use weft_k8s::{AuthorizationPolicySpec, MeshSpec, TelemetryPolicySpec, TlsPolicySpec, TrafficPolicySpec};

use super::{Kind, Meta, Model, Namespace, Node, ObjectKey, Pod, Policy, Route, Service, Slice};

/// One fact of any kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fact<'a> {
    /// A service.
    Service(&'a Service),
    /// A slice of endpoints.
    Slice(&'a Slice),
    /// A pod.
    Pod(&'a Pod),
    /// A route.
    Route(&'a Route),
    /// Who may call.
    Authorization(&'a Policy<AuthorizationPolicySpec>),
    /// How a service is called.
    Traffic(&'a Policy<TrafficPolicySpec>),
    /// Who must come with mTLS.
    Tls(&'a Policy<TlsPolicySpec>),
    /// What is told about requests.
    Telemetry(&'a Policy<TelemetryPolicySpec>),
    /// The mesh's settings.
    Mesh(&'a Policy<MeshSpec>),
    /// An object of a kind that is refused.
    Unsupported(&'a Meta),
    /// A node.
    Node(&'a Node),
    /// A namespace.
    Namespace(&'a Namespace),
}

impl Model {
    /// What is known of an object.
    pub(crate) fn fact(&self, key: &ObjectKey) -> Option<Fact<'_>> {
        match key.kind {
            Kind::Service => self.services.get(key).map(Fact::Service),
            Kind::EndpointSlice => self.slices.get(key).map(Fact::Slice),
            Kind::Pod => self.pods.get(key).map(Fact::Pod),
            Kind::HttpRoute | Kind::GrpcRoute => self.routes.get(key).map(Fact::Route),
            Kind::AuthorizationPolicy => self.authorizations.get(key).map(Fact::Authorization),
            Kind::TrafficPolicy => self.traffic.get(key).map(Fact::Traffic),
            Kind::TlsPolicy => self.tls.get(key).map(Fact::Tls),
            Kind::TelemetryPolicy => self.telemetry.get(key).map(Fact::Telemetry),
            Kind::Mesh => self.meshes.get(key).map(Fact::Mesh),
            Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
                self.unsupported.get(key).map(Fact::Unsupported)
            }
            Kind::Node => self.nodes.get(key).map(Fact::Node),
            Kind::Namespace => self.namespaces.get(key).map(Fact::Namespace),
        }
    }

    /// How many objects there are of each kind, without a walk over those that are many.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::from([
            (Kind::Service, self.services.len()),
            (Kind::EndpointSlice, self.slices.len()),
            (Kind::Pod, self.pods.len()),
            (Kind::AuthorizationPolicy, self.authorizations.len()),
            (Kind::TrafficPolicy, self.traffic.len()),
            (Kind::TlsPolicy, self.tls.len()),
            (Kind::TelemetryPolicy, self.telemetry.len()),
            (Kind::Mesh, self.meshes.len()),
            (Kind::Node, self.nodes.len()),
            (Kind::Namespace, self.namespaces.len()),
        ]);
        for key in self.routes.keys().chain(self.unsupported.keys()) {
            *counts.entry(key.kind).or_default() += 1;
        }
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// Moves what another model knows of an object here.
    pub(crate) fn take(&mut self, key: &ObjectKey, other: &mut Self) {
        match key.kind {
            Kind::Service => shift(&mut self.services, &mut other.services, key),
            Kind::EndpointSlice => shift(&mut self.slices, &mut other.slices, key),
            Kind::Pod => shift(&mut self.pods, &mut other.pods, key),
            Kind::HttpRoute | Kind::GrpcRoute => shift(&mut self.routes, &mut other.routes, key),
            Kind::AuthorizationPolicy => shift(&mut self.authorizations, &mut other.authorizations, key),
            Kind::TrafficPolicy => shift(&mut self.traffic, &mut other.traffic, key),
            Kind::TlsPolicy => shift(&mut self.tls, &mut other.tls, key),
            Kind::TelemetryPolicy => shift(&mut self.telemetry, &mut other.telemetry, key),
            Kind::Mesh => shift(&mut self.meshes, &mut other.meshes, key),
            Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
                shift(&mut self.unsupported, &mut other.unsupported, key);
            }
            Kind::Node => shift(&mut self.nodes, &mut other.nodes, key),
            Kind::Namespace => shift(&mut self.namespaces, &mut other.namespaces, key),
        }
    }
}

fn shift<T>(to: &mut BTreeMap<ObjectKey, T>, from: &mut BTreeMap<ObjectKey, T>, key: &ObjectKey) {
    to.extend(from.remove_entry(key));
}
