//! The inbound walk of a request that nobody sent: identify, detect, head, authorize, connect.
//!
//! Invariant: what decides is asked, in the order of the spine `proxy/app/src/inbound.rs`.

use std::net::{IpAddr, Ipv4Addr};

use super::policies::{self, Judged, rule_field};
use super::{
    By, Caller, Mark, Outcome, Request, Room, Spoken, Step, Walk, detected, protocol_name, record, sound,
};
use crate::authorize::{Asked, Denial, Peer, Verdict, judged};
use crate::head::Head;
use crate::inbound::Inbound;
use crate::names::Name;
use crate::probe::Sent;
use crate::reason::Reason;
use crate::snapshot::Snapshot;
use crate::spec::{MutualTls, Protocol, ProtocolBy};

/// The walk of a request to this sidecar's application.
#[must_use]
pub fn inbound(snapshot: &Snapshot, caller: &Caller, request: &Request) -> Walk {
    let mut steps = Vec::new();
    let outcome = match &snapshot.inbound {
        Some(inbound) => Asking { inbound, caller, request, peer: peer(caller) }.walk(&mut steps),
        None => {
            let why = "this workload's own configuration has not arrived: nothing passes";
            steps.push(Step::new(Room::Accept, Mark::Ends, format!("port {}", caller.port), why));
            let refused = Outcome::refused(request, Reason::ConfigTimeout, why);
            Outcome { end: super::End::Reset, status: None, grpc: None, ..refused }
        }
    };
    steps.extend(record::step(snapshot));
    Walk {
        workload: snapshot.inbound.as_ref().map(|inbound| inbound.workload.clone()),
        generation: snapshot.generation,
        steps,
        outcome,
        onward: Vec::new(),
    }
}

/// A peer whose address is not known has none that a block could hold.
fn peer(caller: &Caller) -> Peer {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Peer { identity: caller.identity.clone(), address: caller.address.unwrap_or(nowhere) }
}

struct Asking<'a> {
    inbound: &'a Inbound,
    caller: &'a Caller,
    request: &'a Request,
    peer: Peer,
}

impl Asking<'_> {
    fn walk(&self, steps: &mut Vec<Step>) -> Outcome {
        steps.push(self.port());
        steps.push(self.identify());
        let (declared, taken) = self.taken();
        steps.push(detected(declared, taken, self.protocol_by()));
        let passed = match taken {
            Spoken::Http1 | Spoken::Http2 => self.http(steps),
            Spoken::Tls | Spoken::Bytes => self.bytes(steps),
        };
        if let Err(refused) = passed {
            return refused;
        }
        steps.push(self.connect());
        Outcome::forward(format!("to the application on port {}", self.caller.port))
    }

    fn port(&self) -> Step {
        let serves = self.inbound.service_ports(self.caller.port);
        let why = match serves {
            [] => "no Service leads here".to_owned(),
            serves => format!("serves {}", super::text::any_of(serves.iter().map(Name::as_str))),
        };
        let by = By::named("Pod", self.inbound.workload.as_str(), "");
        Step::fact(Room::Accept, format!("port {}", self.caller.port), why).by(by)
    }

    fn identify(&self) -> Step {
        let mode = self.inbound.mutual_tls(self.caller.port);
        let demands = match mode {
            MutualTls::Strict => "mutual TLS is demanded",
            MutualTls::Permissive => "plaintext is accepted too",
        };
        match &self.peer.identity {
            Some(identity) => {
                let why = format!("proven by mutual TLS; {demands}");
                Step::new(Room::Identify, Mark::Holds, identity.as_str(), why).by(self.tls_by())
            }
            None => {
                let mark = if mode == MutualTls::Strict { Mark::Ends } else { Mark::Fact };
                Step::new(Room::Identify, mark, "plaintext", demands).by(self.tls_by())
            }
        }
    }

    fn tls_by(&self) -> By {
        let own = self.inbound.ports.get(&self.caller.port).is_some_and(|port| port.own_mutual_tls);
        match self.inbound.mutual_tls_by.as_ref().map(Name::as_str) {
            None => By::default_value(),
            Some(by) => match by.strip_prefix("mesh/") {
                Some(mesh) if !own => By::object("Mesh", "", mesh, "spec.mutualTls"),
                _ if own => By::named("TlsPolicy", by, format!("spec.ports[port={}].mode", self.caller.port)),
                _ => By::named("TlsPolicy", by, "spec.mode"),
            },
        }
    }

    /// What the port declares, and what the connection is taken for. What a proven sidecar sends is what its
    /// handshake says.
    fn taken(&self) -> (Protocol, Spoken) {
        let declared = self.inbound.protocol(self.caller.port);
        match &self.peer.identity {
            Some(_) => (declared, self.request.spoken),
            None => (declared, self.request.taken_for(declared)),
        }
    }

    fn protocol_by(&self) -> By {
        let port = self.inbound.ports.get(&self.caller.port);
        let service = self.inbound.service_ports(self.caller.port).first();
        let service = service.and_then(|name| name.as_str().rsplit_once(':'));
        let pod = || By::named("Pod", self.inbound.workload.as_str(), "annotation weft.dev/opaque-ports");
        match (port.map(|port| port.protocol_by), service) {
            (Some(ProtocolBy::AppProtocol), Some((service, number))) => {
                By::named("Service", service, format!("spec.ports[port={number}].appProtocol"))
            }
            (Some(ProtocolBy::Route), Some((service, number))) => {
                By::named("Service", service, format!("spec.ports[port={number}], by the kind of its routes"))
            }
            (Some(ProtocolBy::OpaquePorts), _) => pod(),
            _ => By::default(),
        }
    }

    fn http(&self, steps: &mut Vec<Step>) -> Result<(), Outcome> {
        let request = self.request;
        if !request.is_http() {
            let why = "the port is declared HTTP, and what is sent is none";
            steps.push(Step::new(Room::Detect, Mark::Ends, "what is sent", why));
            return Err(Outcome::refused(request, Reason::MalformedRequest, why));
        }
        let uri = sound(request).map_err(|(reason, why)| {
            steps.push(Step::new(Room::Authorize, Mark::Ends, request.line(), why.clone()));
            Outcome::refused(request, reason, why)
        })?;
        let head = request.head(uri);
        if let Some(probe) = self.inbound.probe(&self.peer, self.caller.port, Sent::Request(&head)) {
            let why =
                format!("it is the kubelet's probe ({}), which passes whatever policies say", probe.name());
            steps.push(Step::new(Room::Authorize, Mark::Holds, request.line(), why));
            return Ok(());
        }
        let verdict = self.inbound.authorize_request(&self.peer, self.caller.port, &head);
        let shadow = self.inbound.shadow_request(&self.peer, self.caller.port, &head);
        steps.push(self.authorize(Some(&head), &verdict));
        steps.extend(shadow.map(|shadow| in_shadow(&shadow)));
        self.passed(verdict)
    }

    fn bytes(&self, steps: &mut Vec<Step>) -> Result<(), Outcome> {
        let verdict = self.inbound.authorize_connection(&self.peer, self.caller.port);
        let shadow = self.inbound.shadow_connection(&self.peer, self.caller.port);
        steps.push(self.authorize(None, &verdict));
        steps.extend(shadow.map(|shadow| in_shadow(&shadow)));
        self.passed(verdict)
    }

    fn passed(&self, verdict: Verdict) -> Result<(), Outcome> {
        match verdict {
            Verdict::Allowed { .. } => Ok(()),
            Verdict::Denied { by } => Err(Outcome::refused(self.request, by.reason(), by.to_string())),
        }
    }

    fn authorize(&self, head: Option<&Head<'_>>, verdict: &Verdict) -> Step {
        let all = self.inbound.shadow.as_ref().unwrap_or(&self.inbound.enforced);
        let path = head.map(|head| judged(head, all.on_paths.as_ref()));
        let asked = match (head, &path) {
            (Some(head), Some(Ok(path))) => Asked::Request(head.method, path),
            (Some(head), _) => Asked::Request(head.method, head.path),
            (None, _) => Asked::Bytes,
        };
        let judged = Judged { peer: &self.peer, port: self.caller.port, asked };
        let what = match head {
            Some(_) => self.request.line(),
            None => "a connection of bytes".to_owned(),
        };
        let (mark, why, by) = reading(verdict, self.tls_by());
        // What denies before any rule is asked.
        let unasked = matches!(
            verdict,
            Verdict::Denied { by: Denial::MutualTlsRequired(_) | Denial::AmbiguousPath(_) }
        );
        let steps = if unasked { Vec::new() } else { policies::steps(all, judged) };
        Step::new(Room::Authorize, mark, what, why).by(by).of(steps)
    }

    fn connect(&self) -> Step {
        let spoken = match (self.request.is_http(), self.inbound.protocol(self.caller.port)) {
            (true, protocol @ (Protocol::Http1 | Protocol::Http2)) => {
                format!("over {}, which the port is declared to speak", protocol_name(protocol))
            }
            (true, _) => "as the caller speaks".to_owned(),
            (false, _) => "byte for byte".to_owned(),
        };
        Step::new(Room::Connect, Mark::Holds, format!("the application on port {}", self.caller.port), spoken)
    }
}

/// A verdict in words, with what decided.
fn reading(verdict: &Verdict, tls: By) -> (Mark, String, By) {
    let policy = |name: &str, field: String| By::named("AuthorizationPolicy", name, field);
    match verdict {
        Verdict::Allowed { by: None } => {
            (Mark::Holds, "no Allow policy is in force: nobody needs leave".to_owned(), By::default_value())
        }
        Verdict::Allowed { by: Some(rule) } => {
            let field = rule_field(&rule.rule);
            (Mark::Holds, format!("allowed by {rule}"), policy(rule.policy.as_str(), field))
        }
        Verdict::Denied { by } => {
            let place = match by {
                Denial::Rule(rule) => policy(rule.policy.as_str(), rule_field(&rule.rule)),
                Denial::NoRuleAllows(policies) => policy(first(&policies.policy), "spec.rules".to_owned()),
                Denial::PolicyMissing(name) => policy(name.as_str(), String::new()),
                Denial::AmbiguousPath(policies) => policy(first(policies), "spec.rules".to_owned()),
                Denial::MutualTlsRequired(_) => tls,
            };
            (Mark::Ends, by.to_string(), place)
        }
    }
}

/// The first of several policies in one name.
fn first(policies: &Name) -> &str {
    policies.as_str().split(", ").next().unwrap_or_default()
}

fn in_shadow(verdict: &Verdict) -> Step {
    let (_, why, by) = reading(verdict, By::default());
    let what = match verdict {
        Verdict::Allowed { .. } => "with the policies in shadow it would be allowed",
        Verdict::Denied { .. } => "with the policies in shadow it would be denied",
    };
    Step::new(Room::Authorize, Mark::Shadow, what, why).by(by)
}
