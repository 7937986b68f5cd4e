//! The outbound spine: from the application to the mesh.
//!
//! accept → (identify: the own workload) → detect → (authorize: the head must be sound) → route →
//! balance → connect → relay; the last three again while an attempt may be repeated. Reads top to
//! bottom like the walk in ARCHITECTURE.md.
//!
//! Invariant: a request is decided once, from one snapshot; a newer one serves the next request.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use weft_proxy_core::outbound::{Decision, Plan};
use weft_proxy_core::retry::{Attempt, may_retry};
use weft_proxy_core::{Head, Reason, hygiene};
use weft_proxy_net::http::Body;

use crate::exchange::{Exchange, RequestBody, RequestTally, ResponseBody};
use crate::reply::{Own, is_grpc};
use crate::rooms::balance::{Choice, balance};
use crate::rooms::connect::{self, Link, Target};
use crate::rooms::relay::{self, Miss};
use crate::seat::{Destination, Seat};
use crate::upstream::Upstream;
use crate::{convert, spare};

/// One request of the application.
pub(crate) async fn request(
    seat: Rc<Seat>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    seat.conn.begin();
    let (version, grpc) = (request.version(), is_grpc(request.headers()));
    let exchange = Exchange::open(&seat.worker, seat.record(&request));
    Ok(match walk(&seat, &exchange, request).await {
        Ok(response) => response,
        Err(own) => seat.refuse(&exchange, own, version, grpc),
    })
}

/// What the route room decided: where to, and what to do with head and answer.
struct Way {
    service: Option<(Rc<crate::worker::Service>, Plan)>,
    upstream: Rc<Upstream>,
}

async fn walk(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Own> {
    let version = request.version();
    let (mut parts, body) = request.into_parts();
    let body = Body::stream(body, RequestTally(exchange.clone()), Some(seat.conn.clone()));
    hygiene::check_request(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    let way = route(seat, exchange, &mut parts)?;
    exchange.enter(&way.upstream);
    let upgrade = hygiene::scrub_request(&mut parts.headers, &parts.method, version);
    seat.trace(exchange, &mut parts.headers);
    let request = Request::from_parts(parts, body);
    let timeouts = way.service.as_ref().map(|(service, plan)| service.outbound.timeouts(*plan));
    let whole = timeouts.and_then(|timeouts| timeouts.request);
    let each = timeouts.and_then(|timeouts| timeouts.attempt);
    let attempts = attempts(seat, exchange, &way.upstream, request, each);
    let response = match whole {
        None => attempts.await?,
        Some(span) => {
            let deadline = tokio::time::Instant::now() + span;
            exchange.cut_at(deadline);
            let attempts = Box::pin(attempts);
            tokio::time::timeout_at(deadline, attempts).await.map_err(|_| Own::from(Reason::RequestTimeout))??
        }
    };
    seat.watch_upgrade(exchange, response.status(), upgrade)?;
    let mut response = relay::answer(exchange, &seat.conn, response, version).map_err(Own::from)?;
    if let Some((service, plan)) = &way.service {
        service.outbound.apply_response(*plan, response.headers_mut());
    }
    Ok(response)
}

/// Room 5, **route**: head and snapshot in, a way or an answer of our own out.
fn route(seat: &Seat, exchange: &Exchange, parts: &mut http::request::Parts) -> Result<Way, Own> {
    let name = match &seat.destination {
        Destination::Direct(endpoint) => {
            return Ok(Way { service: None, upstream: seat.worker.direct(endpoint) });
        }
        Destination::Service(name) => name,
        Destination::Application(_) | Destination::Unknown(_) => {
            return Err(Own::from(Reason::UnknownDestination));
        }
    };
    let service = seat.worker.service(name).ok_or(Reason::ConfigTimeout)?;
    let head = Head::of(&parts.method, &parts.uri, &parts.headers)?;
    let plan = match service.outbound.route(&head, &mut service.turns.borrow_mut()) {
        Decision::Forward(plan) => plan,
        Decision::Reply(reply) => return Err(Own::from(reply)),
    };
    service.outbound.apply_request(plan, &mut parts.uri, &mut parts.headers)?;
    let upstream = service.upstreams.get(usize::from(plan.backend)).cloned().ok_or(Reason::Internal)?;
    exchange.note(|record| seat.note_route(record, &service, plan));
    Ok(Way { service: Some((service, plan)), upstream })
}

/// Rooms 6 to 8, as often as another attempt is safe and the budget allows it.
async fn attempts(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    upstream: &Rc<Upstream>,
    mut request: Request<RequestBody>,
    each: Option<std::time::Duration>,
) -> Result<Response<Incoming>, Own> {
    let worker = &seat.worker;
    let mut spare = spare::of(&request);
    let mut exclude = None;
    let mut made = 0;
    loop {
        made += 1;
        let Choice { mut picked, fallback } = balance(worker, upstream, exclude)?;
        exclude = Some(picked.id());
        exchange.note(|record| seat.note_attempt(record, &picked, made, fallback));
        let method = request.method().clone();
        let sent = attempt(seat, exchange, &picked, request, each).await;
        let now = worker.now();
        let miss = match sent {
            Ok(response) => {
                let event = picked.settle(now, !response.status().is_server_error());
                seat.note_event(&picked, event);
                exchange.hold_endpoint(picked);
                return Ok(response);
            }
            Err(miss) => miss,
        };
        let event = picked.settle(now, false);
        seat.note_event(&picked, event);
        let replayable = miss.unsent.is_some() || spare.is_some();
        let attempt = Attempt { number: made, method: &method, replayable };
        if !may_retry(miss.failure, &attempt) || !picked.upstream().may_spend_retry(now) {
            return Err(Own::from(miss.reason));
        }
        let again = miss.unsent.or_else(|| spare.take().map(|spare| spare.into_request()));
        let Some(again) = again else { return Err(Own::from(miss.reason)) };
        exchange.note(|record| record.retry(miss.reason));
        spare = spare::of(&again);
        request = again;
    }
}

/// One attempt: connect and relay, within the attempt's deadline.
async fn attempt(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    picked: &crate::upstream::Picked,
    request: Request<RequestBody>,
    each: Option<std::time::Duration>,
) -> Result<Response<Incoming>, Miss> {
    let trying = connect_and_relay(seat, exchange, picked, request);
    match each {
        None => trying.await,
        Some(span) => match tokio::time::timeout(span, Box::pin(trying)).await {
            Ok(result) => result,
            Err(_) => Err(Miss {
                reason: Reason::AttemptTimeout,
                failure: weft_proxy_core::retry::Failure::Timeout,
                unsent: None,
            }),
        },
    }
}

async fn connect_and_relay(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    picked: &crate::upstream::Picked,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Miss> {
    let backend = picked.upstream().backend();
    let target = Target {
        address: picked.endpoint.address,
        identity: picked.endpoint.identity.as_ref(),
        timeout: backend.policy.connect_timeout,
    };
    let http2 = speaks_http2(backend.protocol, &request);
    let link = if http2 {
        connect::http2(&seat.worker, &picked.links, target).await
    } else {
        connect::http1(&seat.worker, &picked.links, target).await
    };
    let link = match link {
        Ok(link) => link,
        Err(reason) => return Err(Miss::unsent(reason, request)),
    };
    let (mut parts, body) = request.into_parts();
    let converted = match &link {
        Link::Http1(_) => convert::to_http1(&mut parts),
        Link::Http2 { .. } => convert::to_http2(&mut parts),
    };
    let request = Request::from_parts(parts, body);
    if let Err(reason) = converted {
        return Err(Miss { failure: weft_proxy_core::retry::Failure::Downstream, reason, unsent: None });
    }
    relay::relay(exchange, link, request, seat.interim()).await
}

/// The hop's version: what the endpoints are known to speak, else what the application speaks.
/// Upgrades and CONNECT need a connection of their own.
fn speaks_http2(protocol: weft_proxy_core::spec::Protocol, request: &Request<RequestBody>) -> bool {
    use weft_proxy_core::spec::Protocol;
    if request.headers().contains_key(http::header::UPGRADE) || request.method() == Method::CONNECT {
        return false;
    }
    match protocol {
        Protocol::Http2 => true,
        Protocol::Http1 => false,
        Protocol::Detect | Protocol::Tls | Protocol::Opaque => request.version() == Version::HTTP_2,
    }
}
