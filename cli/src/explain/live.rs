//! Explaining by the sidecars themselves: the control plane asks that of the source, then those of the
//! destinations. And what was decided for a request that was.
//!
//! Invariant: a sidecar says what it holds and how its balancers stand; nothing is added here.

use anyhow::{Context as _, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use weft_proto::v1;
use weft_proto::v1::explain_request::Destination;
use weft_proto::v1::finding::Found;
use weft_proto::v1::question::What;

use super::report::{self, NotInForce, Outcome, Report, Side};
use super::words::{self, End, Kind};
use super::{ExplainArgs, question};
use crate::cluster::{self, ObjectLine};
use crate::observe::{Beside, Mesh};

/// Destinations whose inbound side is shown. Source: as in a folder.
const SHOWN: usize = 4;

/// Asks the mesh.
pub(super) async fn explain(args: &ExplainArgs) -> anyhow::Result<Report> {
    let words = words::read(&args.words)?;
    let mesh = args.mesh.open().await?;
    let namespace = args.mesh.namespace(&mesh, None);
    let subject = subject(&words.from, &namespace)?;
    let (destination, host, to) = destination(&mesh, &words.to, &subject.namespace).await?;
    let asked = v1::ExplainRequest { destination: Some(destination), ..question(args, &words, &host) };
    let request = line(&asked);
    let from = format!("{} {}/{}", subject.kind, subject.namespace, subject.name);
    let (workload, walk) = ask(&mesh, subject, asked).await?;
    let mut outcomes: Vec<Outcome> = walk.outcome.into_iter().map(report::outcome).collect();
    let nowhere: &report::Places<'_> = &|_, _| String::new();
    let steps = report::steps(walk.steps, nowhere);
    let mut sides = vec![Side { side: "outbound", workload, note: String::new(), steps }];
    let mut there = Vec::new();
    for onward in walk.onward.iter().take(SHOWN) {
        if let Some((side, outcome)) = inbound(&mesh, onward).await? {
            sides.push(side);
            there.push(outcome);
        }
    }
    if !there.is_empty() {
        report::taken(&mut outcomes, &walk.onward);
        outcomes.extend(there);
    }
    let not_in_force = match to.strip_prefix("service ") {
        Some(service) => not_in_force(&mesh, service).await,
        None => Vec::new(),
    };
    Ok(Report { request, from, to, sides, outcomes, not_in_force })
}

/// Objects that name a service port and are not in force, as the control plane's leader says; nothing where it
/// cannot be asked: the walk stands without.
async fn not_in_force(mesh: &Mesh, service_port: &str) -> Vec<NotInForce> {
    let Mesh::Cluster(client) = mesh else { return Vec::new() };
    let replicas = cluster::replicas(client, crate::install::NAMESPACE).await.unwrap_or_default();
    let pages = replicas.iter().filter_map(cluster::Replica::status);
    let service = service_port.rsplit_once(':').map_or(service_port, |(service, _)| service);
    pages.take(1).flat_map(|page| &page.objects).flat_map(|object| concerning(object, service)).collect()
}

/// What of an object is not in force at a service.
fn concerning(object: &ObjectLine, service: &str) -> Vec<NotInForce> {
    let means = |on: &str| {
        let name = on.strip_prefix("Service ").unwrap_or_default();
        let name = name.split(['#', ':']).next().unwrap_or_default();
        match name.contains('/') {
            true => name == service,
            false => format!("{}/{name}", object.namespace) == service,
        }
    };
    let problems = object.conditions.iter().filter(|it| it.status == "False" && means(&it.on));
    problems
        .map(|condition| NotInForce {
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            place: String::new(),
            condition: condition.r#type.clone(),
            message: condition.message.clone(),
        })
        .collect()
}

/// The inbound side of one destination.
async fn inbound(mesh: &Mesh, onward: &v1::WalkOnward) -> anyhow::Result<Option<(Side, Outcome)>> {
    let (Some(first), Some(sent)) = (onward.endpoints.first(), &onward.sent) else { return Ok(None) };
    if first.identity.is_empty() {
        return Ok(Some(report::without_sidecar(onward, first)));
    }
    let (namespace, pod) = first.workload.split_once('/').context("an endpoint without a workload")?;
    let subject = v1::Subject {
        kind: "pod".to_owned(),
        name: pod.to_owned(),
        namespace: namespace.to_owned(),
        also: Vec::new(),
    };
    let port = first.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
    let asked = v1::ExplainRequest { destination: Some(Destination::Port(port)), ..sent.clone() };
    let answered = ask(mesh, subject, asked).await;
    let (workload, walk) = match answered {
        Ok(answered) => answered,
        Err(error) => {
            let note = format!("{} cannot be asked: {error:#}", first.workload);
            let side = Side { side: "inbound", workload: String::new(), note, steps: Vec::new() };
            let why =
                format!("{}to {}, whose side is not known", report::part(onward), report::name_of(first));
            return Ok(Some((side, report::forwarded(why))));
        }
    };
    let note = report::others(onward);
    let steps = report::steps(walk.steps, &|_, _| String::new());
    let side = Side { side: "inbound", workload, note, steps };
    Ok(Some((side, report::arrived(walk.outcome.unwrap_or_default(), onward, first))))
}

/// The walk of one sidecar of a subject.
async fn ask(
    mesh: &Mesh,
    subject: v1::Subject,
    asked: v1::ExplainRequest,
) -> anyhow::Result<(String, v1::Walk)> {
    let who = format!("{}/{} in namespace {}", subject.kind, subject.name, subject.namespace);
    let question = v1::Question {
        namespace: subject.namespace.clone(),
        subject: Some(subject),
        relayed: false,
        what: Some(What::Explain(asked)),
    };
    let mut findings = mesh.ask(question).await?;
    let mut beside = Beside::default();
    while let Some(finding) = findings.next().await? {
        let workload = finding.workload;
        if let Some(Found::Walk(walk)) = finding.found.and_then(|found| beside.note(found)) {
            return Ok((workload, walk));
        }
    }
    match beside.silent.first() {
        Some(silent) => bail!("{}: {}", silent.who, silent.why),
        None if beside.asked.older > 0 => {
            bail!("the sidecar of {who} is too old to be asked: restart its pod")
        }
        None => bail!("no sidecar of {who} is connected: `weft status` shows those that are"),
    }
}

fn subject(end: &End, near: &str) -> anyhow::Result<v1::Subject> {
    let End::Object { kind, name, namespace, .. } = end else {
        bail!("a sidecar explains what its own application sends: name the source as deploy/NAME or pod/NAME")
    };
    let kind = match kind {
        Kind::Pod => "pod",
        Kind::Owner => "workload",
        Kind::Service => bail!("a Service sends nothing: name the source as deploy/NAME or pod/NAME"),
    };
    let namespace = namespace.clone().unwrap_or_else(|| near.to_owned());
    ensure!(!namespace.is_empty(), "in which namespace is {name}? Write {name}.<namespace>, or -n NAMESPACE");
    Ok(v1::Subject { kind: kind.to_owned(), name: name.clone(), namespace, also: Vec::new() })
}

/// Where it is to go, by which host, and what that is called.
async fn destination(mesh: &Mesh, end: &End, near: &str) -> anyhow::Result<(Destination, String, String)> {
    let (kind, name, namespace, port) = match end {
        End::Address(ip, Some(port)) => {
            let address = std::net::SocketAddr::new(*ip, *port).to_string();
            return Ok((Destination::Address(address.clone()), address.clone(), address));
        }
        End::Address(ip, None) => bail!("to which port of {ip}? Write {ip}:<port>"),
        End::Object { kind, name, namespace, port } => (*kind, name, namespace.as_deref(), port.as_deref()),
    };
    let of = namespace.unwrap_or(near);
    match (kind, mesh) {
        (Kind::Service, _) => {
            let port = match (port.and_then(|port| port.parse::<u16>().ok()), mesh) {
                (Some(port), _) => port,
                (None, Mesh::Cluster(client)) => service_port(client, of, name, port).await?,
                (None, Mesh::Direct(_)) => {
                    bail!("to which port of Service {of}/{name}? Write svc/{name}:<port>")
                }
            };
            let within = if of == near { String::new() } else { format!(".{of}") };
            let shown = if port == 80 { String::new() } else { format!(":{port}") };
            let target = format!("{of}/{name}:{port}");
            Ok((
                Destination::ServicePort(target.clone()),
                format!("{name}{within}{shown}"),
                format!("service {target}"),
            ))
        }
        (Kind::Pod, Mesh::Cluster(client)) => {
            let pods: Api<Pod> = Api::namespaced(client.clone(), of);
            let pod = pods.get(name).await.map_err(cluster::explain)?;
            let ip = pod.status.and_then(|status| status.pod_ip);
            let ip = ip.ok_or_else(|| anyhow!("pod {of}/{name} has no address yet"))?;
            let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
            let declared = containers.iter().flat_map(|container| container.ports.iter().flatten());
            let ports: Vec<(Option<String>, i32)> =
                declared.map(|port| (port.name.clone(), port.container_port)).collect();
            let number = chosen(&ports, port)
                .ok_or_else(|| anyhow!("to which port of pod {of}/{name}? Write :<port>"))?;
            let address = std::net::SocketAddr::new(ip.parse()?, number).to_string();
            Ok((
                Destination::Address(address.clone()),
                address.clone(),
                format!("pod {of}/{name} at {address}"),
            ))
        }
        _ => bail!("name the destination as svc/NAME, pod/NAME or <ip>:<port>"),
    }
}

async fn service_port(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    wanted: Option<&str>,
) -> anyhow::Result<u16> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get(name).await.map_err(cluster::explain)?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let ports: Vec<(Option<String>, i32)> = ports.into_iter().map(|port| (port.name, port.port)).collect();
    let shown: Vec<String> = ports.iter().map(|(_, port)| port.to_string()).collect();
    chosen(&ports, wanted)
        .ok_or_else(|| anyhow!("to which port of Service {namespace}/{name}? It has {}", shown.join(", ")))
}

/// The port that is meant: by its name, or the only one.
fn chosen(ports: &[(Option<String>, i32)], wanted: Option<&str>) -> Option<u16> {
    let found = match (wanted, ports) {
        (Some(wanted), _) => {
            let named = ports
                .iter()
                .find(|(name, port)| name.as_deref() == Some(wanted) || port.to_string() == wanted);
            return named.map_or_else(|| wanted.parse().ok(), |(_, port)| u16::try_from(*port).ok());
        }
        (None, [(_, only)]) => only,
        (None, _) => return None,
    };
    u16::try_from(*found).ok()
}

fn line(asked: &v1::ExplainRequest) -> String {
    match asked.spoken() {
        v1::ExplainSpoken::Bytes => "bytes".to_owned(),
        v1::ExplainSpoken::Tls => "TLS".to_owned(),
        _ => format!("{} {}", asked.method, asked.target),
    }
}

/// What was decided for a request that was: by each sidecar that remembers it.
pub(super) async fn recall(args: &ExplainArgs, id: &str) -> anyhow::Result<Vec<(String, v1::Decision)>> {
    let mesh = args.mesh.open().await?;
    let namespace = args.mesh.namespace(&mesh, None);
    let question = v1::Question {
        namespace: namespace.clone(),
        subject: None,
        relayed: false,
        what: Some(What::Recall(v1::RecallQuestion { request_id: id.to_owned() })),
    };
    let mut findings = mesh.ask(question).await?;
    let mut beside = Beside::default();
    let mut found = Vec::new();
    while let Some(finding) = findings.next().await? {
        let workload = finding.workload;
        if let Some(Found::Decisions(decisions)) = finding.found.and_then(|found| beside.note(found)) {
            found.extend(decisions.list.into_iter().map(|decision| (workload.clone(), decision)));
        }
    }
    found.sort_by_key(|(_, decision)| decision.at_micros);
    if found.is_empty() {
        let place =
            if namespace.is_empty() { "the mesh".to_owned() } else { format!("namespace {namespace}") };
        let mut said = beside.lines(&namespace);
        said.insert(0, format!(
            "no sidecar of {place} remembers the request {id}: what went well is remembered for some minutes, refusals \
             for longer; is it in another namespace (-n, -A)?"
        ));
        bail!("{}", said.join("\n"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ConditionLine;

    #[test]
    fn an_object_concerns_the_service_that_it_names_in_its_own_namespace_or_another() {
        let on = |on: &str, status: &str| ConditionLine {
            on: on.to_owned(),
            r#type: "Accepted".to_owned(),
            status: status.to_owned(),
            message: "no such port".to_owned(),
        };
        let object = ObjectLine {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: "r".to_owned(),
            conditions: vec![
                on("Service web:80", "False"),
                on("Service bank/web:80#http", "False"),
                on("Service other", "False"),
                on("Service web", "True"),
            ],
            ..ObjectLine::default()
        };
        for (service, found) in [("shop/web", 1), ("bank/web", 1), ("shop/nobody", 0)] {
            assert_eq!(concerning(&object, service).len(), found, "{service}");
        }
    }

    #[test]
    fn a_port_is_meant_by_its_name_its_number_or_by_being_the_only_one() {
        let ports = [(Some("http".to_owned()), 80), (None, 9000)];
        assert_eq!(chosen(&ports, Some("http")), Some(80));
        assert_eq!(chosen(&ports, Some("9000")), Some(9000));
        assert_eq!(chosen(&ports, None), None);
        assert_eq!(chosen(&ports[..1], None), Some(80));
        assert_eq!(chosen(&ports, Some("grpc")), None);
    }

    #[test]
    fn a_service_or_an_address_sends_nothing_that_a_sidecar_could_explain() {
        let end = |text: &str| words::read(&[text.to_owned(), "svc/a".to_owned()]).unwrap().from;
        let subject = |text: &str, near: &str| subject(&end(text), near);
        let known = subject("deploy/web", "shop").unwrap();
        assert_eq!(
            (known.kind.as_str(), known.name.as_str(), known.namespace.as_str()),
            ("workload", "web", "shop")
        );
        assert_eq!(subject("pod/web-0.bank", "shop").unwrap().namespace, "bank");
        for (text, near) in [("svc/web", "shop"), ("10.0.0.1", "shop"), ("deploy/web", "")] {
            assert!(subject(text, near).is_err(), "{text}");
        }
    }
}
