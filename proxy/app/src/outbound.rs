//! The outbound spine: from the application to the mesh.
//!
//! accept → (identify: the own workload) → detect → (authorize: the head must be sound) → route →
//! balance → connect → relay; the last three again while an attempt may be repeated. Reads top to
//! bottom like the walk in ARCHITECTURE.md; `outbound/bytes.rs` is the same for what is not HTTP.
//!
//! Invariant: a request is decided once, from one snapshot; a newer one serves the next request.

mod bytes;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use weft_proxy_core::retry::{Failure, UNANSWERED, may_retry};
use weft_proxy_core::spec::{Protocol, UnknownDestination};
use weft_proxy_core::{Peer, Reason, Target as Meaning, hygiene};
use weft_proxy_net::http::Body;
use weft_proxy_net::sock::Sock;

use crate::exchange::{Exchange, Outgoing, RequestBody, RequestTally, ResponseBody};
use crate::lookup::{Answer, Wanted};
use crate::metrics::edge::{Direction, Protocol as Wire};
use crate::record::connection::ConnectionRecord;
use crate::reply::Own;
use crate::rooms::accept::{Accepted, Door};
use crate::rooms::balance::{Choice, balance};
use crate::rooms::connect::{self, Target};
use crate::rooms::detect::{self, Spoken};
use crate::rooms::relay::{self, Miss};
use crate::rooms::route::{Routed, route};
use crate::seat::{Asked, Destination, Seat, Seating};
use crate::upstream::Picked;
use crate::worker::Worker;
use crate::{spare, stream};

/// One connection of the application.
pub(crate) async fn connection(worker: Rc<Worker>, accepted: Accepted) {
    let mut record = worker.ledger.connection(Direction::Outbound, Some(accepted.client), worker.now());
    let mut sock = Sock::tcp(accepted.tcp);
    let destination = destination(&worker, &accepted.door, accepted.original).await;
    accepted.original.iter().for_each(|original| record.destination(*original));
    let declared = match &destination {
        Err(reason) => return stream::refuse(&worker, sock, record, *reason),
        Ok(Destination::Service(name)) => {
            worker.service(name).map_or(Protocol::Detect, |service| service.outbound.protocol)
        }
        Ok(Destination::Direct(_)) => Protocol::Detect,
        // Whatever it is, it passes as it is.
        Ok(Destination::Unknown(_) | Destination::Application { .. }) => Protocol::Opaque,
    };
    let Ok(destination) = destination else { return };
    // While the connection lives its destination is not forgotten.
    let _lease = accepted.original.and_then(|original| worker.plane.lookup.lease(&original));
    let here = Here { client: accepted.client, destination };
    match detect::find(&worker, Direction::Outbound, declared, &mut sock).await {
        Spoken::Http1 => http(&worker, sock, record, here, false).await,
        Spoken::Http2 => http(&worker, sock, record, here, true).await,
        Spoken::Tls => bytes::relay(&worker, sock, record, here, Wire::Tls, false).await,
        Spoken::Bytes => bytes::relay(&worker, sock, record, here, Wire::Tcp, false).await,
        Spoken::Silence => bytes::relay(&worker, sock, record, here, Wire::Tcp, true).await,
    }
}

/// Where a connection came in.
struct Here {
    client: SocketAddr,
    destination: Destination,
}

/// What an accepted connection wants to reach: the listener's service, or what the control plane says
/// about its original destination.
async fn destination(
    worker: &Rc<Worker>,
    door: &Door,
    original: Option<SocketAddr>,
) -> Result<Destination, Reason> {
    if let Door::Service(name) = door {
        if worker.service(name).is_none() {
            count(worker, worker.plane.lookup.ask(Wanted::Outbound(name.clone())).await);
        }
        return worker.service(name).map(|_| Destination::Service(name.clone())).ok_or(Reason::ConfigTimeout);
    }
    let original = original.ok_or(Reason::Internal)?;
    let mut known = worker.target(original);
    if known.is_none() {
        count(worker, worker.plane.lookup.ask(Wanted::Address(original)).await);
        known = worker.target(original);
    }
    match known {
        Some(Meaning::Outbound(name)) => Ok(Destination::Service(name)),
        Some(Meaning::Workload(endpoint)) => Ok(Destination::Direct(endpoint)),
        Some(Meaning::Unknown) | None => match worker.snapshot().mesh.unknown_destination {
            UnknownDestination::PassThrough => Ok(Destination::Unknown(original)),
            UnknownDestination::Refuse => Err(Reason::UnknownDestination),
        },
    }
}

/// Counts the limits that a lookup met.
fn count(worker: &Worker, answer: Answer) {
    match answer {
        Answer::Late => worker.limit_hit("lookup_timeout"),
        Answer::Full => worker.limit_hit("lookups"),
        Answer::Arrived | Answer::Unreachable => {}
    }
}

async fn http(worker: &Rc<Worker>, sock: Sock, record: ConnectionRecord, here: Here, http2: bool) {
    record.hand_to_requests();
    let seating = |io, conn| Seating {
        conn,
        io,
        secure: false,
        peer: Peer { identity: None, address: here.client.ip() },
        client: Some(here.client),
        destination: here.destination,
        direction: Direction::Outbound,
    };
    stream::serve(worker, sock, http2, seating).await;
}

/// One request of the application.
pub(crate) async fn request(
    seat: Rc<Seat>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    stream::answer(seat, request, walk).await
}

async fn walk(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Own> {
    let version = request.version();
    let (mut parts, body) = request.into_parts();
    let body = Body::stream(body, RequestTally(exchange.clone()), Some(seat.conn.clone()));
    seat.check_size(&parts.headers)?;
    hygiene::check_request(&parts.method, &parts.uri, version, &parts.headers)?;
    let asked = Asked::of(&parts)?;
    let routed = route(seat, exchange, &mut parts)?;
    hygiene::scrub_request(
        &mut parts.headers,
        hygiene::Keep { upgrade: asked == Asked::Upgrade, own: false },
    );
    exchange.note(|record| record.stamp(&mut parts.headers));
    let request = Box::new(Request::from_parts(parts, body));
    let response = within_deadline(seat, exchange, &routed, request).await?;
    let agreed = seat.watch_upgrade(exchange, response.status(), asked)?;
    let mut response = relay::answer(exchange, seat, response, version, agreed)?;
    seat.end_without_tunnel(asked, agreed, &mut response);
    if let Some((service, plan)) = &routed.way {
        service.outbound.apply_response(*plan, response.headers_mut());
    }
    Ok(response)
}

/// All attempts, within the rule's deadline for the whole exchange.
///
/// Only a deadline costs a box: a future that is named before it is awaited is kept twice.
async fn within_deadline(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    routed: &Routed,
    request: Outgoing,
) -> Result<Response<Incoming>, Own> {
    let timeouts = routed.way.as_ref().map(|(service, plan)| service.outbound.timeouts(*plan));
    let each = timeouts.and_then(|timeouts| timeouts.attempt);
    let Some(span) = timeouts.and_then(|timeouts| timeouts.request) else {
        return attempts(seat, exchange, routed, request, each).await;
    };
    let deadline = tokio::time::Instant::now() + span;
    exchange.cut_at(deadline);
    let attempts = Box::pin(attempts(seat, exchange, routed, request, each));
    match tokio::time::timeout_at(deadline, attempts).await {
        Ok(answered) => answered,
        Err(_) => Err(Own::from(Reason::RequestTimeout)),
    }
}

/// Rooms 6 to 8, as often as another attempt is safe and the budget allows it.
async fn attempts(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    routed: &Routed,
    mut request: Outgoing,
    each: Option<Duration>,
) -> Result<Response<Incoming>, Own> {
    let worker = &seat.worker;
    let mut exclude = None;
    let mut made = 0;
    exchange.keep_body();
    loop {
        made += 1;
        let Choice { mut picked, fallback } = balance(worker, &routed.upstream, exclude)?;
        // An id means something in its own backend's balancer only.
        exclude = (!fallback).then(|| picked.id());
        let spare = spare::of(&request);
        seat.note_attempt(exchange, routed.way.as_ref(), &picked, request.headers_mut());
        if fallback {
            exchange.note(|record| record.event("fallback", worker.now()));
        }
        let method = request.method().clone();
        let answered = attempt(seat, exchange, &picked, request, each).await;
        let miss = match answered.and_then(|response| heard(&picked, response)) {
            Ok(response) => {
                let event = picked.settle(worker.now(), !response.status().is_server_error());
                seat.note_event(exchange, &picked, event);
                exchange.forget_body();
                exchange.hold_endpoint(picked);
                return Ok(response);
            }
            Err(miss) => miss,
        };
        let now = worker.now();
        // What the downstream broke says nothing about the endpoint.
        if let Some(failure) = miss.failure {
            let event = picked.settle(now, false);
            seat.note_event(exchange, &picked, event);
            exchange.note(|record| record.attempt_over(None, Some(miss.reason), now));
            let again = miss.unsent.or_else(|| spare.into_request(exchange.kept_body()));
            if let Some(again) = again
                && may_retry(failure, &method, true, made, false)
                && picked.upstream().may_spend_retry(now)
            {
                if failure == Failure::StaleConnection {
                    // The endpoint did nothing wrong: an old connection to it had ended.
                    exclude = None;
                }
                request = again;
                continue;
            }
        }
        return Err(Own::from(miss.reason));
    }
}

/// An answer in which the endpoint's sidecar says that its application gave none is a failed attempt.
fn heard(picked: &Picked, response: Response<Incoming>) -> Result<Response<Incoming>, Miss> {
    if !response.status().is_server_error() || picked.endpoint.identity.is_none() {
        return Ok(response);
    }
    let word = response.headers().get(UNANSWERED);
    match word.and_then(|word| Failure::heard(word.as_bytes())) {
        None => Ok(response),
        Some(failure) => {
            let reason = match failure {
                Failure::Unprocessed => Reason::ConnectRefused,
                _ => Reason::UpstreamReset,
            };
            Err(Miss { reason, failure: Some(failure), unsent: None })
        }
    }
}

/// One attempt: connect and relay, within the attempt's deadline.
async fn attempt(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    picked: &Picked,
    request: Outgoing,
    each: Option<Duration>,
) -> Result<Response<Incoming>, Miss> {
    let Some(span) = each else { return connect_and_relay(seat, exchange, picked, request).await };
    let trying = Box::pin(connect_and_relay(seat, exchange, picked, request));
    match tokio::time::timeout(span, trying).await {
        Ok(answered) => answered,
        Err(_) => {
            Err(Miss { reason: Reason::AttemptTimeout, failure: Some(Failure::AttemptTimeout), unsent: None })
        }
    }
}

async fn connect_and_relay(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    picked: &Picked,
    request: Outgoing,
) -> Result<Response<Incoming>, Miss> {
    let backend = picked.upstream().backend();
    let target = Target::endpoint(&picked.endpoint, backend.policy.connect_timeout);
    let link = if speaks_http2(backend.protocol, &request) {
        connect::http2(&seat.worker, &picked.links, target).await
    } else {
        connect::http1(&seat.worker, &picked.links, target).await
    };
    match link {
        Ok(link) => relay::relay(exchange, link, request, &seat.conn, &seat.io).await,
        Err(reason) => {
            picked.upstream().unlinked(reason);
            Err(Miss::unsent(reason, request))
        }
    }
}

/// The hop's version: what the endpoints are known to speak, else what the application speaks.
/// Upgrades and CONNECT need a connection of their own.
fn speaks_http2(protocol: Protocol, request: &Request<RequestBody>) -> bool {
    if request.headers().contains_key(http::header::UPGRADE) || request.method() == Method::CONNECT {
        return false;
    }
    match protocol {
        Protocol::Http2 => true,
        Protocol::Http1 => false,
        Protocol::Detect | Protocol::Tls | Protocol::Opaque => request.version() == Version::HTTP_2,
    }
}
