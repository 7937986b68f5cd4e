//! The inbound spine: from the mesh to the application.
//!
//! accept → identify → detect → authorize → (route and balance: there is one endpoint, the
//! application) → connect → relay. Reads top to bottom like the walk in ARCHITECTURE.md.
//!
//! Invariant: nothing reaches the application before authorize has allowed it.
//! Invariant: one request is judged by one snapshot's policies.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use weft_proxy_core::spec::Protocol;
use weft_proxy_core::{Head, Reason, hygiene};
use weft_proxy_net::http::Body;

use crate::convert;
use crate::exchange::{Exchange, RequestBody, RequestTally, ResponseBody};
use crate::reply::{Own, is_grpc};
use crate::rooms::authorize::authorize;
use crate::rooms::connect::{self, Link, Target};
use crate::rooms::relay::{self, Miss};
use crate::seat::Seat;
use crate::spare;

/// One request for the application.
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

async fn walk(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Own> {
    let version = request.version();
    let (mut parts, body) = request.into_parts();
    let body = Body::stream(body, RequestTally(exchange.clone()), Some(seat.conn.clone()));
    hygiene::check_request(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    let protocol = {
        let head = Head::of(&parts.method, &parts.uri, &parts.headers)?;
        authorize(seat, exchange, &head)?
    };
    let upgrade = hygiene::scrub_request(&mut parts.headers, &parts.method, version);
    seat.trace(exchange, &mut parts.headers);
    let request = Request::from_parts(parts, body);
    let response = forward(seat, exchange, request, protocol).await?;
    seat.watch_upgrade(exchange, response.status(), upgrade)?;
    relay::answer(exchange, &seat.conn, response, version).map_err(Own::from)
}

/// Rooms 7 and 8. A link that the application closed before it took the request is replaced once:
/// applications close idle connections whenever they like.
async fn forward(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    request: Request<RequestBody>,
    protocol: Protocol,
) -> Result<Response<Incoming>, Own> {
    let spare = spare::of(&request);
    let miss = match attempt(seat, exchange, request, protocol).await {
        Ok(response) => return Ok(response),
        Err(miss) => miss,
    };
    if !weft_proxy_core::retry::reused_link_closed(miss.failure) {
        return Err(Own::from(miss.reason));
    }
    let Some(again) = miss.unsent.or_else(|| spare.map(spare::Spare::into_request)) else {
        return Err(Own::from(miss.reason));
    };
    attempt(seat, exchange, again, protocol).await.map_err(|miss| Own::from(miss.reason))
}

async fn attempt(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    request: Request<RequestBody>,
    protocol: Protocol,
) -> Result<Response<Incoming>, Miss> {
    let worker = &seat.worker;
    let Some(address) = seat.application() else {
        return Err(Miss::unsent(Reason::UnknownDestination, request));
    };
    let links = worker.application(address);
    let target = Target { address, identity: None, timeout: worker.plane.limits.connect };
    let link = if speaks_http2(protocol, &request) {
        connect::http2(worker, &links, target).await
    } else {
        connect::http1(worker, &links, target).await
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
    match converted {
        Ok(()) => relay::relay(exchange, link, request, seat.interim()).await,
        Err(reason) => {
            Err(Miss { reason, failure: weft_proxy_core::retry::Failure::Downstream, unsent: None })
        }
    }
}

/// What the application speaks: what its port declares, else what the caller speaks.
fn speaks_http2(protocol: Protocol, request: &Request<RequestBody>) -> bool {
    if request.headers().contains_key(http::header::UPGRADE) || request.method() == Method::CONNECT {
        return false;
    }
    match protocol {
        Protocol::Http2 => true,
        Protocol::Http1 | Protocol::Detect | Protocol::Tls | Protocol::Opaque => {
            request.version() == Version::HTTP_2
        }
    }
}
