//! Room 7, **connect**: an endpoint in, a link to it out: pooled or fresh, mutual TLS to exactly the
//! identity that the endpoint is known to have.
//!
//! After *balance*, before *relay*. The hop's protocol is ours to choose: HTTP/1.1 requests go on
//! HTTP/1.1 links, HTTP/2 and gRPC on one shared HTTP/2 link, anything else on a stream of its own.
//!
//! Invariant: an endpoint with a known identity is never spoken to in plaintext.
//! Invariant: connect and handshake together stay within the backend's connect timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use weft_proxy_core::{Hop, Identity, Reason};
use weft_proxy_net::http::client::{Entered, Http1Link, Http2Link};
use weft_proxy_net::http::{Busy, Lease};
use weft_proxy_net::listen;
use weft_proxy_net::sock::{Io, Sock};

use crate::exchange::RequestBody;
use crate::metrics::edge::Direction;
use crate::metrics::plain::Handshake;
use crate::upstream::Links;
use crate::worker::Worker;

/// Where to connect, and as what.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) address: SocketAddr,
    /// Who must answer; `None`: plaintext.
    pub(crate) identity: Option<&'a Identity>,
    /// Deadline of connect and handshake.
    pub(crate) timeout: Duration,
}

/// A link for one request.
pub(crate) enum Link {
    /// HTTP/1.1, all of it.
    Http1(Lease<RequestBody>),
    /// A stream on a shared HTTP/2 connection; `reused`: it was open before.
    Http2 { link: Http2Link<RequestBody>, entered: Entered, reused: bool },
}

/// An HTTP/1.1 link.
pub(crate) async fn http1(worker: &Worker, links: &Links, target: Target<'_>) -> Result<Link, Reason> {
    let dial = async || {
        let io = dial(worker, target, Hop::Http1).await?;
        Http1Link::start(Io::new(io), worker.plane.limits.serve.head)
            .await
            .map_err(|_| Reason::UpstreamProtocol)
    };
    if let Some(lease) = links.take_idle() {
        return Ok(Link::Http1(lease));
    }
    Box::pin(links.take(dial)).await.map(Link::Http1).map_err(busy)
}

/// A stream on an HTTP/2 link.
pub(crate) async fn http2(worker: &Worker, links: &Links, target: Target<'_>) -> Result<Link, Reason> {
    if let Some((link, entered)) = links.share_open() {
        return Ok(Link::Http2 { link, entered, reused: true });
    }
    let dial = async || {
        let io = dial(worker, target, Hop::Http2).await?;
        Http2Link::start(Io::new(io), worker.plane.limits.serve.http2)
            .await
            .map_err(|_| Reason::UpstreamProtocol)
    };
    let (link, entered, reused) = Box::pin(links.share(dial)).await.map_err(busy)?;
    Ok(Link::Http2 { link, entered, reused })
}

/// A stream of bytes.
pub(crate) async fn stream(worker: &Worker, target: Target<'_>) -> Result<Sock, Reason> {
    Box::pin(dial(worker, target, Hop::Tcp)).await
}

fn busy(busy: Busy<Reason>) -> Reason {
    match busy {
        Busy::Overflow => Reason::PendingOverflow,
        Busy::TimedOut => Reason::ConnectionOverflow,
        Busy::Dial(reason) => reason,
    }
}

async fn dial(worker: &Worker, target: Target<'_>, hop: Hop) -> Result<Sock, Reason> {
    let dialing = async {
        let tcp = listen::connect(target.address, target.timeout, worker.plane.limits.mark)
            .await
            .map_err(|error| connect_reason(&error))?;
        match target.identity {
            None => Ok(Sock::tcp(tcp)),
            Some(identity) => secure(worker, tcp, target.address, identity, hop).await,
        }
    };
    tokio::time::timeout(target.timeout, dialing).await.unwrap_or(Err(Reason::ConnectTimeout))
}

async fn secure(
    worker: &Worker,
    tcp: TcpStream,
    address: SocketAddr,
    identity: &Identity,
    hop: Hop,
) -> Result<Sock, Reason> {
    let count = |outcome| worker.ledger.metrics().plain().handshakes(Direction::Outbound, outcome).up();
    match worker.dialer.connect(tcp, address, identity, hop).await {
        Ok((sock, peer)) => {
            count(if peer.resumed { Handshake::Resumed } else { Handshake::Full });
            Ok(sock)
        }
        Err(error) => {
            count(if error.is_certificate() { Handshake::BadCertificate } else { Handshake::Failed });
            tracing::info!(%error, %address, expected = identity.as_str(), "outbound handshake failed");
            Err(if error.is_wrong_identity() { Reason::WrongIdentity } else { Reason::TlsFailure })
        }
    }
}

fn connect_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectRefused,
    }
}
