//! One request through both sidecars: routed, balanced, sent, authorized, answered, perhaps retried.
//!
//! Invariant: every decision on the way is held against the oracle at the generation that the
//! deciding sidecar shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use weft_control_plane_core::config::ResourceType;
use weft_proxy_core::{
    Decision, EndpointId, Failure, Head, Identity, Moment, Name, Outbound, Outcome, Peer, Target, may_retry,
};

use super::client::Picked;
use super::facts::{Id, parts};
use super::ledger::LONGEST;
use super::oracle::{Asked, Caller, Way};
use super::plane::Shown;
use super::sidecar::Sidecar;
use super::world::World;
use super::{Broken, Fault, Violation, oracle};

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Flight {
    client: Id,
    uid: u64,
    /// The backend that the plan names.
    planned: String,
    asked: Asked,
    attempts: u32,
    picked: Picked,
    started: Moment,
    pub(super) due: Moment,
    end: End,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answer,
    ServerError,
    Failed(Failure),
    Cancelled,
}

fn named<T>(text: String) -> Result<T, Violation> {
    Err(Violation::new(Broken::Named, text))
}

/// One request of a sidecar's application to something it has asked for.
pub(super) fn begin(world: &mut World, client: &Id) -> Result<(), Violation> {
    let asked = Asked { method: world.dice.method(), path: world.dice.path(), canary: world.dice.one_in(3) };
    let Some(sidecar) = world.sidecars.get_mut(client) else { return Ok(()) };
    let names: Vec<String> = sidecar.asked.iter().map(|key| key.name.clone()).collect();
    let (Some(name), Some(at)) = (world.dice.of(&names), sidecar.at.clone()) else { return Ok(()) };
    let service = match name.parse::<SocketAddr>() {
        Err(_) => name,
        Ok(address) => match sidecar.snapshot.target(address).cloned() {
            None => return Ok(()),
            Some(Target::Unknown) => return unknown(&at, address),
            Some(Target::Workload(endpoint)) => return direct(world, client, &at, &endpoint, &asked),
            Some(Target::Outbound(name)) => meant(&at, address, &name)?,
        },
    };
    let Some(outbound) = sidecar.snapshot.outbounds.get(service.as_str()).cloned() else { return Ok(()) };
    let Some(planned) = decide(sidecar, &at, (&service, &outbound), &asked)? else { return Ok(()) };
    let snapshot = Arc::clone(&sidecar.snapshot);
    sidecar.client.enter(&planned, &snapshot, world.now);
    world.stats.requests += 1;
    attempt(world, client, (planned, asked), 1, None)
}

fn unknown(at: &Shown, address: SocketAddr) -> Result<(), Violation> {
    let service = |service: &super::facts::Service| {
        service.ip == address.ip() && service.ports.contains(&address.port())
    };
    let known =
        at.facts.services.values().any(service) || at.facts.pods.values().any(|pod| pod.ip == address.ip());
    if known { named(format!("{address} is known and is called unknown")) } else { Ok(()) }
}

fn meant(at: &Shown, address: SocketAddr, name: &Name) -> Result<String, Violation> {
    let found = at.facts.services.iter().find(|(_, service)| service.ip == address.ip());
    let said = found.filter(|(_, service)| service.ports.contains(&address.port()));
    match said.map(|(id, _)| format!("{id}:{}", address.port())) {
        Some(said) if said == name.as_str() => Ok(said),
        said => named(format!("{address} means {name}, but the facts say {said:?}")),
    }
}

/// Routes, and holds the decision against what the manifests mean.
fn decide(
    sidecar: &mut Sidecar,
    at: &Shown,
    (service, outbound): (&str, &Arc<Outbound>),
    asked: &Asked,
) -> Result<Option<String>, Violation> {
    let way = oracle::way(&at.facts, parts(&sidecar.id).0, service, asked);
    let decision = with_head(asked, |head| sidecar.client.route(service, outbound, head))?;
    let wrong = |what: String| {
        let text = format!("{}: {asked:?} to {service} {what}, but the facts say {way:?}", sidecar.id);
        Err(Violation::new(Broken::Route, text))
    };
    match decision {
        Decision::Reply(reply) => match (reply.status.as_u16(), &way) {
            (404, Some(Way::NoRoute)) | (500, Some(Way::Broken | Way::Backends(_, true))) => Ok(None),
            (status, _) => wrong(format!("is answered with {status}")),
        },
        Decision::Forward(plan) => match (outbound.backend(plan), &way) {
            (Some(name), Some(Way::Backends(names, _))) if names.contains(name.as_str()) => {
                Ok(Some(name.to_string()))
            }
            (name, _) => wrong(format!("goes to {name:?}")),
        },
    }
}

/// One attempt: picks an endpoint, and sends to whoever is there now.
fn attempt(
    world: &mut World,
    client: &Id,
    (planned, asked): (String, Asked),
    attempts: u32,
    exclude: Option<EndpointId>,
) -> Result<(), Violation> {
    let (now, fault) = (world.now, world.fault);
    let Some(sidecar) = world.sidecars.get_mut(client) else { return Ok(()) };
    let snapshot = Arc::clone(&sidecar.snapshot);
    let chance = (now, &mut world.dice.0);
    let Some(picked) = sidecar.client.pick(&planned, &snapshot, chance, exclude, fault)? else {
        return Ok(());
    };
    let (address, at) = (picked.endpoint.address, sidecar.at.clone());
    let held = snapshot.backends.get(picked.upstream.as_str());
    if !held.is_some_and(|backend| backend.endpoints.iter().any(|endpoint| endpoint.address == address)) {
        return named(format!("{client} sends to {address}, which its {} does not have", picked.upstream));
    }
    let said = at.and_then(|at| oracle::endpoints(&at.facts, &picked.upstream));
    let expected = picked.endpoint.identity.as_ref().map(ToString::to_string);
    if said.and_then(|said| said.get(&address).map(|(_, identity)| identity.clone())) != Some(expected) {
        return named(format!(
            "{client} sends to {address} of {}, which the facts do not say",
            picked.upstream
        ));
    }
    let identity = picked.endpoint.identity.clone();
    let end = arrive(world, client, (address, identity.as_ref()), &asked)?;
    let span = u64::from(world.dice.below(u32::try_from(LONGEST.as_millis()).unwrap_or(u32::MAX)));
    let due = now.plus(Duration::from_millis(if world.dice.one_in(4) { span } else { span / 20 }));
    world.note(|| {
        format!("{client} → {address} ({}) {asked:?}: {end:?}, attempt {attempts}", picked.upstream)
    });
    let uid = world.sidecars.get(client).map_or(0, |sidecar| sidecar.uid);
    let client = client.clone();
    world.flights.push(Flight { client, uid, planned, asked, attempts, picked, started: now, due, end });
    Ok(())
}

/// A pod that is called by its own address: no route, no balancer.
fn direct(
    world: &mut World,
    client: &Id,
    at: &Shown,
    endpoint: &weft_proxy_core::Endpoint,
    asked: &Asked,
) -> Result<(), Violation> {
    let pod = at.facts.pods.iter().find(|(_, pod)| pod.ip == endpoint.address.ip());
    let said = pod.map(|(id, _)| (Some(id.clone()), oracle::identity(&at.facts, id)));
    let workload = endpoint.workload.as_ref().map(ToString::to_string);
    if said != Some((workload, endpoint.identity.as_ref().map(ToString::to_string))) {
        return named(format!("{client} takes {endpoint:?} for a pod, but the facts say {said:?}"));
    }
    arrive(world, client, (endpoint.address, endpoint.identity.as_ref()), asked).map(drop)
}

/// What an address answers now: nobody, somebody else, or the pod's own sidecar.
fn arrive(
    world: &mut World,
    client: &Id,
    (address, expected): (SocketAddr, Option<&Identity>),
    asked: &Asked,
) -> Result<End, Violation> {
    let found = world.facts.pods.iter().find(|(_, pod)| pod.ip == address.ip());
    let Some((id, pod)) = found.filter(|(_, pod)| !world.down.contains(&pod.uid)) else {
        return Ok(End::Failed(Failure::Connect));
    };
    let real = oracle::identity(&world.facts, id);
    if expected.is_some_and(|expected| Some(expected.as_str()) != real.as_deref()) {
        return Ok(End::Failed(if pod.sidecar { Failure::WrongIdentity } else { Failure::Connect }));
    }
    let own = world.facts.pods.get(client);
    let Some(own) = own else { return Ok(End::Cancelled) };
    let account = (parts(client).0.to_owned(), own.app.clone());
    let caller = Caller { proven: expected.map(|_| account), ip: own.ip };
    let sick = world.sick.contains(&pod.uid);
    let (id, guarded) = (id.clone(), pod.sidecar);
    if guarded && !admitted(world, &id, address.port(), &caller, asked)? {
        return Ok(End::Answer);
    }
    Ok(match world.dice.below(24) {
        0 => End::Cancelled,
        1 => End::Failed(Failure::ResetBeforeAnswer),
        2..=17 if sick => End::ServerError,
        18..=20 if sick => End::Failed(Failure::StaleConnection),
        _ => End::Answer,
    })
}

/// The destination's verdict, held against what the manifests of its generation mean.
fn admitted(
    world: &mut World,
    id: &Id,
    port: u16,
    caller: &Caller,
    asked: &Asked,
) -> Result<bool, Violation> {
    let Some(sidecar) = world.sidecars.get(id) else { return Ok(false) };
    let proven = caller.proven.as_ref();
    let identity =
        proven.map(|(namespace, account)| format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"));
    let identity = identity.and_then(|text| Identity::parse(&text).ok());
    let peer = Peer { identity, address: caller.ip };
    let allowed = match &sidecar.snapshot.inbound {
        None => false,
        Some(inbound) => with_head(asked, |head| inbound.authorize_request(&peer, port, head).is_allowed())?,
    };
    let allowed = allowed || world.fault == Some(Fault::PassesDenied);
    let taken = sidecar.policies();
    let expected =
        sidecar.at.as_ref().is_some_and(|at| oracle::passes(&at.facts, &taken, (id, port), caller, asked));
    if allowed == expected {
        if !allowed {
            world.stats.denied += 1;
        }
        return Ok(allowed);
    }
    let policies = sidecar.at.as_ref().map(|at| oracle::policies(&at.facts, id));
    let text = format!(
        "{id}:{port} lets {caller:?} {asked:?} pass: {allowed}, but the facts say {expected}: {policies:?}"
    );
    Err(Violation::new(Broken::Policy, text))
}

fn with_head<T>(asked: &Asked, ask: impl FnOnce(&Head<'_>) -> T) -> Result<T, Violation> {
    let wrong = |_| Violation::new(Broken::Contract, format!("{asked:?} is no request"));
    let method = Method::from_bytes(asked.method.as_bytes()).map_err(|_| wrong(()))?;
    let uri: Uri = asked.path.parse().map_err(|_| wrong(()))?;
    let mut headers = HeaderMap::new();
    if asked.canary {
        headers.insert("canary", HeaderValue::from_static("yes"));
    }
    Ok(ask(&Head::of(&method, &uri, &headers)))
}

/// An attempt that is due ends, and may be made again.
pub(super) fn end(world: &mut World, flight: Flight) -> Result<(), Violation> {
    let (now, fault) = (world.now, world.fault);
    let found = world.sidecars.get_mut(&flight.client).filter(|sidecar| sidecar.uid == flight.uid);
    let Some(sidecar) = found else { return Ok(()) };
    let outcome = match flight.end {
        End::Answer => Outcome::Success { latency: now.since(flight.started) },
        End::ServerError | End::Failed(_) => Outcome::Failure,
        End::Cancelled => Outcome::Cancelled,
    };
    if let Some(event) = sidecar.client.ended(&flight.picked, outcome, now)? {
        world.stats.ejections += 1;
        let (upstream, address) = (flight.picked.upstream.clone(), flight.picked.endpoint.address);
        world.note(|| format!("{address} of {upstream}: {event:?}"));
    }
    let End::Failed(failure) = flight.end else { return Ok(()) };
    let method = Method::from_bytes(flight.asked.method.as_bytes()).unwrap_or_default();
    let Some(sidecar) = world.sidecars.get_mut(&flight.client) else { return Ok(()) };
    let again = may_retry(failure, &method, true, flight.attempts, false)
        && sidecar.client.may_retry(&flight.picked, now, fault)?;
    if !again {
        return Ok(());
    }
    world.stats.retries += 1;
    let exclude = Some(flight.picked.id);
    attempt(world, &flight.client, (flight.planned, flight.asked), flight.attempts + 1, exclude)
}

/// Kinds that a sidecar asks for by name.
pub(super) const BY_NAME: [ResourceType; 2] = [ResourceType::Address, ResourceType::Outbound];
