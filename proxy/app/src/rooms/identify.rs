//! Room 2, **identify**: an accepted connection in, who is at the other end out.
//!
//! After *accept*, before *detect*. Inbound only: the first bytes tell whether the peer speaks the
//! mesh's own TLS (its ALPN names are ours); then mutual TLS ends here. Any other TLS is the
//! application's, and passes as bytes.
//!
//! Invariant: an identity comes from a verified certificate and from nowhere else.

use weft_proxy_core::{Detection, Hop, Reason, client_hello, detect};
use weft_proxy_net::sock::Sock;
use weft_proxy_net::tls::{self, Peer, TlsError};

use crate::metrics::edge::Direction;
use crate::metrics::plain::{Group, Handshake};
use crate::worker::Worker;

/// Who is at the other end.
pub(crate) enum Session {
    /// A sidecar of the mesh that proved who it is, and what it brings.
    Proven { sock: Sock, peer: Peer },
    /// A peer without the mesh's TLS; its first bytes are still unread.
    Plain { sock: Sock },
}

/// Finds out who is there, from first bytes that are already at hand.
pub(crate) async fn identify(worker: &Worker, sock: Sock) -> Result<Session, Reason> {
    let ours = detect(sock.unread_bytes()) == Detection::Tls
        && client_hello(sock.unread_bytes())
            .is_some_and(|hello| hello.alpn().any(|name| Hop::of(name).is_some()));
    if !ours {
        return Ok(Session::Plain { sock });
    }
    let plain = worker.ledger.metrics().plain();
    let count = |outcome| plain.handshakes(Direction::Inbound, outcome).up();
    let shaking = Box::pin(handshake(worker, sock));
    match tokio::time::timeout(worker.plane.limits.handshake, shaking).await {
        Ok(Ok((sock, peer))) => {
            count(if peer.resumed { Handshake::Resumed } else { Handshake::Full });
            plain.agreed(Direction::Inbound, Group::of(peer.group)).up();
            Ok(Session::Proven { sock, peer })
        }
        Ok(Err(error)) => {
            count(if error.is_certificate() { Handshake::BadCertificate } else { Handshake::Failed });
            plain.failures(Direction::Inbound).of(error.reason()).up();
            tracing::info!(%error, "inbound handshake failed");
            Err(Reason::DownstreamTls)
        }
        Err(_) => {
            count(Handshake::TimedOut);
            plain.failures(Direction::Inbound).of("timed_out").up();
            worker.limit_hit("handshake_timeout");
            Err(Reason::DownstreamTls)
        }
    }
}

async fn handshake(worker: &Worker, sock: Sock) -> Result<(Sock, Peer), TlsError> {
    let generation = worker.plane.identity.current().ok_or(TlsError::NoIdentity)?;
    let (tcp, left) = sock.into_tcp().ok_or(TlsError::NoHop)?;
    tls::accept(tcp, left.as_slice(), &generation).await
}
