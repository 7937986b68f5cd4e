//! Room 8, **relay**: a link and a request in, the answer out; bodies stream past.
//!
//! After *connect*. Says what happened precisely enough that the spine can decide on another attempt:
//! who broke, and whether the upstream can have seen the request.
//!
//! Invariant: bodies are never held; a request is tried again only if it is still whole.

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::error::Error as _;
use std::rc::Rc;
use weft_proxy_core::retry::Failure;
use weft_proxy_core::{Reason, hygiene};
use weft_proxy_net::http::client::Failed;
use weft_proxy_net::http::{Body, Conn, interim};
use weft_proxy_net::sock::Io;

use crate::exchange::{Exchange, RequestBody, ResponseBody, ResponseTally, grpc_status};
use crate::rooms::connect::Link;

/// An attempt without an answer.
pub(crate) struct Miss {
    pub(crate) reason: Reason,
    pub(crate) failure: Failure,
    /// The request, when the upstream never saw it.
    pub(crate) unsent: Option<Request<RequestBody>>,
}

impl Miss {
    /// An attempt that ended before the request was sent.
    pub(crate) fn unsent(reason: Reason, request: Request<RequestBody>) -> Self {
        Self { reason, failure: Failure::Connect, unsent: Some(request) }
    }
}

/// Sends the request and waits for the head of the answer.
pub(crate) async fn relay(
    exchange: &Exchange,
    link: Link,
    mut request: Request<RequestBody>,
    downstream: Option<(Io, Rc<Conn>)>,
) -> Result<Response<Incoming>, Miss> {
    let expects = request.headers().contains_key(http::header::EXPECT);
    match link {
        Link::Http1(mut lease) => {
            let reused = lease.reused;
            let Some(link) = lease.link() else { return Err(Miss::unsent(Reason::Internal, request)) };
            if expects {
                exchange.go_on.hold();
            }
            let listening =
                interim::listen(&mut request, downstream, link.io().clone(), exchange.go_on.clone());
            let sending = link.send(request);
            exchange.hold_lease(lease);
            let answer = if expects {
                send_expecting(exchange, sending).await
            } else {
                sending.await
            };
            drop(listening);
            answer.map_err(|failed| missed(failed, reused))
        }
        Link::Http2 { mut link, entered, reused } => {
            exchange.hold_stream(entered);
            link.send(request).await.map_err(|failed| missed(failed, reused))
        }
    }
}

/// How long a body waits for `100 Continue` before it flows anyway. Source: RFC 9110 §10.1.1 leaves the
/// span to the client; curl waits 1 s.
const EXPECT_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

async fn send_expecting<T>(exchange: &Exchange, sending: impl Future<Output = T>) -> T {
    let mut sending = std::pin::pin!(sending);
    match tokio::time::timeout(EXPECT_WAIT, sending.as_mut()).await {
        Ok(answer) => answer,
        Err(_) => {
            exchange.go_on.open();
            sending.await
        }
    }
}

fn missed(failed: Failed<RequestBody>, reused: bool) -> Miss {
    let Failed { error, unsent } = failed;
    if unsent.is_some() {
        let failure = if reused { Failure::ReusedClosed } else { Failure::Connect };
        return Miss { reason: Reason::UpstreamReset, failure, unsent };
    }
    let (reason, failure) = classify(&error);
    Miss { reason, failure, unsent: None }
}

fn classify(error: &hyper::Error) -> (Reason, Failure) {
    if error.is_parse() {
        return (Reason::UpstreamProtocol, Failure::Protocol);
    }
    if error.is_user() {
        return (Reason::Cancelled, Failure::Downstream);
    }
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match h2.and_then(h2::Error::reason) {
        Some(h2::Reason::REFUSED_STREAM) => (Reason::UpstreamReset, Failure::RefusedStream),
        Some(h2::Reason::PROTOCOL_ERROR) => (Reason::UpstreamProtocol, Failure::Protocol),
        _ => (Reason::UpstreamReset, Failure::Reset),
    }
}

/// Makes the upstream's answer the downstream's: cleaned, in its version, with a body that is counted.
pub(crate) fn answer(
    exchange: &Rc<Exchange>,
    conn: &Rc<Conn>,
    response: Response<Incoming>,
    version: Version,
) -> Result<Response<ResponseBody>, Reason> {
    let (mut parts, body) = response.into_parts();
    if let Err(refusal) = hygiene::check_response(parts.status, parts.version, &parts.headers) {
        return Err(refusal.reason);
    }
    let upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    hygiene::scrub_response(&mut parts.headers, upgraded);
    parts.version = version;
    let grpc = grpc_status(&parts.headers);
    exchange.note(|record| {
        record.status(parts.status);
        if let Some(code) = grpc {
            record.grpc_status(code);
        }
    });
    let tally = ResponseTally(exchange.clone());
    Ok(Response::from_parts(parts, Body::stream(body, tally, Some(conn.clone()))))
}
