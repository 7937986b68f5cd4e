//! Room 3, **detect**: a connection in, what it speaks out.
//!
//! After *identify*, before *authorize*. A declared protocol is believed, except that HTTP/2 with prior
//! knowledge is recognised on an HTTP port. Where nothing is declared the first bytes decide; a client
//! that stays silent is given [`PATIENCE`], and then the upstream is asked as well, because in many
//! protocols the server speaks first.
//!
//! Invariant: nobody waits for seconds to learn that a server speaks first.
//! Invariant: what was looked at is still unread.

use std::time::Duration;

use weft_proxy_core::detect::{hello_length, taken_for};
use weft_proxy_core::spec::Protocol;
use weft_proxy_core::{Detection, detect};
use weft_proxy_net::peek::{Seen, Step, peek};
use weft_proxy_net::sock::Sock;

use crate::metrics::edge::Direction;
use crate::metrics::plain::Guess;
use crate::worker::Worker;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    /// The application's own TLS.
    Tls,
    /// Anything else.
    Bytes,
    /// Nothing yet: the client waits for the server.
    Silence,
}

/// How long a client may stay silent before the upstream is asked as well. Source: clients that speak
/// first do so with the handshake's last packet; 20 ms covers a network's delay between two zones.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Bytes came.
    Bytes,
    /// None came in time.
    Silence,
    /// It ended before any came.
    End,
}

/// Waits for the first bytes of a connection whose client speaks first, up to `wait`.
pub(crate) async fn first_bytes(sock: &mut Sock, wait: Duration) -> First {
    let looking = peek(sock, 1, |_| Step::Done(()));
    match tokio::time::timeout(wait, looking).await {
        Ok(Ok(Seen::Told(()) | Seen::Full)) => First::Bytes,
        Ok(Ok(Seen::Ended) | Err(_)) => First::End,
        Err(_) => First::Silence,
    }
}

/// Finds out what a connection speaks.
pub(crate) async fn find(
    worker: &Worker,
    direction: Direction,
    declared: Protocol,
    sock: &mut Sock,
) -> Spoken {
    match declared {
        Protocol::Opaque => return Spoken::Bytes,
        Protocol::Tls => return Spoken::Tls,
        Protocol::Http1 | Protocol::Http2 | Protocol::Detect => {}
    }
    let known = declared != Protocol::Detect;
    let wait = if known { worker.plane.limits.live.idle } else { PATIENCE };
    if first_bytes(sock, wait).await != First::Bytes {
        return Spoken::Silence;
    }
    let seen = settle(worker, sock).await;
    if !known {
        let guess = match seen {
            Detection::Http1 => Guess::Http1,
            Detection::Http2 => Guess::Http2,
            Detection::Tls => Guess::Tls,
            Detection::Opaque | Detection::More => Guess::Opaque,
        };
        worker.ledger.metrics().plain().guesses(direction, guess).up();
    }
    match taken_for(declared, seen) {
        Detection::Http1 => Spoken::Http1,
        Detection::Http2 => Spoken::Http2,
        Detection::Tls => Spoken::Tls,
        Detection::Opaque | Detection::More => Spoken::Bytes,
    }
}

/// Reads on until a handshake's first record is there whole: the mesh's own, with a key that is safe for
/// long, fills more than one packet.
pub(crate) async fn whole_hello(worker: &Worker, sock: &mut Sock) {
    let is_there = |bytes: &[u8]| hello_length(bytes).is_some_and(|length| bytes.len() >= length);
    let looking = peek(sock, worker.plane.limits.detect_bytes, |bytes| {
        if is_there(bytes) { Step::Done(()) } else { Step::More }
    });
    match tokio::time::timeout(worker.plane.limits.detect, looking).await {
        Ok(Ok(Seen::Full)) => worker.limit_hit("detect_bytes"),
        Ok(Ok(Seen::Told(()) | Seen::Ended) | Err(_)) => {}
        Err(_) => worker.limit_hit("detect_timeout"),
    }
}

/// Reads on while the bytes at hand could still become one thing or another.
pub(crate) async fn settle(worker: &Worker, sock: &mut Sock) -> Detection {
    let looking = peek(sock, worker.plane.limits.detect_bytes, |bytes| match detect(bytes) {
        Detection::More => Step::More,
        seen => Step::Done(seen),
    });
    match tokio::time::timeout(worker.plane.limits.detect, looking).await {
        Ok(Ok(Seen::Told(seen))) => seen,
        Ok(Ok(Seen::Full)) => {
            worker.limit_hit("detect_bytes");
            Detection::Opaque
        }
        Err(_) => {
            worker.limit_hit("detect_timeout");
            Detection::Opaque
        }
        Ok(_) => Detection::Opaque,
    }
}
