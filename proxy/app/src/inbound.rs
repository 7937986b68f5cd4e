//! The inbound spine: from the mesh to the application.
//!
//! accept → identify → detect → authorize → (route and balance: there is one endpoint, the
//! application) → connect → relay. Reads top to bottom like the walk in ARCHITECTURE.md.
//!
//! Invariant: nothing reaches the application before authorize has allowed it, or known it for a probe.
//! Invariant: one request is judged by one snapshot's policies.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use weft_proxy_core::authorize::Denial;
use weft_proxy_core::retry::Failure;
use weft_proxy_core::spec::Protocol;
use weft_proxy_core::{Detection, Head, Hop, Identity, Inbound, Peer, Probe, Reason, Sent, Taken, hygiene};
use weft_proxy_net::http::Body;
use weft_proxy_net::sock::Sock;
use weft_proxy_net::taken;

use crate::allowed::Allowed;
use crate::exchange::{Exchange, Outgoing, RequestBody, RequestTally, ResponseBody};
use crate::metrics::edge::{Direction, Protocol as Wire};
use crate::record::Ending;
use crate::record::connection::ConnectionRecord;
use crate::reply::Own;
use crate::rooms::accept::{Accepted, Door};
use crate::rooms::authorize::{Passed, authorize, authorize_bytes, demands_mutual_tls};
use crate::rooms::connect::{self, Target};
use crate::rooms::detect::{self, First, Spoken};
use crate::rooms::identify::{Session, identify};
use crate::rooms::relay::{self, Miss};
use crate::seat::{Asked, Destination, Seat, Seating, carries_http};
use crate::worker::Worker;
use crate::{edges, spare, stream, trace};

/// One connection to the application.
pub(crate) async fn connection(worker: Rc<Worker>, accepted: Accepted) {
    let mut record = worker.ledger.connection(Direction::Inbound, Some(accepted.client), worker.now());
    let (address, port) = match (&accepted.door, accepted.original) {
        (Door::Application { address, port }, _) => (*address, *port),
        (_, Some(original)) => (original, original.port()),
        (_, None) => return stream::refuse(&worker, Sock::tcp(accepted.tcp), record, Reason::Internal),
    };
    record.destination(address);
    let client = match accepted.door {
        Door::Inbound => client_of(accepted.client, address),
        _ => accepted.client,
    };
    let mut sock = Sock::tcp(accepted.tcp);
    let Some(inbound) = worker.inbound() else {
        return stream::refuse(&worker, sock, record, Reason::ConfigTimeout);
    };
    let mut here = Here { address, port, client, told: false };
    let declared = inbound.protocol(port);
    let strict = demands_mutual_tls(&inbound, port);
    let wait = match declared {
        _ if strict => worker.plane.limits.handshake,
        Protocol::Http1 | Protocol::Http2 => worker.plane.limits.live.idle,
        Protocol::Tls | Protocol::Opaque | Protocol::Detect => detect::PATIENCE,
    };
    match detect::first_bytes(&mut sock, wait).await {
        First::Bytes => {}
        First::End if inbound.probe(&here.peer(None), port, Sent::Nothing).is_some() => {
            return tcp_probe(&worker, sock, record, here).await;
        }
        First::End | First::Silence => {
            let plain = here.peer(None);
            return bytes(&worker, &inbound, sock, record, here, plain).await;
        }
    }
    if detect::settle(&worker, &mut sock).await == Detection::Tls {
        detect::whole_hello(&worker, &mut sock).await;
    }
    match Box::pin(identify(&worker, sock)).await {
        Err(reason) => {
            record.reason(reason);
            record.close(Ending::Failed(reason), worker.now());
        }
        Ok(Session::Proven { sock, peer }) => {
            here.told = peer.hop == Hop::TcpTold;
            let hop = carries_http(peer.hop);
            let peer = here.peer(Some(peer.identity));
            match hop {
                Some(http2) => http(&worker, sock, record, here, peer, http2).await,
                None => bytes(&worker, &inbound, sock, record, here, peer).await,
            }
        }
        Ok(Session::Plain { mut sock }) => {
            let peer = here.peer(None);
            let declared = expected(&inbound, declared, &peer, port);
            match detect::find(&worker, Direction::Inbound, declared, &mut sock).await {
                Spoken::Http1 => http(&worker, sock, record, here, peer, false).await,
                Spoken::Http2 => http(&worker, sock, record, here, peer, true).await,
                Spoken::Tls if inbound.probe(&peer, port, Sent::Tls).is_some() => {
                    https_probe(&worker, sock, record, here, peer).await;
                }
                Spoken::Tls | Spoken::Bytes | Spoken::Silence => {
                    bytes(&worker, &inbound, sock, record, here, peer).await;
                }
            }
        }
    }
}

/// Who called. A pod that calls itself through the mesh comes from loopback; its address is its own.
fn client_of(client: SocketAddr, address: SocketAddr) -> SocketAddr {
    if client.ip().is_loopback() && !address.ip().is_loopback() {
        return SocketAddr::new(address.ip(), client.port());
    }
    client
}

/// Where a connection came in.
#[derive(Clone, Copy)]
struct Here {
    /// The application.
    address: SocketAddr,
    /// The port by which policies know it.
    port: u16,
    client: SocketAddr,
    /// The peer waits to hear whether the application takes the connection.
    told: bool,
}

impl Here {
    fn peer(&self, identity: Option<Identity>) -> Peer {
        Peer { identity, address: self.client.ip() }
    }
}

async fn http(
    worker: &Rc<Worker>,
    sock: Sock,
    record: ConnectionRecord,
    here: Here,
    peer: Peer,
    http2: bool,
) {
    record.hand_to_requests();
    let seating = |io, conn| Seating {
        conn,
        io,
        secure: peer.identity.is_some(),
        peer,
        client: Some(here.client),
        destination: Destination::Application { address: here.address, port: here.port },
        direction: Direction::Inbound,
    };
    stream::serve(worker, sock, http2, seating).await;
}

/// Bytes for the application: judged once, then relayed.
async fn bytes(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    mut sock: Sock,
    mut record: ConnectionRecord,
    here: Here,
    peer: Peer,
) {
    match authorize_bytes(worker, inbound, &peer, here.port) {
        Ok(policy) => policy.iter().for_each(|policy| record.policy(policy)),
        Err(by) => {
            by.policy().into_iter().for_each(|policy| record.policy(policy));
            return stream::refuse(worker, sock, record, by.reason());
        }
    }
    let target = Target::plain(here.address, worker.plane.limits.connect);
    let application = match connect::stream(worker, target).await {
        Ok(application) => application,
        Err(reason) if here.told => return decline(worker, sock, record, reason).await,
        Err(reason) => return stream::refuse(worker, sock, record, reason),
    };
    if here.told && taken::tell(&mut sock, Taken::Yes).await.is_err() {
        return stream::refuse(worker, sock, record, Reason::Cancelled);
    }
    let edge = edges::inbound(worker, &peer, here.port, Wire::Tcp);
    let forbidden = newly_denied(worker, &peer, here.port);
    stream::relay(worker, sock, application, record, &edge, forbidden).await;
}

/// Ends a connection that the application did not take, so that its caller may ask another endpoint.
async fn decline(worker: &Rc<Worker>, mut sock: Sock, mut record: ConnectionRecord, reason: Reason) {
    record.reason(reason);
    record.close(Ending::Failed(reason), worker.now());
    // A peer that does not listen any more needs no word.
    let _ = tokio::time::timeout(worker.plane.limits.connect, taken::decline(&mut sock)).await;
}

/// What a plaintext connection is looked at for. A port of bytes may have a probe by HTTP or gRPC: where
/// bytes would be refused, its requests are still to be told from others.
fn expected(inbound: &Inbound, declared: Protocol, peer: &Peer, port: u16) -> Protocol {
    match declared {
        Protocol::Tls | Protocol::Opaque
            if inbound.expects_probes(peer, port)
                && !inbound.authorize_connection(peer, port).is_allowed() =>
        {
            Protocol::Detect
        }
        declared => declared,
    }
}

/// A probe by TCP has ended before it said a word: whether the application listens is tried for the log,
/// and nothing is passed on.
async fn tcp_probe(worker: &Rc<Worker>, sock: Sock, mut record: ConnectionRecord, here: Here) {
    record.probe(Probe::Tcp);
    let target = Target::plain(here.address, worker.plane.limits.connect);
    match connect::stream(worker, target).await {
        Ok(_) => record.close(Ending::Complete, worker.now()),
        Err(reason) => stream::refuse(worker, sock, record, reason),
    }
}

/// A probe by HTTPS: the application's own TLS passes, whatever is asked within it.
async fn https_probe(worker: &Rc<Worker>, sock: Sock, mut record: ConnectionRecord, here: Here, peer: Peer) {
    record.probe(Probe::Https);
    let target = Target::plain(here.address, worker.plane.limits.connect);
    match connect::stream(worker, target).await {
        Ok(application) => {
            let edge = edges::inbound(worker, &peer, here.port, Wire::Tls);
            stream::relay(worker, sock, application, record, &edge, std::future::pending()).await;
        }
        Err(reason) => stream::refuse(worker, sock, record, reason),
    }
}

/// Ready when a newer configuration denies what was allowed: the only reason for which a policy ends an
/// open connection. Requests need no such watch, because each is judged.
async fn newly_denied(worker: &Worker, peer: &Peer, port: u16) -> Denial {
    let by = worker.newly_denied(|inbound| authorize_bytes(worker, inbound, peer, port).err()).await;
    tracing::info!(%by, port, "an open connection is newly denied");
    by
}

/// One request for the application.
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
    let (protocol, passed) = authorize(seat, exchange, &Head::of(&parts.method, &parts.uri, &parts.headers))?;
    if passed == Passed::ByPolicy {
        exchange.allow(Allowed::new(seat, &parts.method, &parts.uri));
    }
    let asked = Asked::of(&parts)?;
    let keep = hygiene::Keep { upgrade: asked == Asked::Upgrade, own: seat.secure };
    hygiene::scrub_request(&mut parts.headers, keep);
    if seat.secure {
        // A word between sidecars.
        parts.headers.remove(trace::TRACED);
    }
    exchange.note(|record| {
        record.forwarded(seat.worker.now());
        if let Some(context) = record.context() {
            trace::context::inject(context, &mut parts.headers);
        }
        record.stamp(&mut parts.headers);
    });
    let request = Box::new(Request::from_parts(parts, body));
    let response = forward(seat, exchange, request, protocol).await?;
    let agreed = seat.watch_upgrade(exchange, response.status(), asked)?;
    let mut response = relay::answer(exchange, seat, response, version, agreed)?;
    seat.end_without_tunnel(asked, agreed, &mut response);
    Ok(response)
}

/// Rooms 7 and 8. A link that the application closed before it took the request is replaced:
/// applications close idle connections whenever they like.
async fn forward(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    mut request: Outgoing,
    protocol: Protocol,
) -> Result<Response<Incoming>, Own> {
    let (mut tries, mut worst) = (0, None);
    let repeatable = request.method().is_idempotent() && request.body().is_end_stream();
    loop {
        tries += 1;
        // Only what may be repeated is copied.
        let spare = repeatable.then(|| spare::of(&request));
        let miss = match attempt(seat, exchange, request, protocol).await {
            Ok(response) => return Ok(response),
            Err(miss) => miss,
        };
        let stale = match miss.failure {
            Some(Failure::StaleConnection) => true,
            // A link from the pool may break under the request; a fresh one tells the truth.
            Some(Failure::ResetBeforeAnswer) => tries == 1,
            _ => false,
        };
        worst = miss.failure.map(|failure| failure.after(worst));
        let again = miss.unsent.or_else(|| spare.and_then(|spare| spare.into_request(None)));
        match again {
            Some(again) if stale && tries < MOST_TRIES => request = again,
            _ => return Err(seat.unanswered(miss.reason, worst)),
        }
    }
}

/// Links tried for one request. Source: as many attempts as the outbound side makes.
const MOST_TRIES: u32 = weft_proxy_core::retry::MAX_ATTEMPTS;

async fn attempt(
    seat: &Rc<Seat>,
    exchange: &Rc<Exchange>,
    request: Outgoing,
    protocol: Protocol,
) -> Result<Response<Incoming>, Miss> {
    let worker = &seat.worker;
    let Some((address, _)) = seat.application() else {
        return Err(Miss::unsent(Reason::UnknownDestination, request));
    };
    let links = worker.application(address);
    let target = Target::plain(address, worker.plane.limits.connect);
    let link = if speaks_http2(protocol, &request) {
        connect::http2(worker, &links, target).await
    } else {
        connect::http1(worker, &links, target).await
    };
    match link {
        Ok(link) => relay::relay(exchange, link, request, &seat.conn, &seat.io).await,
        Err(reason) => Err(Miss::unsent(reason, request)),
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
