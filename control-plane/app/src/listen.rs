//! Accepts connections for the gRPC services: TLS with a deadline, a limit on how many, and the
//! peer's proven identity attached to each.
//!
//! Before it: `tls` made the configuration. After it: tonic serves what comes out of the queue, and
//! `serve` and `certify` find the [`Peer`] in each request's extensions.
//!
//! Invariant: a connection counts against the limit from its first byte to its last.
//! Invariant: a peer without a certificate has only as long as a first certificate takes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::metrics::{Metrics, Outcome};
use crate::peer::{Peer, prove};

/// Time for a TLS handshake. Source: Envoy's transport socket connect timeout, 10 s.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Life of a connection whose peer has no certificate. Source: one `Identity.Sign` takes milliseconds.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(30);
/// Accepted connections that wait for tonic to take them. Source: Weft's own; tonic takes them at once.
const QUEUE: usize = 64;
/// Pause after `accept` failed for want of descriptors. Source: hyper-util's own pause is a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one accept loop needs.
#[derive(Clone)]
pub struct Doorway {
    /// How to shake hands.
    pub acceptor: TlsAcceptor,
    /// Trust domain that peers must be of.
    pub trust_domain: Arc<str>,
    /// Connections at once; more are closed at once.
    pub connections: usize,
    /// Where outcomes are counted.
    pub metrics: Metrics,
    /// Stops accepting.
    pub stop: CancellationToken,
}

/// One connection with its peer.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

/// Accepts until stopped; connections come out of the returned queue.
pub fn accept(listener: TcpListener, doorway: Doorway) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(doorway.connections.min(Semaphore::MAX_PERMITS)));
        loop {
            let accepted = tokio::select! {
                () = doorway.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                Metrics::count(&doorway.metrics.connections, Outcome::OverLimit);
                continue;
            };
            tokio::spawn(admit(socket, address, permit, doorway.clone(), sender.clone()));
        }
    });
    receiver
}

async fn admit(
    socket: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
    doorway: Doorway,
    queue: mpsc::Sender<io::Result<Connection>>,
) {
    let (outcome, reason) = match shake(socket, address, &doorway).await {
        Ok((stream, peer)) => {
            let deadline = peer.identity.is_none().then(|| Box::pin(tokio::time::sleep(ANONYMOUS_LIFE)));
            Metrics::count(&doorway.metrics.connections, Outcome::Accepted);
            let _ = queue.send(Ok(Connection { stream, peer, deadline, _permit: permit })).await;
            return;
        }
        Err(refused) => refused,
    };
    Metrics::count(&doorway.metrics.connections, outcome);
    tracing::info!(%address, reason, "connection refused");
}

async fn shake(
    socket: TcpStream,
    address: SocketAddr,
    doorway: &Doorway,
) -> Result<(TlsStream<TcpStream>, Peer), (Outcome, String)> {
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, doorway.acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err((Outcome::HandshakeFailed, error.to_string())),
        Err(_) => return Err((Outcome::HandshakeTimeout, "no handshake in time".to_owned())),
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = leaf.map(|leaf| prove(leaf, &doorway.trust_domain)).transpose();
    let identity = identity.map_err(|reason| (Outcome::ForeignIdentity, reason))?;
    Ok((stream, Peer { address, identity }))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let text = "a connection without a certificate has ended its time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
