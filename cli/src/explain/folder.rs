//! Explaining from a folder of manifests: who is meant, the source's outbound side, then the inbound side of each
//! kind of destination.
//!
//! Invariant: what a sidecar would hold is made as its control plane would make it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{anyhow, bail};
use weft_control_plane_core::config::{Endpoint, Key, ResourceType};
use weft_control_plane_core::model::{Pod, Service, ServiceKind};
use weft_control_plane_core::report::Subject;
use weft_k8s::TargetKind;
use weft_proto::v1;
use weft_proto::v1::explain_request::Destination;
use weft_proxy::explain::answer;
use weft_proxy_core::explain::Imagined;

use super::report::{self, NotInForce, Outcome, Report, Side};
use super::words::{self, End, Kind, Words};
use super::{ExplainArgs, question};
use crate::folder::Folder;

/// Destinations whose inbound side is shown. Source: ours; a page stays readable.
const SHOWN: usize = 4;

/// Explains.
pub(super) fn explain(args: &ExplainArgs, root: &Path) -> anyhow::Result<Report> {
    let folder = Folder::open(root)?;
    let words = words::read(&args.words)?;
    Asking::new(&folder, args, &words)?.report()
}

/// Where a request is to go.
enum Target<'a> {
    /// A service's port.
    Service(&'a Service, u16),
    /// A pod's port, by its address.
    Pod(&'a Pod, SocketAddr),
    /// An address.
    Address(SocketAddr),
}

struct Asking<'a> {
    folder: &'a Folder,
    args: &'a ExplainArgs,
    source: Option<&'a Pod>,
    from: IpAddr,
    target: Target<'a>,
    question: v1::ExplainRequest,
}

impl<'a> Asking<'a> {
    fn new(folder: &'a Folder, args: &'a ExplainArgs, words: &'a Words) -> anyhow::Result<Self> {
        let (source, from) = source(folder, &words.from)?;
        let near = source.map(|pod| pod.meta.key.namespace.as_str());
        let target = target(folder, &words.to, near)?;
        let host = match &target {
            Target::Service(service, port) => {
                let key = &service.meta.key;
                let of =
                    if near == Some(&key.namespace) { String::new() } else { format!(".{}", key.namespace) };
                let port = if *port == 80 { String::new() } else { format!(":{port}") };
                format!("{}{of}{port}", key.name)
            }
            Target::Pod(_, address) | Target::Address(address) => address.to_string(),
        };
        let question = question(args, words, &host);
        Ok(Self { folder, args, source, from, target, question })
    }

    fn report(self) -> anyhow::Result<Report> {
        let meshed = self.source.filter(|pod| pod.sidecar);
        let mut sides = Vec::new();
        let (mut outcomes, onward) = match meshed {
            Some(pod) => {
                let walk = self.outbound(pod)?;
                let (note, workload) = (String::new(), pod.path());
                let steps = report::steps(walk.steps, &|origin, field| self.place(origin, field));
                sides.push(Side { side: "outbound", workload, note, steps });
                (walk.outcome.map(report::outcome).into_iter().collect(), walk.onward)
            }
            None => {
                let note =
                    "the source has no sidecar: Kubernetes chooses an endpoint, nothing else is decided";
                let (workload, steps) = (String::new(), Vec::new());
                sides.push(Side { side: "outbound", workload, note: note.to_owned(), steps });
                (Vec::new(), self.plain_onward())
            }
        };
        let there = self.inbound(meshed.is_some(), &onward, &mut sides)?;
        if !there.is_empty() {
            report::taken(&mut outcomes, &onward);
            outcomes.extend(there);
        }
        Ok(Report {
            request: self.line(),
            from: self.name_of_source(),
            to: self.to_name(),
            sides,
            outcomes,
            not_in_force: self.not_in_force(),
        })
    }

    fn line(&self) -> String {
        match v1::ExplainSpoken::try_from(self.question.spoken) {
            Ok(v1::ExplainSpoken::Bytes) => "bytes".to_owned(),
            Ok(v1::ExplainSpoken::Tls) => "TLS".to_owned(),
            _ => format!("{} {}", self.question.method, self.question.target),
        }
    }

    fn name_of_source(&self) -> String {
        match self.source {
            Some(pod) => format!("pod {}", pod.path()),
            None => self.from.to_string(),
        }
    }

    fn to_name(&self) -> String {
        match &self.target {
            Target::Service(service, port) => format!("service {}", service.port_name(*port)),
            Target::Pod(pod, address) => format!("pod {} at {address}", pod.path()),
            Target::Address(address) => address.to_string(),
        }
    }

    fn place(&self, origin: &v1::Origin, field: &str) -> String {
        let found = self.folder.field(&origin.kind, &origin.namespace, &origin.name, field);
        found.map(|position| position.to_string()).unwrap_or_default()
    }

    fn outbound(&self, pod: &Pod) -> anyhow::Result<v1::Walk> {
        let (destination, key) = match &self.target {
            Target::Service(service, port) => match service.cluster_ips.first() {
                Some(ip) => by_address(SocketAddr::new(*ip, *port)),
                None => {
                    let name = service.port_name(*port);
                    (Destination::ServicePort(name.clone()), Key::new(ResourceType::Outbound, name))
                }
            },
            Target::Pod(_, address) | Target::Address(address) => by_address(*address),
        };
        let snapshot = self.folder.snapshot(&pod.path(), &[key])?;
        let asked = v1::ExplainRequest { destination: Some(destination), ..self.question.clone() };
        answer(&asked, &snapshot, &self.imagined()?).map_err(|problem| anyhow!(problem))
    }

    /// What is imagined to have failed.
    fn imagined(&self) -> anyhow::Result<Imagined> {
        let mut failing = Vec::new();
        for text in &self.args.failing {
            if let Ok(address) = text.parse() {
                failing.push(address);
                continue;
            }
            let (name, namespace) =
                text.split_once('.').map_or((text.as_str(), None), |(name, of)| (name, Some(of)));
            let meant = |pod: &&Pod| {
                let key = &pod.meta.key;
                (key.name == name || belongs(pod, name)) && namespace.is_none_or(|of| of == key.namespace)
            };
            let pods: BTreeSet<String> = self.folder.model.pods().filter(meant).map(Pod::path).collect();
            let config = &self.folder.compiled.config;
            let backends = config.resources.keys().filter_map(|key| config.backend(&key.name));
            let endpoints = backends.flat_map(|backend| &backend.endpoints);
            let known = endpoints.filter(|endpoint| pods.contains(&endpoint.workload));
            let before = failing.len();
            failing.extend(known.filter_map(|endpoint| endpoint.address.parse::<SocketAddr>().ok()));
            anyhow::ensure!(failing.len() > before, "--failing {text}: no endpoint is called so");
        }
        Ok(Imagined { failing })
    }

    /// Where a request goes that no sidecar sends.
    fn plain_onward(&self) -> Vec<v1::WalkOnward> {
        let endpoint = |endpoint: &Endpoint| v1::WalkEndpoint {
            address: endpoint.address.clone(),
            workload: endpoint.workload.clone(),
            identity: endpoint.identity.clone(),
            zone: endpoint.zone.clone(),
        };
        let config = &self.folder.compiled.config;
        let endpoints: Vec<v1::WalkEndpoint> = match &self.target {
            Target::Service(service, port) => {
                let backend = config.backend(&service.port_name(*port));
                backend.into_iter().flat_map(|backend| &backend.endpoints).map(endpoint).collect()
            }
            Target::Pod(_, address) | Target::Address(address) => match config.address(*address) {
                weft_control_plane_core::config::Address::Workload(it) => vec![endpoint(&it)],
                _ => Vec::new(),
            },
        };
        let sent = v1::ExplainRequest { side: v1::ExplainSide::Inbound.into(), ..self.question.clone() };
        vec![v1::WalkOnward { backend: String::new(), weight: 1, of: 1, endpoints, sent: Some(sent) }]
    }

    /// The inbound sides of where it may go: of each backend one endpoint.
    fn inbound(
        &self,
        meshed: bool,
        onward: &[v1::WalkOnward],
        sides: &mut Vec<Side>,
    ) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for onward in onward.iter().take(SHOWN) {
            let Some(first) = onward.endpoints.first() else { continue };
            let Some(sent) = &onward.sent else { continue };
            if first.identity.is_empty() {
                let (side, outcome) = report::without_sidecar(onward, first);
                sides.push(side);
                outcomes.push(outcome);
                continue;
            }
            let walk = self.inbound_of(meshed, first, sent)?;
            let steps = report::steps(walk.steps, &|origin, field| self.place(origin, field));
            sides.push(Side {
                side: "inbound",
                workload: first.workload.clone(),
                note: report::others(onward),
                steps,
            });
            outcomes.push(report::arrived(walk.outcome.unwrap_or_default(), onward, first));
        }
        Ok(outcomes)
    }

    fn inbound_of(
        &self,
        meshed: bool,
        endpoint: &v1::WalkEndpoint,
        sent: &v1::ExplainRequest,
    ) -> anyhow::Result<v1::Walk> {
        let address: SocketAddr = endpoint.address.parse()?;
        let snapshot = self.folder.snapshot(&endpoint.workload, &[])?;
        let asked = v1::ExplainRequest {
            destination: Some(Destination::Port(address.port().into())),
            peer_identity: if meshed { sent.peer_identity.clone() } else { String::new() },
            peer_address: self.from.to_string(),
            ..sent.clone()
        };
        answer(&asked, &snapshot, &Imagined::default()).map_err(|problem| anyhow!(problem))
    }

    /// Objects that name the destination and are not in force as they are written.
    fn not_in_force(&self) -> Vec<NotInForce> {
        let mut found = Vec::new();
        for (key, object) in &self.folder.compiled.report.objects {
            for verdict in &object.verdicts {
                let problems = verdict.conditions.iter().filter(|condition| condition.is_problem());
                if !self.concerns(&key.namespace, &verdict.subject) {
                    continue;
                }
                found.extend(problems.map(|condition| NotInForce {
                    kind: key.kind.to_string(),
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    place: self.folder.place(key),
                    condition: format!("{}/{}", condition.kind.as_str(), condition.reason.as_str()),
                    message: condition.message.clone(),
                }));
            }
        }
        found.dedup();
        found
    }

    /// Whether an object of a namespace that attaches to something is meant for the destination.
    fn concerns(&self, namespace: &str, subject: &Subject) -> bool {
        let (service, pod) = match &self.target {
            Target::Service(service, _) => (Some(&service.meta.key), None),
            Target::Pod(pod, _) => (None, Some(*pod)),
            Target::Address(_) => (None, None),
        };
        let own = service.or(pod.map(|pod| &pod.meta.key)).map(|key| key.namespace.as_str());
        match subject {
            Subject::Object => own == Some(namespace) || namespace.is_empty(),
            Subject::Parent(parent) => service.is_some_and(|key| {
                parent.name == key.name && parent.namespace.as_deref().unwrap_or(namespace) == key.namespace
            }),
            Subject::Target(target) => match target.kind {
                TargetKind::Mesh => true,
                _ if own != Some(namespace) => false,
                TargetKind::Namespace => true,
                TargetKind::Service => service.is_some_and(|key| target.name.as_ref() == Some(&key.name)),
                TargetKind::Workload => pod.is_some_and(|pod| pod.selected_by(&target.selector)),
            },
        }
    }
}

fn by_address(address: SocketAddr) -> (Destination, Key) {
    let name = weft_control_plane_core::config::address_name(address);
    (Destination::Address(name.clone()), Key::new(ResourceType::Address, name))
}

fn source<'a>(folder: &'a Folder, end: &End) -> anyhow::Result<(Option<&'a Pod>, IpAddr)> {
    let pod = match end {
        End::Address(ip, _) => {
            let pod = folder.model.pods().find(|pod| !pod.ended && pod.addresses.contains(ip));
            return Ok((pod, *ip));
        }
        End::Object { kind, name, namespace, .. } => pod(folder, *kind, name, namespace.as_deref())?,
    };
    let nowhere = || {
        anyhow!("pod {} has no address: write one (status.podIP, or annotation weft.dev/pod-ip)", pod.path())
    };
    Ok((Some(pod), *pod.addresses.first().ok_or_else(nowhere)?))
}

fn target<'a>(folder: &'a Folder, end: &End, near: Option<&str>) -> anyhow::Result<Target<'a>> {
    let (kind, name, namespace, port) = match end {
        End::Address(ip, Some(port)) => return Ok(Target::Address(SocketAddr::new(*ip, *port))),
        End::Address(ip, None) => bail!("to which port of {ip}? Write {ip}:<port>"),
        End::Object { kind, name, namespace, port } => (*kind, name, namespace.as_deref(), port.as_deref()),
    };
    if kind == Kind::Service {
        let service = service(folder, name, namespace, near)?;
        if service.kind == ServiceKind::ExternalName {
            bail!("Service {} is an ExternalName, which the mesh leaves alone", service.path());
        }
        return Ok(Target::Service(service, service_port(service, port)?));
    }
    let pod = pod(folder, kind, name, namespace)?;
    let declared = pod.ports.first().map(|port| port.port);
    let number = match port {
        None => {
            declared.ok_or_else(|| anyhow!("to which port of {}? Write :<port> behind it", pod.path()))?
        }
        Some(text) => {
            let named = pod.ports.iter().find(|port| port.name == text).map(|port| port.port);
            named.or(text.parse().ok()).ok_or_else(|| anyhow!("{} has no port {text:?}", pod.path()))?
        }
    };
    let ip = pod.addresses.first().ok_or_else(|| anyhow!("pod {} has no address", pod.path()))?;
    Ok(Target::Pod(pod, SocketAddr::new(*ip, number)))
}

fn service_port(service: &Service, wanted: Option<&str>) -> anyhow::Result<u16> {
    let ports: Vec<_> = service.tcp_ports().collect();
    let shown = || {
        let shown: Vec<String> = ports.iter().map(|port| port.port.to_string()).collect();
        shown.join(", ")
    };
    match (wanted, ports.as_slice()) {
        (None, [only]) => Ok(only.port),
        (None, []) => bail!("Service {} has no TCP port", service.path()),
        (None, _) => bail!("to which port of {}? It has {}", service.path(), shown()),
        (Some(text), _) => {
            let found = ports.iter().find(|port| port.name == text || port.port.to_string() == text);
            Ok(found
                .ok_or_else(|| anyhow!("{} has no port {text}; it has {}", service.path(), shown()))?
                .port)
        }
    }
}

fn service<'a>(
    folder: &'a Folder,
    name: &str,
    namespace: Option<&str>,
    near: Option<&str>,
) -> anyhow::Result<&'a Service> {
    let keys = folder.of_kind(weft_control_plane_core::Kind::Service).filter(|key| key.name == name);
    let all: Vec<&'a Service> =
        keys.filter_map(|key| folder.model.service(&key.namespace, &key.name)).collect();
    let of = |wanted: &str| all.iter().find(|service| service.meta.key.namespace == wanted).copied();
    let found = match (namespace, all.as_slice()) {
        (Some(wanted), _) => of(wanted),
        (None, [only]) => Some(*only),
        (None, []) => None,
        (None, _) => match near.and_then(of) {
            Some(found) => Some(found),
            None => bail!("Service {name} is in several namespaces: write svc/{name}.<namespace>"),
        },
    };
    found.ok_or_else(|| {
        let within = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        anyhow!("there is no Service {name}{within} in these manifests")
    })
}

/// Whether a pod is of a workload. In a folder nothing owns a pod: there its label says whose it is.
fn belongs(pod: &Pod, workload: &str) -> bool {
    let labels = ["app", "app.kubernetes.io/name"].iter();
    pod.owner == workload || labels.filter_map(|label| pod.labels.get(*label)).any(|label| label == workload)
}

/// The first pod that is meant, one with a sidecar before others.
fn pod<'a>(folder: &'a Folder, kind: Kind, name: &str, namespace: Option<&str>) -> anyhow::Result<&'a Pod> {
    let behind = match kind {
        Kind::Service => Some(service(folder, name, namespace, None)?),
        Kind::Pod | Kind::Owner => None,
    };
    let meant = |pod: &&Pod| {
        let key = &pod.meta.key;
        !pod.ended
            && namespace.is_none_or(|namespace| namespace == key.namespace)
            && match (kind, behind) {
                (Kind::Service, Some(service)) => {
                    service.meta.key.namespace == key.namespace && pod.selected_by(&service.selector)
                }
                (Kind::Owner, _) => belongs(pod, name),
                _ => key.name == name,
            }
    };
    let mut all: Vec<&'a Pod> = folder.model.pods().filter(meant).collect();
    all.sort_by_key(|pod| (pod.owner != name, !pod.sidecar, !pod.ready));
    let namespaces: BTreeSet<&str> = all.iter().map(|pod| pod.meta.key.namespace.as_str()).collect();
    anyhow::ensure!(
        namespaces.len() < 2,
        "{name} is in several namespaces ({}): write {name}.<namespace>",
        namespaces.into_iter().collect::<Vec<_>>().join(", ")
    );
    all.first().copied().ok_or_else(|| anyhow!("no pod in these manifests is meant by {name:?}"))
}
