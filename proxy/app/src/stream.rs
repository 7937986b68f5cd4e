//! What both spines do with a connection once its protocol is known: serve HTTP on it, or relay bytes.
//!
//! Invariant: a connection's record closes once, whichever way the connection goes.

use std::convert::Infallible;
use std::error::Error as _;
use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use weft_proxy_core::Reason;
use weft_proxy_core::authorize::Denial;
use weft_proxy_net::http::{Conn, EndOfSending, Ended, serve_http1, serve_http2};
use weft_proxy_net::relay::{self, Relay, Relayed};
use weft_proxy_net::sock::{Io, Sock};

use crate::exchange::{Exchange, ResponseBody};
use crate::metrics::edge::{Direction, Edge};
use crate::record::Ending;
use crate::record::connection::ConnectionRecord;
use crate::reply::{Own, is_grpc};
use crate::seat::{Seat, Seating, Upgraded};
use crate::worker::Worker;
use crate::{inbound, outbound};

/// Serves HTTP until the connection ends, or relays it after an upgrade.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    sock: Sock,
    http2: bool,
    seating: impl FnOnce(Io, Rc<Conn>) -> Seating,
) {
    let conn = Conn::new(!http2);
    worker.live.add(&conn);
    let io = Io::new(sock);
    let seat = Seat::new(worker, seating(io.clone(), conn.clone()));
    let started = worker.now();
    let limits = worker.plane.limits.serve;
    let (direction, client) = (seat.direction, seat.client);
    // What a sidecar gave up is not worth an application's time.
    let end = if seat.secure { EndOfSending::Gone } else { EndOfSending::MayWait };
    let ended = match (seat.direction, http2) {
        (Direction::Inbound, false) => {
            let seat = seat.clone();
            let service = Rc::new(service_fn(move |request| slim(inbound::request(seat.clone(), request))));
            Box::pin(serve_http1(io.clone(), service, conn, limits.head, end)).await
        }
        (Direction::Outbound, false) => {
            let seat = seat.clone();
            let service = Rc::new(service_fn(move |request| slim(outbound::request(seat.clone(), request))));
            Box::pin(serve_http1(io.clone(), service, conn, limits.head, end)).await
        }
        (Direction::Inbound, true) => {
            let seat = seat.clone();
            let service =
                Rc::new(service_fn(move |request| Box::pin(slim(inbound::request(seat.clone(), request)))));
            Box::pin(serve_http2(io.clone(), service, conn, limits.http2)).await
        }
        (Direction::Outbound, true) => {
            let seat = seat.clone();
            let service =
                Rc::new(service_fn(move |request| Box::pin(slim(outbound::request(seat.clone(), request)))));
            Box::pin(serve_http2(io.clone(), service, conn, limits.http2)).await
        }
    };
    match ended {
        Ended::Closed => {}
        Ended::Idle => worker.limit_hit("http_idle_timeout"),
        Ended::Stalled if seat.conn.is_forbidden() => {}
        Ended::Stalled if seat.conn.was_crowded() => worker.limit_hit("held_bytes"),
        Ended::Stalled => worker.limit_hit("stall_timeout"),
        Ended::Flooded(_) => {
            worker.limit_hit("h2_control_frames");
            worker.ledger.unreadable(direction, client, Reason::OverLimit, started);
        }
        Ended::SlowHead => {
            worker.limit_hit("header_timeout");
            worker.ledger.unreadable(direction, client, Reason::HeaderTimeout, started);
        }
        Ended::Failed(error) => {
            if let Some(reason) = unreadable(&error) {
                if reason == Reason::HeadersTooLarge {
                    worker.limit_hit("header_bytes");
                }
                worker.ledger.unreadable(direction, client, reason, started);
            }
        }
        Ended::Upgraded => Box::pin(upgraded(worker, seat, io)).await,
    }
}

/// Answers one request: opens its exchange, lets it take the spine's walk, and puts a refusal into an
/// answer of our own.
pub(crate) async fn answer<W>(
    seat: Rc<Seat>,
    request: Request<Incoming>,
    walk: W,
) -> Result<Response<ResponseBody>, Infallible>
where
    W: AsyncFnOnce(&Rc<Seat>, &Rc<Exchange>, Request<Incoming>) -> Result<Response<ResponseBody>, Own>,
{
    seat.conn.begin();
    let (version, grpc) = (request.version(), is_grpc(request.headers()));
    // What follows a CONNECT is meant for the tunnel, not for us.
    let tunnel = request.method() == Method::CONNECT;
    let exchange = Exchange::open(&seat.worker, seat.record(&request));
    exchange.watch_flow(version).await;
    Ok(match walk(&seat, &exchange, request).await {
        Ok(response) => response,
        Err(mut own) => {
            own.close |= tunnel;
            seat.refuse(&exchange, own, version, grpc)
        }
    })
}

/// The future of one request, which is moved once whole: a room that makes it grow is noticed in every
/// debug build.
fn slim<F>(request: F) -> F {
    debug_assert!(size_of::<F>() <= REQUEST_FUTURE, "a request's future has {} bytes", size_of::<F>());
    request
}

/// Bytes of one request's future. Source: measured 2,448 inbound and 2,696 outbound; 7 KiB cost a tenth
/// of a request's CPU in copies.
const REQUEST_FUTURE: usize = 3072;

/// Why a head could not be read; a connection that merely broke is no such thing.
fn unreadable(error: &hyper::Error) -> Option<Reason> {
    if error.is_parse_too_large() {
        Some(Reason::HeadersTooLarge)
    } else if error.is_parse() {
        Some(Reason::MalformedRequest)
    } else {
        broke_http2(error).then_some(Reason::DownstreamProtocol)
    }
}

/// Whether we ended a connection of HTTP/2 because of what the downstream sent on it.
fn broke_http2(error: &hyper::Error) -> bool {
    let Some(h2) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    // A GOAWAY of the downstream's own is its word about us.
    !h2.is_remote()
        && matches!(
            h2.reason(),
            Some(
                h2::Reason::PROTOCOL_ERROR
                    | h2::Reason::FLOW_CONTROL_ERROR
                    | h2::Reason::STREAM_CLOSED
                    | h2::Reason::FRAME_SIZE_ERROR
                    | h2::Reason::COMPRESSION_ERROR
            )
        )
}

/// HTTP has ended with an agreement to go on otherwise: the rest is bytes.
async fn upgraded(worker: &Worker, seat: Rc<Seat>, io: Io) {
    let Some(Upgraded { upgrade, mut record, allowed }) = seat.take_upgrade() else { return };
    drop(seat);
    let upstream = upgrade.stream().await;
    let (Ok(downstream), Ok(upstream)) = (io.into_sock(), upstream.into_sock()) else { return };
    let idle = worker.plane.limits.idle;
    let forbidden = async {
        match &allowed {
            Some(allowed) => allowed.newly_denied().await,
            None => std::future::pending().await,
        }
    };
    let mut relaying = std::pin::pin!(Relay::new(downstream, upstream, worker.sweep.watch(), Some(idle)));
    let (moved, ending) = tokio::select! {
        relayed = relaying.as_mut() => ((relayed.up, relayed.down), ending(worker, relayed)),
        by = forbidden => {
            relaying.abort();
            if let (Some(record), Some(policy)) = (&mut record, by.policy()) {
                record.policy(policy);
            }
            (relaying.moved(), Ending::Failed(by.reason()))
        }
    };
    if let Some(mut record) = record {
        record.carried(moved.0, moved.1);
        record.close(ending, worker.now());
    }
}

/// Relays bytes both ways until they end, or until `forbidden` says why they must.
pub(crate) async fn relay(
    worker: &Worker,
    downstream: Sock,
    upstream: Sock,
    mut record: ConnectionRecord,
    edge: &std::sync::Arc<Edge>,
    forbidden: impl Future<Output = Denial>,
) {
    record.relay(edge, upstream.peer_addr().ok(), worker.now());
    let idle = worker.plane.limits.idle;
    let mut relaying = std::pin::pin!(Relay::new(downstream, upstream, worker.sweep.watch(), Some(idle)));
    let (moved, ending) = tokio::select! {
        relayed = relaying.as_mut() => ((relayed.up, relayed.down), ending(worker, relayed)),
        by = forbidden => {
            relaying.abort();
            by.policy().into_iter().for_each(|policy| record.policy(policy));
            (relaying.moved(), Ending::Failed(by.reason()))
        }
    };
    record.carried(moved.0, moved.1);
    record.close(ending, worker.now());
}

fn ending(worker: &Worker, relayed: Relayed) -> Ending {
    match relayed.end {
        relay::Ended::Clean => Ending::Complete,
        relay::Ended::DownstreamReset => Ending::Failed(Reason::Cancelled),
        relay::Ended::UpstreamReset | relay::Ended::Cut => Ending::Failed(Reason::UpstreamReset),
        relay::Ended::Idle => {
            worker.limit_hit("tcp_idle_timeout");
            Ending::Failed(Reason::IdleTimeout)
        }
        relay::Ended::Drained => Ending::Failed(Reason::Draining),
    }
}

/// Ends a connection that is refused: a reset, and a record that says why.
pub(crate) fn refuse(worker: &Worker, sock: Sock, mut record: ConnectionRecord, reason: Reason) {
    record.reason(reason);
    record.close(Ending::Failed(reason), worker.now());
    sock.reset();
}
