//! Both sides of a handshake between sidecars: identify (inbound) and connect (outbound).
//!
//! Invariant: whoever returns from here with a [`Peer`] proved that identity with a certificate that is valid
//! now; a resumed session proved it earlier and is looked at again.

use super::engine::Session;
use super::identity::{BadIdentity, Generation, TlsIdentity};
use super::peer::{BadPeer, peer_identity, validity};
use super::stream::Tls;
use super::verify::is_exactly;
use crate::buffers::Rest;
use crate::sock::Sock;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{CertificateError, ClientConfig, HandshakeKind, OtherError};
use rustls_pki_types::ServerName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;
use weft_proxy_core::{Hop, Identity};

/// Identities whose client configuration one thread keeps.
/// Source: far above the identities a sidecar calls; about 1 KiB each without sessions.
const CONFIGS: usize = 4096;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The identity that was proved.
    pub identity: Identity,
    /// What the connection carries.
    pub hop: Hop,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The group that the keys were exchanged on, by its name at IANA; `None`: none was.
    pub group: Option<&'static str>,
}

/// Why a handshake ended without a connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// We have no certificate yet.
    #[error("no certificate has been issued to this sidecar yet")]
    NoIdentity,
    /// The connection failed or ended.
    #[error("the connection failed during the handshake: {0}")]
    Io(#[from] io::Error),
    /// A rule of TLS was broken, or a certificate refused.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer's certificate names nobody, or not whom it should.
    #[error(transparent)]
    Peer(#[from] BadPeer),
    /// The peer speaks none of Weft's protocols.
    #[error("the peer agreed on none of Weft's protocols")]
    NoHop,
    /// Our own configuration could not be made.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
}

impl TlsError {
    /// Whether a certificate was not acceptable.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        matches!(
            self,
            Self::Tls(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
                | Self::Peer(_)
        )
    }

    /// Whether the peer proved another identity than the expected one.
    #[must_use]
    pub fn is_wrong_identity(&self) -> bool {
        self.reason() == "wrong_identity"
    }

    /// One word for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use CertificateError as C;
        match self {
            Self::NoIdentity | Self::Identity(_) => "no_identity",
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => "closed",
            Self::Io(_) => "io",
            Self::Peer(BadPeer::NotNow) => "certificate_expired",
            Self::Peer(_) => "wrong_identity",
            Self::NoHop | Self::Tls(rustls::Error::NoApplicationProtocol) => "no_protocol",
            Self::Tls(rustls::Error::NoCertificatesPresented) => "no_certificate",
            Self::Tls(rustls::Error::AlertReceived(_)) => "refused_by_peer",
            Self::Tls(rustls::Error::InvalidCertificate(why)) => match why {
                C::Expired | C::ExpiredContext { .. } => "certificate_expired",
                C::NotValidYet | C::NotValidYetContext { .. } => "certificate_not_yet_valid",
                C::UnknownIssuer => "unknown_issuer",
                C::Other(OtherError(why)) if why.is::<BadPeer>() => "wrong_identity",
                _ => "bad_certificate",
            },
            Self::Tls(_) => "protocol",
        }
    }
}

/// Accepts TLS from another sidecar; `already` was read from the socket before (detection).
///
/// # Errors
/// When the peer proves no identity, speaks nothing of ours, or the connection fails.
///
/// # Cancel safety
/// When dropped, the connection is closed.
pub async fn accept(
    tcp: TcpStream,
    already: &[u8],
    generation: &Generation,
) -> Result<(Sock, Peer), TlsError> {
    let connection = UnbufferedServerConnection::new(Arc::clone(generation.server()))?;
    let mut tls = Box::new(Tls::new(tcp, Session::Server(connection)));
    tls.preload(already);
    let (tls, left) = finish(tls).await?;
    let chain = tls.state().peer_certificates().unwrap_or_default();
    let identity = peer_identity(chain)?;
    let peer = agreed(&tls, identity, generation)?;
    Ok((Sock::tls(tls, left), peer))
}

/// Carries the handshake to its end; rustls' own error is taken out of the stream's.
async fn finish(mut tls: Box<Tls>) -> Result<(Box<Tls>, Rest), TlsError> {
    let mut left = Rest::new();
    match poll_fn(|cx| tls.poll_handshake(cx, &mut left)).await {
        Ok(()) => Ok((tls, left)),
        Err(error) => Err(match error.downcast::<rustls::Error>() {
            Ok(error) => TlsError::Tls(error),
            Err(error) => TlsError::Io(error),
        }),
    }
}

/// What was agreed; a resumed session's certificate must still be valid.
fn agreed(tls: &Tls, identity: Identity, generation: &Generation) -> Result<Peer, TlsError> {
    let state = tls.state();
    let hop = state.alpn_protocol().and_then(Hop::of).ok_or(TlsError::NoHop)?;
    let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
    if resumed {
        let leaf = state.peer_certificates().and_then(<[_]>::first).ok_or(BadPeer::None)?;
        let (from, until) = validity(leaf).ok_or(BadPeer::Unreadable)?;
        let now = generation.now().ok_or(BadPeer::NotNow)?;
        if now < from || now > until {
            return Err(BadPeer::NotNow.into());
        }
    }
    let group = state.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    Ok(Peer { identity, hop, resumed, group })
}

/// Reaches other sidecars from one thread; keeps a configuration with sessions for each identity.
#[derive(Debug)]
pub struct Dialer {
    identity: Arc<TlsIdentity>,
    known: RefCell<Known>,
}

/// Configurations made from one generation.
#[derive(Debug, Default)]
struct Known {
    generation: Option<Arc<Generation>>,
    configs: HashMap<Identity, Arc<ClientConfig>>,
}

impl Dialer {
    /// Dials as `identity`.
    #[must_use]
    pub fn new(identity: Arc<TlsIdentity>) -> Self {
        Self { identity, known: RefCell::default() }
    }

    /// Makes `tcp`, which leads to `endpoint`, a TLS connection to `expected` that carries `hop`,
    /// or what an older sidecar offers for it.
    ///
    /// # Errors
    /// When the peer is not exactly `expected`, does not speak `hop`, or the connection fails.
    ///
    /// # Cancel safety
    /// When dropped, the connection is closed.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        endpoint: SocketAddr,
        expected: &Identity,
        hop: Hop,
    ) -> Result<(Sock, Peer), TlsError> {
        let (generation, config) = self.config(expected)?;
        let alpn = hop.offers().iter().map(|hop| hop.alpn().to_vec()).collect();
        let connection = UnbufferedClientConnection::new_with_alpn(config, session_key(endpoint)?, alpn)?;
        let tls = Box::new(Tls::new(tcp, Session::Client(connection)));
        let (tls, left) = finish(tls).await?;
        let chain = tls.state().peer_certificates().unwrap_or_default();
        let identity = is_exactly(expected, chain)?;
        let peer = agreed(&tls, identity, &generation)?;
        if !hop.offers().contains(&peer.hop) {
            return Err(TlsError::NoHop);
        }
        Ok((Sock::tls(tls, left), peer))
    }

    /// The configuration for `expected`; all are dropped, with their sessions, when our identity changes.
    fn config(&self, expected: &Identity) -> Result<(Arc<Generation>, Arc<ClientConfig>), TlsError> {
        let current = self.identity.current().ok_or(TlsError::NoIdentity)?;
        let mut known = self.known.borrow_mut();
        if !known.generation.as_ref().is_some_and(|generation| Arc::ptr_eq(generation, &current)) {
            *known = Known { generation: Some(Arc::clone(&current)), configs: HashMap::new() };
        }
        if let Some(config) = known.configs.get(expected) {
            return Ok((current, Arc::clone(config)));
        }
        if known.configs.len() >= CONFIGS {
            known.configs.clear();
        }
        let config = Arc::new(current.client(expected)?);
        known.configs.insert(expected.clone(), Arc::clone(&config));
        Ok((current, config))
    }
}

/// The name under which rustls keeps an endpoint's sessions. Never sent, never verified: two endpoints of one
/// address differ by port, which an address alone would not say.
fn session_key(endpoint: SocketAddr) -> Result<ServerName<'static>, TlsError> {
    let address = match endpoint.ip() {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let name = format!("e{address:x}.p{}", endpoint.port());
    ServerName::try_from(name).map_err(|error| TlsError::Io(io::Error::other(error)))
}
