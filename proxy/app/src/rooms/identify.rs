//! Room 2, **identify**: an accepted connection in, who is at the other end out.
//!
//! After *accept*, before *detect*. Inbound only: the first bytes tell whether the peer speaks the
//! mesh's own TLS (its ALPN names are ours); then mutual TLS ends here. Any other TLS is the
//! application's, and passes as bytes.
//!
//! Invariant: an identity comes from a verified certificate and from nowhere else.

use weft_proxy_core::{Detection, Hop, Identity, Reason, client_hello, detect};
use weft_proxy_net::sock::Sock;

use crate::metrics::edge::Direction;
use crate::metrics::plain::Handshake;
use crate::worker::Worker;

/// Who is at the other end.
pub(crate) enum Session {
    /// A sidecar of the mesh that proved who it is, and what it brings.
    Proven { sock: Sock, identity: Identity, hop: Hop },
    /// A peer without the mesh's TLS; its first bytes are still unread.
    Plain { sock: Sock, seen: Detection },
}

/// Finds out who is there, from first bytes that are already at hand.
pub(crate) async fn identify(worker: &Worker, sock: Sock) -> Result<Session, Reason> {
    let seen = detect(sock.unread_bytes());
    let ours = seen == Detection::Tls
        && client_hello(sock.unread_bytes()).is_some_and(|hello| hello.alpn().any(|name| Hop::of(name).is_some()));
    if !ours {
        return Ok(Session::Plain { sock, seen });
    }
    let handshakes = |outcome| worker.ledger.metrics().plain().handshakes(Direction::Inbound, outcome).up();
    let shaking = worker.plane.identity.accept(sock);
    let accepted = match tokio::time::timeout(worker.plane.limits.handshake, Box::pin(shaking)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            handshakes(if error.is_certificate() { Handshake::BadCertificate } else { Handshake::Failed });
            tracing::info!(%error, "inbound handshake failed");
            return Err(Reason::DownstreamTls);
        }
        Err(_) => {
            handshakes(Handshake::TimedOut);
            return Err(Reason::DownstreamTls);
        }
    };
    handshakes(if accepted.resumed { Handshake::Resumed } else { Handshake::Full });
    let hop = Hop::of(&accepted.alpn).ok_or(Reason::DownstreamTls)?;
    let identity = Identity::parse(&accepted.identity).map_err(|_| Reason::DownstreamTls)?;
    Ok(Session::Proven { sock: accepted.sock, identity, hop })
}
