//! Questions to a config: what a name means to one client, and what a resource refers to.
//!
//! Where it stands: *publish* and the session ask these; so does whoever explains.
//!
//! Invariant: answers depend on the config and the client's namespace only.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Address, Backend, Config, Endpoint, Key, Outbound, PodAddress, Resource, ResourceType, address_name,
};

impl Config {
    /// The variant of a resource that clients in a namespace see: their own, else the general one.
    pub fn resolve(
        &self,
        kind: ResourceType,
        name: &str,
        client_namespace: &str,
    ) -> Option<(&Key, &Resource)> {
        self.resources
            .get_key_value(&Key::scoped(kind, name, client_namespace))
            .or_else(|| self.resources.get_key_value(&Key::new(kind, name)))
    }

    /// How clients in a namespace call a service port.
    pub fn outbound(&self, name: &str, client_namespace: &str) -> Option<&Outbound> {
        match self.resolve(ResourceType::Outbound, name, client_namespace)?.1 {
            Resource::Outbound(outbound) => Some(outbound),
            _ => None,
        }
    }

    /// The endpoints behind a service port.
    pub fn backend(&self, name: &str) -> Option<&Backend> {
        match self.resources.get(&Key::new(ResourceType::Backend, name))? {
            Resource::Backend(backend) => Some(backend),
            _ => None,
        }
    }

    /// What an original destination means: a service's port, a pod, or nothing known.
    pub fn address(&self, address: SocketAddr) -> Address {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match self.resources.get(&Key::new(ResourceType::Address, address_name(address))) {
            Some(Resource::Address(known)) => known.clone(),
            _ => {
                let pods = self.pods.get(&address.ip()).map_or(&[][..], Vec::as_slice);
                pod_at(pods, address).map_or(Address::Unknown, Address::Workload)
            }
        }
    }

    /// What a resource refers to directly, without scopes: an Address its Outbound; an Outbound its
    /// Backends; a Backend its fallback; an Inbound its Authorizations. Sorted, each once.
    pub fn references(&self, key: &Key) -> Vec<Key> {
        self.resources.get(key).map(references).unwrap_or_default()
    }
}

/// Which of the pods at an address is meant by a port: the one that declares it, else the only one there.
pub(crate) fn pod_at(pods: &[PodAddress], address: SocketAddr) -> Option<Endpoint> {
    let declares = pods.iter().find(|pod| pod.ports.contains(&address.port()));
    let pod = match (declares, pods) {
        (Some(pod), _) => pod,
        (None, [only]) if !only.shared => only,
        (None, _) => return None,
    };
    Some(Endpoint { address: address_name(address), ..pod.endpoint.clone() })
}

/// What one resource refers to directly. Sorted, each once.
pub fn references(resource: &Resource) -> Vec<Key> {
    let keys: BTreeSet<Key> = match resource {
        Resource::Address(Address::Outbound(name)) => [Key::new(ResourceType::Outbound, name)].into(),
        Resource::Outbound(outbound) => outbound_backends(outbound)
            .filter(|name| !name.is_empty())
            .map(|name| Key::new(ResourceType::Backend, name))
            .collect(),
        Resource::Backend(backend) => backend
            .policy
            .iter()
            .filter(|policy| !policy.fallback.is_empty())
            .map(|policy| Key::new(ResourceType::Backend, &policy.fallback))
            .collect(),
        Resource::Inbound(inbound) => {
            inbound.authorizations.iter().map(|name| Key::new(ResourceType::Authorization, name)).collect()
        }
        Resource::Mesh(_) | Resource::Trust(_) | Resource::Address(_) | Resource::Authorization(_) => {
            BTreeSet::new()
        }
    };
    keys.into_iter().collect()
}

fn outbound_backends(outbound: &Outbound) -> impl Iterator<Item = &str> {
    let rules = outbound.routes.iter().flat_map(|route| &route.rules);
    let routed = rules.flat_map(|rule| &rule.backends).map(|backend| backend.backend.as_str());
    std::iter::once(outbound.default_backend.as_str()).chain(routed)
}
