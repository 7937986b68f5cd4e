//! A backend as a request reaches it: its endpoints and how they stand, how they are connected to, and what
//! holds while the request is under way.
//!
//! Under `outbound`, for each backend that the rule names.
//!
//! Invariant: which endpoint it will be is not foretold, because it depends on load; which may be, is said.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;

use super::text::span;
use super::{Balancers, By, Mark, Request, Room, Spoken, Step};
use crate::backend::{Backend, Endpoint, Setting, TrafficPolicy};
use crate::balance::{Balancer, Look, Standing};
use crate::eject::Outcome as Attempt;
use crate::moment::Moment;
use crate::names::Name;
use crate::reason::Reason;
use crate::retry::{Failure, MAX_ATTEMPTS, may_retry};
use crate::snapshot::Snapshot;
use crate::spec::Protocol;

/// Endpoints that are shown one by one. Source: ours; a page of a terminal.
const SHOWN: usize = 16;

/// Balancers as they are when nothing has happened yet, but that some endpoints have failed until they were
/// ejected, as far as the policy lets them be.
#[derive(Clone, Debug, Default)]
pub struct Imagined {
    /// The endpoints that have failed.
    pub failing: Vec<SocketAddr>,
}

impl Balancers for Imagined {
    fn look(&self, _name: &Name, backend: &Arc<Backend>) -> Look {
        let now = Moment::default();
        let mut balancer = Balancer::new(backend, now);
        let mut failing: Vec<_> = balancer
            .ids()
            .filter_map(|id| Some((balancer.endpoint(id)?.address, id)))
            .filter(|(address, _)| self.failing.contains(address))
            .collect();
        failing.sort_unstable_by_key(|(address, _)| *address);
        for (_, id) in failing {
            for _ in 0..backend.policy.outlier.consecutive_failures {
                balancer.started(id, now);
                balancer.finished(id, now, now, Attempt::Failure);
            }
        }
        balancer.look(now)
    }

    fn basis(&self) -> &'static str {
        if self.failing.is_empty() { "as configured" } else { "as configured, with failures imagined" }
    }
}

/// What a backend comes to.
pub(super) struct Reached {
    /// The endpoints that may be reached, or why none can be.
    pub(super) endpoints: Result<Vec<Endpoint>, (Reason, String)>,
    /// The room balance.
    pub(super) steps: Vec<Step>,
    /// The rooms connect and relay.
    pub(super) settings: Vec<Step>,
}

/// Looks at a service port's backend, and at its fallback where that serves.
pub(super) fn reach(
    snapshot: &Snapshot,
    name: &Name,
    request: &Request,
    balancers: &dyn Balancers,
) -> Reached {
    let Some(backend) = snapshot.backends.get(name) else {
        let why = format!("the backend {name} has not arrived");
        let step = Step::new(Room::Balance, Mark::Ends, format!("backend {name}"), why.clone());
        let endpoints = Err((Reason::ConfigTimeout, why));
        return Reached { endpoints, steps: vec![step], settings: Vec::new() };
    };
    let (first, standing) = balance(name, backend, balancers);
    let refused = match standing {
        Standing::Ready | Standing::Probe => None,
        Standing::CircuitOpen => Some((Reason::CircuitOpen, format!("all endpoints of {name} are ejected"))),
        Standing::NoneReady => Some((Reason::NoEndpoint, format!("{name} has no ready endpoint"))),
    };
    let mut steps = vec![first];
    let Some(refused) = refused else {
        let endpoints = Ok(taking(backend, &balancers.look(name, backend)));
        return Reached { endpoints, steps, settings: onward(&backend.policy, backend, request) };
    };
    let policy = &backend.policy;
    let fallback = policy.fallback.as_ref().filter(|fallback| *fallback != name);
    let Some((fallback, there)) = fallback.and_then(|it| Some((it, snapshot.backends.get(it)?))) else {
        let step =
            Step::fact(Room::Balance, "fallback", "there is none").by(setting(policy, Setting::Fallback));
        steps.push(step);
        return Reached { endpoints: Err(refused), steps, settings: Vec::new() };
    };
    let why = format!("{fallback} serves instead: {}", refused.1);
    let step = Step::new(Room::Balance, Mark::Holds, "fallback", why).by(setting(policy, Setting::Fallback));
    steps.push(step);
    let (second, standing) = balance(fallback, there, balancers);
    steps.push(second);
    if matches!(standing, Standing::CircuitOpen | Standing::NoneReady) {
        return Reached { endpoints: Err(refused), steps, settings: Vec::new() };
    }
    let endpoints = Ok(taking(there, &balancers.look(fallback, there)));
    Reached { endpoints, steps, settings: onward(&there.policy, there, request) }
}

/// One workload that is called by its address.
pub(super) fn direct(endpoint: &Arc<Endpoint>, request: &Request) -> Vec<Step> {
    let backend = Backend {
        service: Name::from("direct"),
        port: endpoint.address.port(),
        protocol: Protocol::Detect,
        endpoints: vec![endpoint.clone()],
        policy: TrafficPolicy::default(),
    };
    onward(&backend.policy, &backend, request)
}

/// The object and field of a setting, or that it is a default.
fn setting(policy: &TrafficPolicy, setting: Setting) -> By {
    match &policy.origin {
        Some(origin) if policy.given.has(setting) => {
            By { origin: Some(origin.clone()), field: setting.field().to_owned() }
        }
        _ => By::default_value(),
    }
}

fn balance(name: &Name, backend: &Arc<Backend>, balancers: &dyn Balancers) -> (Step, Standing) {
    let look = balancers.look(name, backend);
    let ejected = look.endpoints.iter().filter(|seen| seen.ejected.is_some()).count();
    let ready = look.endpoints.len() - ejected;
    let counts = match (ready, ejected) {
        (0, 0) => "it has no ready endpoint".to_owned(),
        (ready, 0) => format!("{ready} ready"),
        (ready, ejected) => format!("{ready} ready, {ejected} ejected"),
    };
    let (mark, why) = match look.standing {
        Standing::Ready if ready > 1 => (Mark::Holds, format!("{counts}; of two at random the less loaded")),
        Standing::Ready => (Mark::Holds, counts),
        Standing::Probe => (Mark::Holds, format!("{counts}; one request may probe")),
        Standing::CircuitOpen => (Mark::Ends, format!("{counts}: its circuit is open")),
        Standing::NoneReady => (Mark::Ends, counts),
    };
    let each = |endpoint: &Arc<Endpoint>| {
        let seen = look.endpoints.iter().find(|seen| seen.address == endpoint.address);
        let state = match seen.map(|seen| (seen.ejected, seen.in_flight)) {
            Some((Some(left), _)) => format!("ejected, probed in {}", span(left)),
            Some((None, 0)) => "ready".to_owned(),
            Some((None, in_flight)) => format!("ready, {in_flight} in flight"),
            None => "unknown here".to_owned(),
        };
        let zone = if endpoint.zone.is_empty() { String::new() } else { format!(", zone {}", endpoint.zone) };
        let weight =
            if endpoint.weight == 1 { String::new() } else { format!(", weight {}", endpoint.weight) };
        let what = match &endpoint.workload {
            Some(workload) => format!("{workload} at {}", endpoint.address),
            None => endpoint.address.to_string(),
        };
        let by = endpoint.workload.as_ref().map(|workload| By::named("Pod", workload.as_str(), ""));
        Step::fact(Room::Balance, what, format!("{state}{zone}{weight}")).by(by.unwrap_or_default())
    };
    let mut steps: Vec<Step> = backend.endpoints.iter().take(SHOWN).map(each).collect();
    let more = backend.endpoints.len().saturating_sub(SHOWN);
    if more > 0 {
        steps.push(Step::fact(Room::Balance, format!("{more} more"), "endpoints of the same backend"));
    }
    let by = By::named("Service", backend.service.as_str(), format!("spec.ports[port={}]", backend.port));
    (Step::new(Room::Balance, mark, format!("backend {name}"), why).by(by).of(steps), look.standing)
}

fn taking(backend: &Backend, look: &Look) -> Vec<Endpoint> {
    let takes = |endpoint: &&Arc<Endpoint>| {
        let seen = look.endpoints.iter().find(|seen| seen.address == endpoint.address);
        look.standing == Standing::Probe || seen.is_some_and(|seen| seen.ejected.is_none())
    };
    backend.endpoints.iter().filter(takes).map(|endpoint| Endpoint::clone(endpoint)).collect()
}

/// What holds between the choice of an endpoint and the end of the answer.
fn onward(policy: &TrafficPolicy, backend: &Backend, request: &Request) -> Vec<Step> {
    let mut steps = vec![hop(backend, request)];
    let outlier = policy.outlier;
    let mut say = |room: Room, what: &str, why: String, given: Setting| {
        steps.push(Step::fact(room, what, why).by(setting(policy, given)));
    };
    say(Room::Connect, "connect timeout", span(policy.connect_timeout), Setting::ConnectTimeout);
    let each = format!("at most {} to one endpoint", policy.max_connections);
    say(Room::Connect, "connections", each, Setting::MaxConnections);
    let waiting = format!("at most {} wait for a connection", policy.max_pending);
    say(Room::Connect, "requests", waiting, Setting::MaxPending);
    say(
        Room::Connect,
        "idle connections",
        format!("closed after {}", span(policy.idle_timeout)),
        Setting::IdleTimeout,
    );
    let budget = policy.retry_budget;
    let budget = format!("{} % of active requests, and {} a second", budget.percent, budget.min_per_second);
    say(Room::Relay, "retry budget", budget, Setting::RetryBudget);
    let ejection = match outlier.consecutive_failures {
        0 => "off".to_owned(),
        failures => format!(
            "after {failures} failures in a row, for {} to {}; {} of the endpoints at most",
            span(outlier.base_ejection),
            span(outlier.max_ejection),
            if policy.fallback.is_some() {
                "all".to_owned()
            } else {
                format!("{} %", outlier.max_ejected_percent)
            },
        ),
    };
    say(Room::Relay, "ejection", ejection, Setting::Outlier);
    if let Some(fallback) = &policy.fallback {
        say(Room::Relay, "fallback", format!("{fallback}, while none takes traffic"), Setting::Fallback);
    }
    if request.is_http() {
        steps.push(Step::fact(Room::Relay, "retries", retries(&request.method)).by(By::default_value()));
    }
    steps
}

/// How the endpoint's side is spoken to.
fn hop(backend: &Backend, request: &Request) -> Step {
    let meshed = backend.endpoints.iter().filter(|endpoint| endpoint.identity.is_some()).count();
    let secured = match (meshed, backend.endpoints.len()) {
        (0, _) => "in plaintext: no endpoint has a sidecar".to_owned(),
        (meshed, all) if meshed == all => "mutual TLS, to exactly the endpoint's identity".to_owned(),
        (meshed, all) => format!("mutual TLS to {meshed} of {all} endpoints, plaintext to the others"),
    };
    let version = match (request.spoken, backend.protocol) {
        (Spoken::Tls | Spoken::Bytes, _) => "bytes",
        (_, Protocol::Http2) => "HTTP/2, which the endpoints are declared to speak",
        (_, Protocol::Http1) => "HTTP/1, which the endpoints are declared to speak",
        (Spoken::Http2, _) => "HTTP/2, as the caller",
        (Spoken::Http1, _) => "HTTP/1, as the caller",
    };
    Step::fact(Room::Connect, secured, version)
}

/// After which failures the request is tried again, asked of the decision itself.
fn retries(method: &Method) -> String {
    let again = |failure| may_retry(failure, method, true, 1, false);
    let rows = [
        (Failure::Connect, "no connection"),
        (Failure::Unprocessed, "a refused stream"),
        (Failure::StaleConnection, "an old connection that had closed"),
        (Failure::WrongIdentity, "a wrong identity"),
        (Failure::ResetBeforeAnswer, "a reset before the answer"),
        (Failure::AttemptTimeout, "an attempt's timeout"),
    ];
    let after: Vec<&str> =
        rows.iter().filter(|(failure, _)| again(*failure)).map(|(_, word)| *word).collect();
    format!("at most {} attempts; again after {}", MAX_ATTEMPTS, after.join(", "))
}
