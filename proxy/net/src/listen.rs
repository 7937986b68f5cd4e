//! Listening, accepting and dialling TCP: the first and the last socket of the walk.
//!
//! Invariant: accepting never ends while the listener lives; a process out of descriptors waits and goes on.
//! Invariant: every connection has `TCP_NODELAY` and asks a silent peer whether it is alive.
//!
//! `TCP_USER_TIMEOUT` is not set: Linux (seen on 6.18) also applies it to a peer that is alive and merely does
//! not read, and a slow reader is no dead one. Data on its way to a dead peer is bounded by the idle deadline.

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections the kernel holds before we accept them.
/// Source: several seconds of handshakes at a saturated core; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 8192;

/// Silence after which the kernel asks whether the peer is alive, and how often it asks.
/// Source: below the 350 s after which common cloud load balancers forget a connection.
const ALIVE_AFTER: Duration = Duration::from_secs(60);
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const ALIVE_PROBES: u32 = 4;

/// First and longest pause after a failed accept.
/// Source: 5 ms lets other tasks close descriptors; 1 s is hyper's and Go's upper bound.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How a listener is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Several threads listen on the same port, each with a socket of its own.
    pub shared: bool,
    /// An IPv6 listener takes IPv6 only, so that an IPv4 one can stand beside it.
    pub only_v6: bool,
}

impl Bind {
    /// On `address`, alone.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        Self { address, shared: false, only_v6: false }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds and listens. All addresses of IPv6 (`[::]`) means all of IPv4 where IPv6 is switched off.
    ///
    /// # Errors
    /// When the address is taken, foreign or forbidden.
    pub fn bind(bind: Bind) -> Result<Self> {
        match Self::bind_exactly(bind) {
            Err(error)
                if bind.address.is_ipv6() && bind.address.ip().is_unspecified() && lacks_v6(&error) =>
            {
                let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), bind.address.port());
                tracing::info!(%address, "IPv6 is off: listening on IPv4 only");
                Self::bind_exactly(Bind { address, ..bind })
            }
            bound => bound,
        }
    }

    fn bind_exactly(bind: Bind) -> Result<Self> {
        let domain = Domain::for_address(bind.address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if bind.shared {
            socket.set_reuse_port(true)?;
        }
        if domain == Domain::IPV6 {
            socket.set_only_v6(bind.only_v6)?;
        }
        socket.bind(&SockAddr::from(bind.address))?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into()).map(Self)
    }

    /// The listener itself, for a server that accepts for itself.
    #[must_use]
    pub fn into_inner(self) -> TcpListener {
        self.0
    }

    /// The address listened on, with the port the kernel chose.
    ///
    /// # Errors
    /// Never in practice; the kernel is asked.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection, and its peer with an IPv4 address as such. Failures are waited out and written to the log; the backlog holds meanwhile.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut pause = PAUSE.0;
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    prepare(&stream);
                    return (stream, unmapped(peer));
                }
                Err(error) if is_one_connections(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(%error, ?pause, "cannot accept connections");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }
}

/// Whether the kernel has no IPv6, or has it switched off.
fn lacks_v6(error: &Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Whether the error concerns one connection only, not the listener or the process.
fn is_one_connections(error: &Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What every connection gets; an option the kernel refuses leaves a connection that works.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let alive =
        TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_EVERY).with_retries(ALIVE_PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&alive);
}

/// Where the connection was going before it was redirected here; `None` when it was not redirected.
///
/// A destination equal to the socket's own address is no redirection: somebody called the listener itself,
/// and following it would be a loop.
#[must_use]
pub fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let local = unmapped(stream.local_addr().ok()?);
    let socket = SockRef::from(stream);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let found = unmapped(found.ok()?.as_socket()?);
    (found != local && found.port() != 0).then_some(found)
}

/// An IPv4 address that a dual-stack listener sees as IPv6, as IPv4.
#[must_use]
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => SocketAddr::new(v6.to_canonical(), address.port()),
        IpAddr::V4(_) => address,
    }
}

/// How a connection leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// A firewall mark, when the redirection goes by marks.
    pub mark: Option<u32>,
    /// The address it comes from; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
}

/// Dials `address` from where the kernel chooses.
///
/// # Errors
/// As [`connect_by`].
///
/// # Cancel safety
/// When dropped, the connection is closed.
pub async fn connect(address: SocketAddr, within: Duration) -> Result<TcpStream> {
    connect_by(Way::default(), address, within).await
}

/// Dials `address` in the given way.
///
/// # Errors
/// [`ErrorKind::TimedOut`] after `within`; otherwise what the kernel says.
///
/// # Cancel safety
/// When dropped, the connection is closed.
pub async fn connect_by(way: Way, address: SocketAddr, within: Duration) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = way.mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    if let Some(source) = way.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = match crate::sweep::deadline(socket.connect(address), within).await {
        Ok(stream) => stream?,
        Err(too_late) => return Err(Error::new(ErrorKind::TimedOut, too_late)),
    };
    // The kernel may connect a dial to a port of this host with nobody listening to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    prepare(&stream);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn loopback() -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)
    }

    #[tokio::test(flavor = "local")]
    async fn shared_listeners_stand_on_one_port_and_a_lone_one_does_not() {
        let first = Listener::bind(Bind { shared: true, ..Bind::to(loopback()) }).unwrap();
        let address = first.local_addr().unwrap();
        Listener::bind(Bind { shared: true, ..Bind::to(address) }).unwrap();
        let lone = Listener::bind(Bind::to(address)).unwrap_err();
        assert_eq!(lone.kind(), ErrorKind::AddrInUse);
    }

    #[tokio::test(flavor = "local")]
    async fn accepted_and_dialled_connections_are_prepared_and_not_redirected() {
        let listener = Listener::bind(Bind::to(loopback())).unwrap();
        let address = listener.local_addr().unwrap();
        let within = Duration::from_secs(20);
        let (dialled, (accepted, peer)) = tokio::join!(connect(address, within), listener.accept());
        let dialled = dialled.unwrap();
        assert_eq!(dialled.local_addr().unwrap(), peer);
        for stream in [&dialled, &accepted] {
            assert!(stream.nodelay().unwrap());
            assert!(SockRef::from(stream).keepalive().unwrap());
            assert_eq!(original_dst(stream), None);
        }
    }

    #[tokio::test(flavor = "local")]
    async fn dialling_a_closed_port_is_refused() {
        let address = Listener::bind(Bind::to(loopback())).unwrap().local_addr().unwrap();
        let refused = connect(address, Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test(flavor = "local")]
    async fn dialling_into_silence_is_given_up_in_time() {
        // TEST-NET-1 leads nowhere; where a host answers for it, any failure but a connection is right.
        let nowhere = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 9);
        let error = connect(nowhere, Duration::from_millis(50)).await.unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::TimedOut
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::ConnectionRefused
            ),
            "{error}"
        );
    }

    #[test]
    fn mapped_addresses_are_shown_as_what_they_are() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(unmapped(mapped), "10.0.0.1:80".parse().unwrap());
        let real: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(unmapped(real), real);
    }
}
