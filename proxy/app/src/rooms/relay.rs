//! Room 8, **relay**: a link and a request in, the answer out; bodies stream past.
//!
//! After *connect*. Says what happened precisely enough that the spine can decide on another attempt:
//! who broke, and whether the upstream can have seen the request.
//!
//! Invariant: bodies are never held; a request is tried again only if it is still whole.

use http::{Response, Version};
use hyper::body::Incoming;
use std::error::Error as _;
use std::pin::Pin;
use std::rc::Rc;
use weft_proxy_core::retry::Failure;
use weft_proxy_core::{Reason, hygiene};
use weft_proxy_net::http::client::Failed;
use weft_proxy_net::http::interim::Continue;
use weft_proxy_net::http::{Body, Broken, Conn, Flood, Lease, interim};
use weft_proxy_net::sock::Io;

use crate::convert;
use crate::exchange::{Exchange, Outgoing, RequestBody, ResponseBody, ResponseTally};
use crate::metrics::edge::Direction;
use crate::rooms::connect::Link;
use crate::seat::Seat;

/// An attempt without an answer.
pub(crate) struct Miss {
    pub(crate) reason: Reason,
    /// How the upstream failed; `None` where it did not: the downstream did.
    pub(crate) failure: Option<Failure>,
    /// The request, when the upstream never saw it.
    pub(crate) unsent: Option<Outgoing>,
}

impl Miss {
    /// An attempt that ended before the request was sent.
    pub(crate) fn unsent(reason: Reason, request: Outgoing) -> Self {
        let failure = match reason {
            Reason::WrongIdentity => Failure::WrongIdentity,
            _ => Failure::Connect,
        };
        Self { reason, failure: Some(failure), unsent: Some(request) }
    }
}

/// Puts the request into the link's version, sends it and waits for the head of the answer.
pub(crate) async fn relay(
    exchange: &Exchange,
    link: Link,
    mut request: Outgoing,
    conn: &Rc<Conn>,
    downstream: &Io,
) -> Result<Response<Incoming>, Miss> {
    let version = request.version();
    let converted = match &link {
        Link::Http1(lease) => convert::to_http1(&mut request, || lease.peer_addr()),
        Link::Http2 { .. } => convert::to_http2(&mut request),
    };
    if let Err(reason) = converted {
        return Err(Miss { reason, failure: None, unsent: None });
    }
    match link {
        Link::Http1(lease) => {
            let interim = (version == Version::HTTP_11).then(|| (downstream.clone(), conn.clone()));
            http1(exchange, lease, request, interim).await
        }
        Link::Http2 { mut link, entered, reused } => {
            exchange.hold_stream(entered);
            let answer = link.send(*request).await;
            answer.map_err(|failed| match link.flood() {
                None => missed(exchange, failed.into(), reused),
                Some(flood) => flooded(exchange, flood),
            })
        }
    }
}

async fn http1(
    exchange: &Exchange,
    mut lease: Lease<RequestBody>,
    mut request: Outgoing,
    downstream: Option<(Io, Rc<Conn>)>,
) -> Result<Response<Incoming>, Miss> {
    let reused = lease.reused;
    let Some(link) = lease.link() else { return Err(Miss::unsent(Reason::Internal, request)) };
    let go_on = request.headers().contains_key(http::header::EXPECT).then(|| exchange.hold_body());
    let most = exchange.limits().serve.http2.frames.interim;
    let listening = interim::listen(&mut request, downstream, link.io().clone(), go_on.clone(), most);
    // Pinned where it is: a future that moves into its await is kept twice.
    let mut sending = std::pin::pin!(link.send(*request));
    exchange.hold_lease(lease);
    let answer = match go_on {
        None => sending.await,
        Some(go_on) => Box::pin(send_expecting(&go_on, sending.as_mut())).await,
    };
    answer.map_err(|failed| match listening.is_flooded() {
        false => missed(exchange, failed.into(), reused),
        true => flooded(exchange, Flood::Interim),
    })
}

/// The upstream was cut off for what it sent beside its answers.
fn flooded(exchange: &Exchange, flood: Flood) -> Miss {
    exchange.limit_hit(match flood {
        Flood::Control => "h2_control_frames",
        Flood::Interim => "interim",
    });
    Miss { reason: Reason::UpstreamProtocol, failure: Some(Failure::AnswerBegan), unsent: None }
}

/// How long a body waits for `100 Continue` before it flows anyway. Source: RFC 9110 §10.1.1 leaves the
/// span to the client; curl waits 1 s.
const EXPECT_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

async fn send_expecting<T>(go_on: &Continue, mut sending: Pin<&mut impl Future<Output = T>>) -> T {
    match tokio::time::timeout(EXPECT_WAIT, sending.as_mut()).await {
        Ok(answer) => answer,
        Err(_) => {
            go_on.open();
            sending.await
        }
    }
}

fn missed(exchange: &Exchange, failed: Failed<RequestBody>, reused: bool) -> Miss {
    let Failed { error, unsent } = failed;
    if error.is_parse_too_large() {
        exchange.limit_hit("header_bytes");
    }
    if unsent.is_some() {
        let failure = if reused { Failure::StaleConnection } else { Failure::Connect };
        return Miss { reason: Reason::UpstreamReset, failure: Some(failure), unsent: unsent.map(Box::new) };
    }
    let (reason, failure) = classify(&error);
    Miss { reason, failure, unsent: None }
}

fn classify(error: &hyper::Error) -> (Reason, Option<Failure>) {
    if error.is_parse() {
        return (Reason::UpstreamProtocol, Some(Failure::AnswerBegan));
    }
    // hyper blames its user for a connection whose task has ended, too; only a body is the downstream's.
    if error.is_user() && error.source().is_some_and(|source| source.is::<Broken>()) {
        return (Reason::Cancelled, None);
    }
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match h2.and_then(h2::Error::reason) {
        Some(h2::Reason::REFUSED_STREAM) => (Reason::UpstreamReset, Some(Failure::Unprocessed)),
        Some(h2::Reason::PROTOCOL_ERROR) => (Reason::UpstreamProtocol, Some(Failure::AnswerBegan)),
        _ => (Reason::UpstreamReset, Some(Failure::ResetBeforeAnswer)),
    }
}

/// Makes the upstream's answer the downstream's: cleaned, in its version, with a body that is counted.
pub(crate) fn answer(
    exchange: &Rc<Exchange>,
    seat: &Seat,
    response: Response<Incoming>,
    version: Version,
    upgraded: bool,
) -> Result<Response<ResponseBody>, Reason> {
    let (mut parts, body) = response.into_parts();
    let asked = hygiene::Asked { upgrade: upgraded };
    hygiene::check_response(parts.status, &parts.headers, asked).map_err(|refusal| refusal.reason)?;
    // An application says nothing in our name.
    let own = seat.direction == Direction::Outbound;
    hygiene::scrub_response(&mut parts.headers, hygiene::Keep { upgrade: upgraded, own });
    // hyper puts an answer of 1.1 into 1.0 and keeps the connection where the caller asked for that.
    parts.version = if version == Version::HTTP_10 { Version::HTTP_11 } else { version };
    exchange.answered(parts.status, &parts.headers);
    seat.sign(exchange, &mut parts.headers);
    let tally = ResponseTally(exchange.clone());
    Ok(Response::from_parts(parts, Body::stream(body, tally, Some(seat.conn.clone()))))
}
