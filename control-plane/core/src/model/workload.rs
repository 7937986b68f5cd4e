//! Services, endpoint slices and pods as facts.
//!
//! Where it stands: what [`Model::apply`](super::Model::apply) keeps of them; *compile* makes
//! addresses, backends and inbound settings of these.
//!
//! Invariant: an address that does not parse is not kept: a fact holds only usable addresses.

use std::{collections::BTreeMap, net::IpAddr};

use super::Meta;
use crate::config::Probe;
use crate::inject::PortRange;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The object.
    pub meta: Meta,
    /// What kind of address it has.
    pub kind: ServiceKind,
    /// Its addresses; empty for headless services.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods; empty: endpoints are made by hand.
    pub selector: BTreeMap<String, String>,
    /// Endpoints count before they are ready.
    pub publish_not_ready: bool,
}

impl Service {
    /// "namespace/service".
    pub fn path(&self) -> String {
        self.meta.key.path()
    }

    /// "namespace/service:port".
    pub fn port_name(&self, port: u16) -> String {
        format!("{}/{}:{port}", self.meta.key.namespace, self.meta.key.name)
    }

    /// The TCP port of this number.
    pub fn port(&self, number: i32) -> Option<&ServicePort> {
        self.tcp_ports().find(|port| i32::from(port.port) == number)
    }

    /// The ports that carry TCP; the mesh leaves all others alone.
    pub fn tcp_ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.ports.iter().filter(|port| port.transport == Transport::Tcp)
    }
}

/// What kind of address a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// An address of its own (ClusterIP, NodePort, LoadBalancer).
    ClusterIp,
    /// None: its name means its pods.
    Headless,
    /// None: its name means another name.
    ExternalName,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty: none.
    pub name: String,
    /// Number.
    pub port: u16,
    /// Port of the pods.
    pub target: TargetPort,
    /// Declared protocol, as text.
    pub app_protocol: Option<String>,
    /// What the port carries.
    pub transport: Transport,
}

/// Port of the pods behind a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(String),
}

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP or SCTP: not the mesh's.
    Other,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The object.
    pub meta: Meta,
    /// The service it belongs to, in its own namespace; empty: none.
    pub service: String,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service's port; empty: none.
    pub name: String,
    /// Port of the endpoints.
    pub port: u16,
    /// What the port carries.
    pub transport: Transport,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes traffic.
    pub ready: bool,
    /// It ends, and still answers: it takes traffic while nobody else does.
    pub leaving: bool,
    /// Name of the pod it is, in the slice's namespace.
    pub pod: Option<String>,
    /// Zone; empty: unknown.
    pub zone: String,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The object.
    pub meta: Meta,
    /// What tells it from another pod of the same name; empty in a folder.
    pub uid: String,
    /// The node it runs on; empty: unknown, or none yet.
    pub node: String,
    /// Its addresses: of the status, else of the annotation `weft.dev/pod-ip`.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// Name of the workload that owns it; its own name when nothing does.
    pub owner: String,
    /// It takes traffic.
    pub ready: bool,
    /// It has ended and will not come back: its address is no longer its own.
    pub ended: bool,
    /// It has a sidecar.
    pub sidecar: bool,
    /// Zone by its own label; empty: that of its node.
    pub zone: String,
    /// What its annotation `weft.dev/inject` says.
    pub asks: Option<String>,
    /// It shares its node's address.
    pub host_network: bool,
    /// Its TCP ports by name and number, in order.
    pub ports: Vec<ContainerPort>,
    /// Ports whose bytes the mesh passes on as they are.
    pub opaque_ports: Vec<PortRange>,
    /// The probes that its containers declare, sorted.
    pub probes: Vec<Probe>,
    /// Addresses of its node.
    pub host_addresses: Vec<IpAddr>,
}

impl Pod {
    /// "namespace/pod".
    pub fn path(&self) -> String {
        self.meta.key.path()
    }

    /// Whether the pod has all these labels. No labels: no pod.
    pub fn selected_by(&self, selector: &BTreeMap<String, String>) -> bool {
        !selector.is_empty() && selector.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }

    /// Whether the mesh passes bytes to this port on as they are.
    pub fn opaque(&self, port: u16) -> bool {
        self.opaque_ports.iter().any(|range| range.holds(port))
    }

    /// The pod's port behind a service's port.
    pub fn target(&self, target: &TargetPort) -> Option<u16> {
        match target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => self.ports.iter().find(|port| port.name == *name).map(|port| port.port),
        }
    }
}

/// A TCP port that a container declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name of the port; empty: none.
    pub name: String,
    /// Number of the port.
    pub port: u16,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The object.
    pub meta: Meta,
    /// Zone; empty: unknown.
    pub zone: String,
    /// Where its kubelet's probes come from: its own addresses, and the first of each range that its pods'
    /// addresses are taken from, which a CNI with a bridge gives to the bridge.
    pub addresses: Vec<IpAddr>,
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The object.
    pub meta: Meta,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations that set defaults for the sidecars of its pods.
    pub annotations: BTreeMap<String, String>,
}

/// A pod with this annotation and the value "injected" has a sidecar. The injector sets it.
pub const SIDECAR_ANNOTATION: &str = "weft.dev/sidecar";
/// A pod with a container of this name has a sidecar.
pub const SIDECAR_CONTAINER: &str = "weft-proxy";
/// The address of a pod that has no status, in a folder.
pub(super) const POD_IP_ANNOTATION: &str = "weft.dev/pod-ip";
