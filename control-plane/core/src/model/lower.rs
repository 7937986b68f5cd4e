//! Kubernetes' Service, EndpointSlice and Pod → facts.
//!
//! Where it stands: inside [`Model::apply`](super::Model::apply), once per event.
//!
//! Invariant: no object makes this fail; a part that makes no sense (a port 0, an address that is no
//! address) is left out.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    ContainerPort, Meta, Namespace, Node, Pod, Service, ServiceKind, ServicePort, Slice, SliceEndpoint,
    SlicePort, TargetPort, Transport, probe,
    workload::{POD_IP_ANNOTATION, SIDECAR_ANNOTATION, SIDECAR_CONTAINER},
};
use crate::inject;

/// The facts of a Service.
pub(super) fn service(meta: Meta, object: &core::Service) -> Service {
    let spec = object.spec.clone().unwrap_or_default();
    let mut texts = spec.cluster_ips.unwrap_or_default();
    if texts.is_empty() {
        texts.extend(spec.cluster_ip);
    }
    let kind = match spec.type_.as_deref() {
        Some("ExternalName") => ServiceKind::ExternalName,
        _ if texts.iter().any(|text| text == "None") => ServiceKind::Headless,
        _ => ServiceKind::ClusterIp,
    };
    Service {
        meta,
        kind,
        cluster_ips: addresses(&texts),
        ports: spec.ports.iter().flatten().filter_map(service_port).collect(),
        selector: spec.selector.unwrap_or_default(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
    }
}

fn service_port(port: &core::ServicePort) -> Option<ServicePort> {
    let number = port_number(port.port)?;
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(port_number(*target)?),
        Some(IntOrString::String(name)) => name
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .map_or(TargetPort::Name(name.clone()), TargetPort::Number),
    };
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        port: number,
        target,
        app_protocol: port.app_protocol.clone(),
        transport: transport(port.protocol.as_deref()),
    })
}

/// The facts of an EndpointSlice.
pub(super) fn slice(meta: Meta, object: &discovery::EndpointSlice) -> Slice {
    let service = object.metadata.labels.iter().flatten().find(|(name, _)| *name == SLICE_SERVICE_LABEL);
    Slice {
        meta,
        service: service.map(|(_, name)| name.clone()).unwrap_or_default(),
        ports: object.ports.iter().flatten().filter_map(slice_port).collect(),
        endpoints: object.endpoints.iter().filter_map(slice_endpoint).collect(),
    }
}

fn slice_port(port: &discovery::EndpointPort) -> Option<SlicePort> {
    Some(SlicePort {
        name: port.name.clone().unwrap_or_default(),
        port: port_number(port.port?)?,
        transport: transport(port.protocol.as_deref()),
    })
}

/// Of an endpoint's addresses only the first counts. Source: EndpointSlice's own documentation.
fn slice_endpoint(endpoint: &discovery::Endpoint) -> Option<SliceEndpoint> {
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let conditions = endpoint.conditions.as_ref();
    Some(SliceEndpoint {
        address: addresses(endpoint.addresses.get(..1)?).first().copied()?,
        ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
        leaving: conditions.is_some_and(|conditions| {
            conditions.terminating == Some(true) && conditions.serving == Some(true)
        }),
        pod: pod.and_then(|target| target.name.clone()),
        zone: endpoint.zone.clone().unwrap_or_default(),
    })
}

/// The facts of a Pod.
pub(super) fn pod(meta: Meta, object: &core::Pod) -> Pod {
    let annotations = object.metadata.annotations.clone().unwrap_or_default();
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let spec = object.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    let ended = phase(object).is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
    Pod {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        addresses: pod_addresses(object, &annotations),
        owner: owner(object, &labels).unwrap_or_else(|| meta.key.name.clone()),
        meta,
        service_account: account.unwrap_or_else(|| "default".to_owned()),
        ready: !ended && object.metadata.deletion_timestamp.is_none() && reported_ready(object),
        ended,
        sidecar: has_sidecar(object, &annotations),
        probes: probe::probes(containers(object)),
        host_addresses: host_addresses(object),
        zone: labels.get(ZONE_LABEL).cloned().unwrap_or_default(),
        asks: annotations.get(inject::INJECT).cloned(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
        ports: containers(object)
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(port)
            .collect(),
        // A value that makes no sense is refused where the pod gets its sidecar.
        opaque_ports: annotations
            .get(inject::OPAQUE_PORTS)
            .and_then(|text| inject::ports(text).ok())
            .unwrap_or_default(),
        labels,
    }
}

/// The facts of a Node. Names and load balancers' addresses are not its own.
pub(super) fn node(meta: Meta, object: &core::Node) -> Node {
    let own = |address: &&core::NodeAddress| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP");
    let status = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut texts: Vec<String> = status.filter(own).map(|address| address.address.clone()).collect();
    let spec = object.spec.iter();
    texts.extend(
        spec.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr))
            .filter_map(|range| first_of(range)),
    );
    let labels = object.metadata.labels.as_ref();
    Node {
        meta,
        zone: labels.and_then(|labels| labels.get(ZONE_LABEL)).cloned().unwrap_or_default(),
        addresses: addresses(&texts),
    }
}

/// The first address of a range, behind the one that names the range.
fn first_of(range: &str) -> Option<String> {
    let (base, _) = range.split_once('/')?;
    Some(match base.parse().ok()? {
        IpAddr::V4(base) => IpAddr::from(u32::from(base).checked_add(1)?.to_be_bytes()).to_string(),
        IpAddr::V6(base) => IpAddr::from(u128::from(base).checked_add(1)?.to_be_bytes()).to_string(),
    })
}

/// The facts of a Namespace.
pub(super) fn namespace(meta: Meta, object: core::Namespace) -> Namespace {
    let ours = |name: &String| name.starts_with(inject::PREFIX);
    let annotations = object.metadata.annotations.into_iter().flatten().filter(|(name, _)| ours(name));
    Namespace { meta, labels: object.metadata.labels.unwrap_or_default(), annotations: annotations.collect() }
}

fn phase(object: &core::Pod) -> Option<&str> {
    object.status.as_ref()?.phase.as_deref()
}

/// Ready unless the status says otherwise: pods of a folder have no status.
fn reported_ready(object: &core::Pod) -> bool {
    let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").all(|condition| condition.status == "True")
}

fn pod_addresses(object: &core::Pod, annotations: &BTreeMap<String, String>) -> Vec<IpAddr> {
    let status = object.status.as_ref();
    let mut texts: Vec<String> = status.and_then(|status| status.pod_ip.clone()).into_iter().collect();
    texts.extend(status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| ip.ip.clone()));
    if texts.is_empty() {
        texts.extend(annotations.get(POD_IP_ANNOTATION).cloned());
    }
    addresses(&texts)
}

/// The addresses of the pod's node, as the pod's own status has them.
fn host_addresses(object: &core::Pod) -> Vec<IpAddr> {
    let status = object.status.as_ref();
    let mut texts: Vec<String> = status.and_then(|status| status.host_ip.clone()).into_iter().collect();
    texts.extend(
        status.iter().flat_map(|status| status.host_ips.iter().flatten()).map(|host| host.ip.clone()),
    );
    addresses(&texts)
}

fn has_sidecar(object: &core::Pod, annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(SIDECAR_ANNOTATION).is_some_and(|value| value == "injected")
        || containers(object).any(|container| container.name == SIDECAR_CONTAINER)
}

fn containers(object: &core::Pod) -> impl Iterator<Item = &core::Container> {
    let spec = object.spec.as_ref();
    let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    spec.into_iter().flat_map(|spec| &spec.containers).chain(init)
}

fn port(port: &core::ContainerPort) -> Option<ContainerPort> {
    let tcp = transport(port.protocol.as_deref()) == Transport::Tcp;
    let number = port_number(port.container_port).filter(|_| tcp)?;
    Some(ContainerPort { name: port.name.clone().unwrap_or_default(), port: number })
}

/// Name of the controlling owner. A ReplicaSet that a Deployment made is named after it and the hash
/// that its pods carry as a label.
fn owner(object: &core::Pod, labels: &BTreeMap<String, String>) -> Option<String> {
    let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first())?;
    let hash = labels.get("pod-template-hash").filter(|_| owner.kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(deployment.unwrap_or(&owner.name).to_owned())
}

/// Parsed, in canonical form, each once, in order.
fn addresses(texts: &[String]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
        let address = address.to_canonical();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

pub(super) fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn transport(protocol: Option<&str>) -> Transport {
    match protocol {
        None | Some("" | "TCP") => Transport::Tcp,
        Some(_) => Transport::Other,
    }
}

/// Names the zone. Source: Kubernetes' well-known labels.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Names the Service of a slice. Source: EndpointSlice's own documentation.
const SLICE_SERVICE_LABEL: &str = "kubernetes.io/service-name";
