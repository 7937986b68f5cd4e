//! The outbound walk of a request that nobody sent: destination, detect, head, route, and for each backend
//! balance, connect and relay.
//!
//! Invariant: what decides is asked, in the order of the spine `proxy/app/src/outbound.rs`.

use std::sync::Arc;

use http::StatusCode;

use super::text::{quoted, span};
use super::{
    Balancers, By, Destination, End, Mark, Onward, Outcome, Request, Room, Spoken, Step, Walk, backend,
    detected, filters, record, rules, sound,
};
use crate::backend::Endpoint;
use crate::head::Head;
use crate::names::Name;
use crate::outbound::{Decision, Outbound, Plan, Reply, Turns};
use crate::reason::Reason;
use crate::route::rule::{Rule, Share};
use crate::snapshot::{Snapshot, Target};
use crate::spec::{Protocol, ProtocolBy, RouteKind, UnknownDestination};

/// The walk of a request from this sidecar's application.
#[must_use]
pub fn outbound(
    snapshot: &Snapshot,
    destination: &Destination,
    request: &Request,
    balancers: &dyn Balancers,
) -> Walk {
    let mut asking =
        Asking { snapshot, request, balancers, steps: Vec::new(), onward: Vec::new(), settings: Vec::new() };
    let outcome = match asking.meaning(destination) {
        Ok(Meaning::Service(name)) => asking.service(&name),
        Ok(Meaning::Direct(endpoint)) => asking.direct(&endpoint),
        Err(end) => end,
    };
    asking.steps.extend(record::step(snapshot));
    Walk {
        workload: snapshot.inbound.as_ref().map(|inbound| inbound.workload.clone()),
        generation: snapshot.generation,
        steps: asking.steps,
        outcome,
        onward: asking.onward,
    }
}

enum Meaning {
    Service(Name),
    Direct(Arc<Endpoint>),
}

struct Asking<'a> {
    snapshot: &'a Snapshot,
    request: &'a Request,
    balancers: &'a dyn Balancers,
    steps: Vec<Step>,
    onward: Vec<Onward>,
    /// What holds on the way to backends that were looked at.
    settings: Vec<(Name, Vec<Step>)>,
}

/// What one share of a rule comes to, with its weight.
type Served = (u32, Result<Onward, Outcome>);

impl Asking<'_> {
    fn meaning(&mut self, destination: &Destination) -> Result<Meaning, Outcome> {
        let address = match destination {
            Destination::Service(name) => {
                let what = format!("service port {name}");
                self.say(Step::fact(Room::Accept, what, "as it was asked for").by(service_by(name, "")));
                return Ok(Meaning::Service(name.clone()));
            }
            Destination::Address(address) => *address,
        };
        let what = format!("destination {address}");
        match self.snapshot.target(address) {
            Some(Target::Outbound(name)) => {
                let step = Step::fact(Room::Accept, what, format!("the service port {name}"));
                self.say(step.by(service_by(name, "spec.clusterIP")));
                Ok(Meaning::Service(name.clone()))
            }
            Some(Target::Workload(endpoint)) => {
                let who = endpoint.workload.as_ref().map_or_else(String::new, ToString::to_string);
                let why = format!("the pod {who}, called by its address: no route applies");
                let by = By::named("Pod", &who, "status.podIP");
                self.say(Step::fact(Room::Accept, what, why).by(by));
                Ok(Meaning::Direct(endpoint.clone()))
            }
            Some(Target::Unknown) | None => Err(self.unknown(what)),
        }
    }

    fn unknown(&mut self, what: String) -> Outcome {
        let mesh = |field: &str| By::object("Mesh", "", "mesh", field);
        match self.snapshot.mesh.unknown_destination {
            UnknownDestination::PassThrough => {
                let why = "the mesh knows nothing there: bytes pass as they are";
                self.say(Step::new(Room::Accept, Mark::Holds, what, why).by(By::default_value()));
                Outcome {
                    end: End::PassThrough,
                    ..Outcome::forward("it leaves the mesh as it is, past every rule")
                }
            }
            UnknownDestination::Refuse => {
                let why = "the mesh knows nothing there, and refuses such";
                self.say(Step::new(Room::Accept, Mark::Ends, what, why).by(mesh("spec.unknownDestination")));
                let refused = Outcome::refused(self.request, Reason::UnknownDestination, why);
                Outcome { end: End::Reset, status: None, grpc: None, ..refused }
            }
        }
    }

    fn say(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn service(&mut self, name: &Name) -> Outcome {
        let Some(outbound) = self.snapshot.outbounds.get(name).cloned() else {
            let why = format!("nothing about {name} has arrived: is there such a Service?");
            self.say(Step::new(Room::Accept, Mark::Ends, format!("service port {name}"), why.clone()));
            let refused = Outcome::refused(self.request, Reason::ConfigTimeout, why);
            return Outcome { end: End::Reset, status: None, grpc: None, ..refused };
        };
        let taken = self.request.taken_for(outbound.protocol);
        self.say(detected(outbound.protocol, taken, protocol_by(&outbound)));
        match taken {
            Spoken::Http1 | Spoken::Http2 if !self.request.is_http() => self.no_http(),
            Spoken::Http1 | Spoken::Http2 => self.http(&outbound),
            Spoken::Tls | Spoken::Bytes => self.bytes(&outbound, taken),
        }
    }

    fn no_http(&mut self) -> Outcome {
        let why = "the port is declared HTTP, and what is sent is none";
        self.say(Step::new(Room::Detect, Mark::Ends, "what is sent", why));
        Outcome {
            end: End::Answer,
            status: Some(StatusCode::BAD_REQUEST),
            ..Outcome::refused(self.request, Reason::MalformedRequest, why)
        }
    }

    fn bytes(&mut self, outbound: &Outbound, taken: Spoken) -> Outcome {
        let plan = outbound.opaque(&mut Turns::new(outbound));
        if outbound.kind != RouteKind::None {
            let why = "bytes have no request that a rule could match: routes do not apply";
            self.say(Step::new(Room::Route, Mark::PassedBy, "routes", why));
        }
        let sent = Request { spoken: taken, ..self.request.clone() };
        let served = vec![(1, self.reach(outbound, plan, (1, 1), sent))];
        self.conclude(served)
    }

    fn http(&mut self, outbound: &Outbound) -> Outcome {
        let request = self.request;
        let uri = match sound(request) {
            Ok(uri) => uri,
            Err((reason, why)) => {
                self.say(Step::new(Room::Route, Mark::Ends, request.line(), why.clone()));
                return Outcome::refused(request, reason, why);
            }
        };
        let head = request.head(uri);
        if outbound.kind == RouteKind::None {
            let why = "no route is attached: the service itself serves";
            let by = service_by(&service_port(outbound), "");
            self.say(Step::new(Room::Route, Mark::Holds, request.line(), why).by(by));
            self.deadlines(outbound, None);
            let decision = outbound.route(&head, &mut Turns::new(outbound));
            let served = match decision {
                Decision::Forward(plan) => self.reach(outbound, plan, (1, 1), request.clone()),
                Decision::Reply(reply) => Err(answered(request, &reply)),
            };
            return self.conclude(vec![(1, served)]);
        }
        self.routed(outbound, &head)
    }

    fn routed(&mut self, outbound: &Outbound, head: &Head<'_>) -> Outcome {
        let looked = outbound.table.survey(head).unwrap_or_default();
        let steps = rules::steps(outbound, &looked, self.request, head);
        let decision = outbound.route(head, &mut Turns::new(outbound));
        let chosen = match &decision {
            Decision::Forward(plan) => plan.rule,
            Decision::Reply(reply) => reply.rule,
        };
        let rule = chosen.and_then(|rule| Some((rule, outbound.rules.get(usize::from(rule))?)));
        let Some((index, rule)) = rule else {
            let (why, outcome) = match &decision {
                Decision::Reply(reply) if reply.reason == Reason::NoRoute => {
                    let why = rules::none_matched(outbound);
                    (why.clone(), Outcome { why, ..answered(self.request, reply) })
                }
                Decision::Reply(reply) => (reply.message.to_string(), answered(self.request, reply)),
                Decision::Forward(_) => (String::new(), Outcome::forward("")),
            };
            self.say(Step::new(Room::Route, Mark::Ends, self.request.line(), why).of(steps));
            return outcome;
        };
        let why = format!("{} of {} takes it", rules::title(rule), rule.label.route);
        let step = Step::new(Room::Route, Mark::Holds, self.request.line(), why);
        self.say(step.by(rules::by(outbound, rule, "")).of(steps));
        for step in filters::steps(&rule.filters, |below| rules::by(outbound, rule, below)) {
            self.say(step);
        }
        if let (Decision::Reply(reply), true) = (&decision, rule.filters.answer.is_some()) {
            return answered(self.request, reply);
        }
        self.deadlines(outbound, Some(rule));
        if rule.total == 0 {
            let Decision::Reply(reply) = &decision else { return Outcome::forward("") };
            return answered(self.request, reply);
        }
        let mut served = Vec::new();
        for (at, share) in (0u16..).zip(&rule.shares) {
            served.extend(self.share(outbound, (index, rule), (at, share), head));
        }
        self.conclude(served)
    }

    /// One weighted backend; `None`: it takes no traffic.
    fn share(
        &mut self,
        outbound: &Outbound,
        (index, rule): (u16, &Rule),
        (at, share): (u16, &Share),
        head: &Head<'_>,
    ) -> Option<Served> {
        let place = format!(".backendRefs[{at}]");
        let total = u32::try_from(rule.total).unwrap_or(u32::MAX);
        let title = match &share.backend {
            Ok(backend) => outbound.backends.get(usize::from(*backend)).map(ToString::to_string),
            Err(_) => Some("invalid reference".to_owned()),
        };
        let what = format!("{}, weight {} of {total}", title.unwrap_or_default(), share.weight);
        let by = |below: &str| rules::by(outbound, rule, &format!("{place}{below}"));
        if share.weight == 0 {
            self.say(
                Step::new(Room::Route, Mark::PassedBy, what, "weight 0 takes no traffic").by(by(".weight")),
            );
            return None;
        }
        let own = filters::steps(&share.filters, by);
        let plan = match outbound.serve(index, at, head) {
            Decision::Forward(plan) => plan,
            Decision::Reply(reply) => {
                let why = format!("its share is answered with {}: {}", reply.status.as_u16(), reply.message);
                self.say(Step::new(Room::Route, Mark::Ends, what, why).by(by("")).of(own));
                return Some((share.weight, Err(answered(self.request, &reply))));
            }
        };
        let why = percent(share.weight, total);
        self.say(Step::new(Room::Route, Mark::Holds, what, why).by(by("")).of(own));
        let mut sent = self.request.clone();
        let edited = match &mut sent.target {
            Ok(uri) => outbound.apply_request(plan, uri, &mut sent.headers),
            Err(_) => Ok(()),
        };
        let served = match edited {
            Ok(()) => self.reach(outbound, plan, (share.weight, total), sent),
            Err(reply) => Err(answered(self.request, &reply)),
        };
        Some((share.weight, served))
    }

    fn reach(
        &mut self,
        outbound: &Outbound,
        plan: Plan,
        share: (u32, u32),
        sent: Request,
    ) -> Result<Onward, Outcome> {
        let Some(name) = outbound.backend(plan) else {
            return Err(Outcome::refused(self.request, Reason::InvalidBackend, "the backend is not there"));
        };
        let reached = backend::reach(self.snapshot, name, &sent, self.balancers);
        self.steps.extend(reached.steps);
        match self.settings.iter().find(|(_, settings)| *settings == reached.settings) {
            Some((like, settings)) if !settings.is_empty() => {
                let step = Step::fact(Room::Connect, "connect and relay", format!("all as for {like}"));
                self.steps.push(step);
            }
            _ => {
                self.steps.extend(reached.settings.iter().cloned());
                self.settings.push((name.clone(), reached.settings));
            }
        }
        match reached.endpoints {
            Ok(endpoints) => Ok(Onward { backend: Some(name.clone()), share, endpoints, sent }),
            Err((reason, why)) => Err(Outcome::refused(self.request, reason, why)),
        }
    }

    /// Adds up what the shares come to.
    fn conclude(&mut self, served: Vec<Served>) -> Outcome {
        let total = served.iter().map(|(weight, _)| *weight).sum();
        let mut said = Vec::new();
        let mut first = None;
        for (weight, outcome) in served {
            let part = percent(weight, total);
            match outcome {
                Ok(onward) => {
                    let name = onward.backend.as_ref().map_or_else(String::new, ToString::to_string);
                    said.push(format!("{part} to {name}"));
                    self.onward.push(onward);
                }
                Err(end) => {
                    let status = end.status.map_or("reset".to_owned(), |status| status.as_u16().to_string());
                    said.push(format!("{part} answered with {status}"));
                    first.get_or_insert(end);
                }
            }
        }
        match first {
            Some(end) if self.onward.is_empty() => end,
            _ => Outcome::forward(said.join(", ").trim_start_matches("all ").to_owned()),
        }
    }

    fn direct(&mut self, endpoint: &Arc<Endpoint>) -> Outcome {
        let taken = self.request.taken_for(Protocol::Detect);
        self.say(detected(Protocol::Detect, taken, By::default_value()));
        if self.request.is_http()
            && let Err((reason, why)) = sound(self.request)
        {
            self.say(Step::new(Room::Route, Mark::Ends, self.request.line(), why.clone()));
            return Outcome::refused(self.request, reason, why);
        }
        let why = "its mutual TLS and its policies hold, and no TrafficPolicy of a Service";
        self.say(Step::new(Room::Route, Mark::Holds, "a pod called by its address", why));
        self.steps.extend(backend::direct(endpoint, self.request));
        let endpoints = vec![Endpoint::clone(endpoint)];
        self.onward.push(Onward { backend: None, share: (1, 1), endpoints, sent: self.request.clone() });
        Outcome::forward(format!("to {}", endpoint.address))
    }

    fn deadlines(&mut self, outbound: &Outbound, rule: Option<&Rule>) {
        let at = rule.and_then(|rule| outbound.rules.iter().position(|other| std::ptr::eq(other, rule)));
        let plan = Plan { rule: at.and_then(|at| u16::try_from(at).ok()), backend: 0, share: 0 };
        let timeouts = outbound.timeouts(plan);
        let own = rule.filter(|rule| rule.own_deadline);
        let (why, by) = match (timeouts.request, own) {
            (Some(span_), Some(rule)) => (span(span_), rules::by(outbound, rule, ".timeouts.request")),
            (None, Some(rule)) => ("none".to_owned(), rules::by(outbound, rule, ".timeouts.request")),
            (Some(span_), None) => (span(span_), self.traffic_policy(outbound, "spec.requestTimeout")),
            (None, None) => ("none".to_owned(), By::default_value()),
        };
        self.say(Step::fact(Room::Route, "request timeout", why).by(by));
        if let (Some(attempt), Some(rule)) = (timeouts.attempt, rule) {
            let by = rules::by(outbound, rule, ".timeouts.backendRequest");
            self.say(Step::fact(Room::Route, "attempt timeout", span(attempt)).by(by));
        }
    }

    /// The TrafficPolicy of the service that is called: the one of its own backend.
    fn traffic_policy(&self, outbound: &Outbound, field: &str) -> By {
        let own = self.snapshot.backends.get(&service_port(outbound));
        let origin = own.and_then(|backend| backend.policy.origin.clone());
        By { origin, field: field.to_owned() }
    }
}

fn service_port(outbound: &Outbound) -> Name {
    Name::from(format!("{}:{}", outbound.service, outbound.port))
}

/// The Service of a service port.
fn service_by(name: &Name, field: &str) -> By {
    let (service, port) = name.as_str().rsplit_once(':').unwrap_or((name.as_str(), ""));
    let field = if field.is_empty() { format!("spec.ports[port={port}]") } else { field.to_owned() };
    By::named("Service", service, field)
}

fn protocol_by(outbound: &Outbound) -> By {
    let port = outbound.port;
    match outbound.protocol_by {
        ProtocolBy::AppProtocol => {
            By::named("Service", outbound.service.as_str(), format!("spec.ports[port={port}].appProtocol"))
        }
        ProtocolBy::Route => match outbound.rules.first() {
            Some(rule) => By { field: "spec.parentRefs".to_owned(), ..rules::by(outbound, rule, "") },
            None => By::default(),
        },
        ProtocolBy::OpaquePorts => {
            By::named("Service", outbound.service.as_str(), "its pods' annotation weft.dev/opaque-ports")
        }
        ProtocolBy::Unsaid => {
            By::named("Service", outbound.service.as_str(), format!("spec.ports[port={port}]"))
        }
    }
}

/// The outcome of a decision to answer.
fn answered(request: &Request, reply: &Reply) -> Outcome {
    let location = reply.location.as_ref().map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
    let why = match &location {
        Some(to) => format!("redirected to {}", quoted(to.as_bytes())),
        None => reply.message.to_string(),
    };
    Outcome {
        status: Some(reply.status),
        grpc: request.is_grpc().then(|| reply.grpc()),
        location,
        ..Outcome::refused(request, reply.reason, why)
    }
}

fn percent(weight: u32, total: u32) -> String {
    match u64::from(weight) * 1000 / u64::from(total.max(1)) {
        1000 => "all".to_owned(),
        tenths if tenths % 10 == 0 => format!("{} %", tenths / 10),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}
