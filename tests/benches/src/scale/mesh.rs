//! The mesh that is simulated: services with slices of endpoints, pods, and who subscribes to what.
//! Before this: nothing. After it: `plane` makes a model of it, `fleet` its sidecars.
//!
//! Invariant: a function of the size alone; both processes see the same mesh.

use serde_json::{Value, json};

/// Endpoints of each service. Source: the issue, 10,000 endpoints of 1,000 services.
pub(crate) const ENDPOINTS: usize = 10;
/// Services that each sidecar subscribes to. Source: the issue.
pub(crate) const SUBSCRIPTIONS: usize = 20;
/// Namespace of all pods: their sidecars share one certificate.
pub(crate) const NAMESPACE: &str = "scale";
/// Service account of all pods.
pub(crate) const ACCOUNT: &str = "sidecar";

/// Its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mesh {
    /// Services.
    pub(crate) services: usize,
    /// Pods with a connected sidecar; the first ones.
    pub(crate) sidecars: usize,
}

impl Mesh {
    /// Every object, as the API server has them.
    pub(crate) fn documents(self) -> impl Iterator<Item = Value> {
        let services = (0..self.services).flat_map(|number| [service(number), slice(number, true, false)]);
        services.chain((0..self.services * ENDPOINTS).map(pod))
    }

    /// The services that a sidecar subscribes to.
    pub(crate) fn subscriptions(self, sidecar: usize) -> impl Iterator<Item = usize> {
        let many = SUBSCRIPTIONS.min(self.services);
        let step = (self.services / many).max(1);
        (0..many).map(move |place| (sidecar + place * step) % self.services)
    }

    /// The sidecars that subscribe to a service.
    pub(crate) fn subscribers(self, service: usize) -> impl Iterator<Item = usize> {
        (0..self.sidecars).filter(move |sidecar| self.subscriptions(*sidecar).any(|one| one == service))
    }
}

/// Name of a sidecar's workload.
pub(crate) fn workload(sidecar: usize) -> String {
    format!("{NAMESPACE}/{}", pod_name(sidecar))
}

/// Name of a service's port.
pub(crate) fn service_port(number: usize) -> String {
    format!("{NAMESPACE}/service-{number:04}:80")
}

/// The slice of a service: with its first endpoint ready or not, from first to last or the other way round.
pub(crate) fn slice(number: usize, ready: bool, backwards: bool) -> Value {
    let endpoint = |place: usize| {
        let pod = number * ENDPOINTS + place;
        json!({
            "addresses": [address(10, pod)],
            "conditions": {"ready": ready || place > 0},
            "targetRef": {"kind": "Pod", "name": pod_name(pod), "namespace": NAMESPACE},
            "zone": format!("zone-{}", pod % 3),
        })
    };
    let mut endpoints: Vec<Value> = (0..ENDPOINTS).map(endpoint).collect();
    if backwards {
        endpoints.reverse();
    }
    let name = format!("service-{number:04}");
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-x"), "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints,
    })
}

fn service(number: usize) -> Value {
    let name = format!("service-{number:04}");
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "clusterIP": address(11, number), "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
        },
    })
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(number), "namespace": NAMESPACE,
            "labels": {"app": format!("service-{:04}", number / ENDPOINTS), "pod-template-hash": "5d4f7c9b8"},
            "annotations": {"weft.dev/sidecar": "injected"},
        },
        "spec": {
            "serviceAccountName": ACCOUNT,
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": address(10, number)}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn pod_name(number: usize) -> String {
    format!("service-{:04}-5d4f7c9b8-{:05}", number / ENDPOINTS, number)
}

fn address(first: u8, number: usize) -> String {
    format!("{first}.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sidecar_subscribes_to_twenty_services_and_all_services_are_as_popular() {
        let mesh = Mesh { services: 1000, sidecars: 5000 };
        let distinct: std::collections::BTreeSet<usize> = mesh.subscriptions(4321).collect();
        assert_eq!(distinct.len(), SUBSCRIPTIONS);
        assert_eq!((mesh.subscribers(0).count(), mesh.subscribers(999).count()), (100, 100));
        assert_eq!(Mesh { services: 100, sidecars: 500 }.subscribers(7).count(), 100);
    }
}
