//! Services, slices and pods joined: who stands behind each service port.
//!
//! Where it stands: after the mesh's settings, below everything else in *compile*.
//!
//! Invariant: slices say who stands behind a service; only a service with a selector and without any
//! slice is joined with pods here, which is how a folder does without slices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    index::{Index, first_label},
    protocol,
};
use crate::{
    config::{Endpoint, Protocol, address_name},
    model::{Model, ObjectKey, Pod, Service, ServiceKind, ServicePort, Slice, SliceEndpoint, Transport},
};

/// One endpoint of a service port, ready or not.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member<'a> {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The pod it is, if one is known.
    pub(super) pod: Option<&'a Pod>,
    /// Whether it takes traffic.
    pub(super) ready: bool,
    /// Whether it takes traffic while nobody is ready.
    leaving: bool,
    zone: String,
}

/// The facts, joined where somebody asks.
pub(super) struct World<'a> {
    /// All facts.
    pub(super) model: &'a Model,
    /// What leads from one to another.
    pub(super) index: &'a Index,
    trust_domain: Arc<str>,
}

impl<'a> World<'a> {
    /// The facts with what leads from one to another.
    pub(super) fn new(model: &'a Model, index: &'a Index, trust_domain: Arc<str>) -> Self {
        Self { model, index, trust_domain }
    }

    /// A service, if the mesh knows how to call it.
    pub(super) fn callable(&self, key: &ObjectKey) -> Option<&'a Service> {
        self.model.services.get(key).filter(|service| service.kind != ServiceKind::ExternalName)
    }

    /// Who stands behind a service port, by address, each once.
    pub(super) fn members(&self, service: &Service, port: &ServicePort) -> Vec<Member<'a>> {
        let members = match self.index.slices_by_service.get(&service.meta.key) {
            Some(slices) => self.sliced(slices.iter().filter_map(|slice| self.model.slices.get(slice)), port),
            None => self.selected(service, port),
        };
        let ready =
            |member: Member<'a>| Member { ready: member.ready || service.publish_not_ready, ..member };
        tidy(members.into_iter().map(ready).collect(), service)
    }

    /// What a service port speaks: opaque where a pod of the service says so, for its sidecar reads no
    /// HTTP there; else as declared. Asks the selector, not the slices: an annotation holds before its pod
    /// is ready, and a pod that comes and goes does not change how its service is called.
    pub(super) fn declared(&self, service: &Service, port: &ServicePort) -> Protocol {
        let says_opaque = |pod: &Pod| {
            !pod.opaque_ports.is_empty() && pod.target(&port.target).is_some_and(|port| pod.opaque(port))
        };
        if self.selected_pods(service).any(says_opaque) { Protocol::Opaque } else { protocol::declared(port) }
    }

    /// Members that take traffic, as endpoints, by address. Those that end come in where no other does.
    /// Source: kube-proxy's rule for terminating endpoints (KEP-1669).
    pub(super) fn endpoints(&self, members: &[Member<'a>]) -> Vec<Endpoint> {
        let none_ready = !members.iter().any(|member| member.ready);
        let members = members.iter().filter(|member| member.ready || (none_ready && member.leaving));
        members
            .map(|member| Endpoint {
                address: address_name(member.address),
                workload: member.pod.map(Pod::path).unwrap_or_default(),
                identity: member.pod.map(|pod| self.identity(pod)).unwrap_or_default(),
                zone: member.zone.clone(),
                weight: 1,
            })
            .collect()
    }

    /// The identity of a pod that has a sidecar; empty: it has none.
    pub(super) fn identity(&self, pod: &Pod) -> String {
        if !pod.sidecar {
            return String::new();
        }
        let (namespace, account) = (&pod.meta.key.namespace, &pod.service_account);
        format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain)
    }

    fn sliced(&self, slices: impl Iterator<Item = &'a Slice>, port: &ServicePort) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        for slice in slices {
            let ports = slice.ports.iter().filter(|of_slice| of_slice.name == port.name);
            for number in ports.filter(|port| port.transport == Transport::Tcp).map(|port| port.port) {
                members.extend(slice.endpoints.iter().map(|endpoint| self.member(slice, endpoint, number)));
            }
        }
        members
    }

    fn member(&self, slice: &Slice, endpoint: &SliceEndpoint, port: u16) -> Member<'a> {
        let named = endpoint.pod.as_ref().and_then(|name| self.model.pod(&slice.meta.key.namespace, name));
        Member {
            address: SocketAddr::new(endpoint.address, port),
            pod: named.or_else(|| self.pod_at(endpoint.address, port)),
            ready: endpoint.ready,
            leaving: endpoint.leaving,
            zone: endpoint.zone.clone(),
        }
    }

    /// Pods that have an address and have not ended.
    pub(super) fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &'a Pod> {
        let pods = self.index.pods_by_address.get(&address).into_iter().flatten();
        pods.filter_map(|pod| self.model.pods.get(pod)).filter(|pod| !pod.ended)
    }

    fn pod_at(&self, address: IpAddr, port: u16) -> Option<&'a Pod> {
        let declares = |pod: &&Pod| pod.ports.iter().any(|declared| declared.port == port);
        self.pods_at(address).find(declares).or_else(|| {
            let mut pods = self.pods_at(address);
            let only = pods.next().filter(|pod| !pod.host_network);
            only.filter(|_| pods.next().is_none())
        })
    }

    fn selected_pods<'s>(&self, service: &'s Service) -> impl Iterator<Item = &'a Pod> + use<'a, 's> {
        let (model, index) = (self.model, self.index);
        let pods = first_label(service).filter_map(|label| index.pods_by_label.get(&label)).flatten();
        let pods = pods.filter_map(|pod| model.pods.get(pod));
        pods.filter(|pod| !pod.ended && pod.selected_by(&service.selector))
    }

    fn selected(&self, service: &Service, port: &ServicePort) -> Vec<Member<'a>> {
        let pods = self.selected_pods(service);
        let member = |pod: &'a Pod, address: &IpAddr, number: u16| Member {
            address: SocketAddr::new(*address, number),
            pod: Some(pod),
            ready: pod.ready,
            leaving: false,
            zone: self.model.zone(pod).to_owned(),
        };
        pods.filter_map(|pod| Some((pod, pod.target(&port.target)?)))
            .flat_map(|(pod, number)| pod.addresses.iter().map(move |address| member(pod, address, number)))
            .collect()
    }
}

/// Sorted by address, each once; a pod with addresses of both families only with that of the service.
fn tidy<'a>(members: Vec<Member<'a>>, service: &Service) -> Vec<Member<'a>> {
    let primary_is_v4 = service.cluster_ips.first().is_none_or(IpAddr::is_ipv4);
    let primary = |member: &Member<'_>| member.address.is_ipv4() == primary_is_v4;
    let covered: BTreeSet<&ObjectKey> = members
        .iter()
        .filter(|member| primary(member))
        .filter_map(|member| Some(&member.pod?.meta.key))
        .collect();
    let mut by_address: BTreeMap<SocketAddr, Member<'a>> = BTreeMap::new();
    for member in &members {
        if !primary(member) && member.pod.is_some_and(|pod| covered.contains(&pod.meta.key)) {
            continue;
        }
        let entry = by_address.entry(member.address).or_insert_with(|| member.clone());
        entry.ready |= member.ready;
        entry.leaving |= member.leaving;
        entry.pod = entry.pod.or(member.pod);
    }
    by_address.into_values().collect()
}
