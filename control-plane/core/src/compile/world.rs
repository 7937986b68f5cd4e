//! Services, slices and pods joined: who stands behind each service port.
//!
//! Where it stands: after the mesh's settings, before everything else in *compile*.
//!
//! Invariant: slices say who stands behind a service; only a service with a selector and without any
//! slice is joined with pods here, which is how a folder does without slices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    config::{Endpoint, address_name},
    model::{
        Kind, Model, ObjectKey, Pod, Service, ServiceKind, ServicePort, Slice, SliceEndpoint, Transport,
    },
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

/// The joined facts.
pub(super) struct World<'a> {
    /// All facts.
    pub(super) model: &'a Model,
    trust_domain: String,
    pods_by_address: BTreeMap<IpAddr, Vec<&'a Pod>>,
    pods_by_namespace: BTreeMap<&'a str, Vec<&'a Pod>>,
    slices: BTreeMap<ObjectKey, Vec<&'a Slice>>,
    members: BTreeMap<(&'a ObjectKey, u16), Vec<Member<'a>>>,
}

impl<'a> World<'a> {
    /// Joins the facts.
    pub(super) fn new(model: &'a Model, trust_domain: &str) -> Self {
        let mut world = Self {
            model,
            trust_domain: trust_domain.to_owned(),
            pods_by_address: BTreeMap::new(),
            pods_by_namespace: BTreeMap::new(),
            slices: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        for pod in model.pods.values().filter(|pod| !pod.ended) {
            world.pods_by_namespace.entry(&pod.meta.key.namespace).or_default().push(pod);
            for address in &pod.addresses {
                world.pods_by_address.entry(*address).or_default().push(pod);
            }
        }
        for slice in model.slices.values().filter(|slice| !slice.service.is_empty()) {
            let service = ObjectKey::new(Kind::Service, &slice.meta.key.namespace, &slice.service);
            world.slices.entry(service).or_default().push(slice);
        }
        world.members = world
            .services()
            .flat_map(|service| service.tcp_ports().map(move |port| (service, port)))
            .map(|(service, port)| ((&service.meta.key, port.port), world.join(service, port)))
            .collect();
        world
    }

    /// Services that the mesh knows how to call.
    pub(super) fn services(&self) -> impl Iterator<Item = &'a Service> {
        self.model.services.values().filter(|service| service.kind != ServiceKind::ExternalName)
    }

    /// Who stands behind a service port, by address, each once.
    pub(super) fn members(&self, service: &'a Service, port: &ServicePort) -> &[Member<'a>] {
        self.members.get(&(&service.meta.key, port.port)).map_or(&[], Vec::as_slice)
    }

    fn join(&self, service: &Service, port: &ServicePort) -> Vec<Member<'a>> {
        let members = match self.slices.get(&service.meta.key) {
            Some(slices) => self.sliced(slices, port),
            None => self.selected(service, port),
        };
        let ready =
            |member: Member<'a>| Member { ready: member.ready || service.publish_not_ready, ..member };
        tidy(members.into_iter().map(ready).collect(), service)
    }

    /// Members that take traffic, as endpoints, by address. Those that end come in where no other does.
    /// Source: kube-proxy's rule for terminating endpoints (KEP-1669).
    pub(super) fn endpoints(&self, service: &'a Service, port: &ServicePort) -> Vec<Endpoint> {
        let members = self.members(service, port);
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

    fn sliced(&self, slices: &[&'a Slice], port: &ServicePort) -> Vec<Member<'a>> {
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

    fn pod_at(&self, address: IpAddr, port: u16) -> Option<&'a Pod> {
        let pods = self.pods_by_address.get(&address)?;
        let declares = pods.iter().find(|pod| pod.ports.iter().any(|declared| declared.port == port));
        match (declares, pods.as_slice()) {
            (Some(pod), _) => Some(*pod),
            (None, [only]) if !only.host_network => Some(*only),
            (None, _) => None,
        }
    }

    fn selected(&self, service: &Service, port: &ServicePort) -> Vec<Member<'a>> {
        let pods = self.pods_by_namespace.get(service.meta.key.namespace.as_str());
        let pods = pods.into_iter().flatten().filter(|pod| pod.selected_by(&service.selector));
        let member = |pod: &&'a Pod, address: &IpAddr, number: u16| Member {
            address: SocketAddr::new(*address, number),
            pod: Some(*pod),
            ready: pod.ready,
            leaving: false,
            zone: pod.zone.clone(),
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
