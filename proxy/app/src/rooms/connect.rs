//! Room 7, **connect**: an endpoint in, a link to it out: pooled or fresh, mutual TLS to exactly the
//! identity that the endpoint is known to have.
//!
//! After *balance*, before *relay*. The hop's protocol is ours to choose: HTTP/1.1 requests go on
//! HTTP/1.1 links, HTTP/2 and gRPC on one shared HTTP/2 link, anything else on a stream of its own.
//!
//! Invariant: an endpoint with a known identity is never spoken to in plaintext.
//! Invariant: connect and handshake together stay within the backend's connect timeout.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use weft_proxy_core::{Endpoint, Hop, Identity, Reason, Taken, WorkloadName};
use weft_proxy_net::http::client::{Entered, Http1Link, Http2Link};
use weft_proxy_net::http::{Busy, Lease};
use weft_proxy_net::listen::{self, Way};
use weft_proxy_net::sock::{Io, Sock};
use weft_proxy_net::taken;

use crate::exchange::RequestBody;
use crate::metrics::edge::Direction;
use crate::metrics::plain::{Group, Handshake};
use crate::upstream::Links;
use crate::worker::Worker;

/// Where to connect, and as what.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) address: SocketAddr,
    /// Who must answer; `None`: plaintext.
    pub(crate) identity: Option<&'a Identity>,
    /// The pod that is called, where one is known.
    pub(crate) workload: Option<&'a WorkloadName>,
    /// Deadline of connect and handshake.
    pub(crate) timeout: Duration,
}

impl<'a> Target<'a> {
    /// An endpoint of a backend.
    pub(crate) fn endpoint(endpoint: &'a Endpoint, timeout: Duration) -> Self {
        let Endpoint { address, identity, workload, .. } = endpoint;
        Self { address: *address, identity: identity.as_ref(), workload: workload.as_ref(), timeout }
    }

    /// An address in plaintext: the application's, or one that the mesh knows nothing about.
    pub(crate) fn plain(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, identity: None, workload: None, timeout }
    }

    /// Where this very pod is called as the mesh calls it: from loopback, because that is how the
    /// redirection knows that its own inbound side is meant and not the application.
    fn source(&self, worker: &Worker) -> Option<IpAddr> {
        let own = self.identity.is_some()
            && worker.inbound().is_some_and(|inbound| Some(&inbound.workload) == self.workload);
        own.then(|| match self.address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        })
    }
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

/// A stream of bytes that the application at its end has taken. What another sidecar says about that is
/// waited for: a connection that it declines is as good as one that was never made.
pub(crate) async fn stream(worker: &Worker, target: Target<'_>) -> Result<Sock, Reason> {
    Box::pin(dial(worker, target, Hop::TcpTold)).await
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
        let way = Way { mark: worker.plane.limits.mark, source: target.source(worker) };
        let tcp = listen::connect_by(way, target.address, target.timeout)
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
    let plain = worker.ledger.metrics().plain();
    let count = |outcome| plain.handshakes(Direction::Outbound, outcome).up();
    match worker.dialer.connect(tcp, address, identity, hop).await {
        Ok((mut sock, peer)) => {
            count(if peer.resumed { Handshake::Resumed } else { Handshake::Full });
            plain.agreed(Direction::Outbound, Group::of(peer.group)).up();
            if peer.hop == Hop::TcpTold {
                return match taken::hear(&mut sock).await {
                    Ok(Taken::Yes) => Ok(sock),
                    Ok(Taken::No) => Err(Reason::ConnectRefused),
                    Err(_) => Err(Reason::UpstreamReset),
                };
            }
            Ok(sock)
        }
        Err(error) => {
            count(if error.is_certificate() { Handshake::BadCertificate } else { Handshake::Failed });
            plain.failures(Direction::Outbound).of(error.reason()).up();
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
