//! Connections to the control plane: TCP, TLS 1.3, its identity verified, ours shown or not.
//!
//! Stands under certify and subscribe, the only two that call the control plane.
//!
//! Invariant: the control plane's certificate is verified up to a root of the anchors file or of the
//! trust bundle, and its only URI name is exactly the identity we expect. Its DNS name is not looked
//! at: a control plane is who it proves to be, wherever it listens.
//! Invariant: the name is resolved at each connection, and each of its addresses is tried.
//! Invariant: every step has a deadline.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use weft_proxy_core::Identity;
use weft_proxy_core::names::NotAnIdentity;
use weft_proxy_net::tls::ExactServer;

use crate::certify::Credentials;
use crate::metrics::Metrics;
use crate::metrics::plain::Purpose;
use crate::resolve::resolve;
use crate::settings::{ControlPlane, Settings, TrustAnchors};

/// Deadline of resolving and connecting. Source: the TrafficPolicy default, 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Deadline of the TLS handshake. Source: as for downstreams, 10 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is asked for life this often. Source: Linkerd's HTTP/2 keepalive, 10 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And given up after this. Source: gRPC's keepalive timeout, 20 s; half of it, inside a cluster.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Receive windows: an epoch of thousands of resources should not wait for round trips.
/// Source: a quarter of the largest message.
const WINDOW: u32 = 16 << 20;
/// Largest message in either direction. Source: some hundred thousand endpoints; tonic's own is 4 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// How to reach the control plane.
#[derive(Debug, Clone)]
pub struct Dial {
    address: ControlPlane,
    identity: Identity,
    anchors: TrustAnchors,
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
}

/// What the sidecar shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: a token in the request will speak for it.
    Nothing,
    /// Its certificate.
    Certificate,
}

/// Why there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Neither an anchor nor a bundle.
    #[error("no root to verify the control plane with: {anchors}: {problem}; check --trust-anchors")]
    NoRoots {
        /// Where roots were looked for.
        anchors: String,
        /// What is wrong there.
        problem: String,
    },
    /// rustls refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The expected identity is none.
    #[error("--control-plane-identity: {0}")]
    Identity(#[from] NotAnIdentity),
    /// Resolving, connecting, the handshake or the verification failed.
    #[error("the control plane cannot be reached at {address}, as {identity}: {}", chain(.source))]
    Connect {
        /// Where.
        address: ControlPlane,
        /// Who was expected there.
        identity: Identity,
        /// Why.
        source: tonic::transport::Error,
    },
}

impl Dial {
    /// A way to the control plane that `settings` name, proving itself with `credentials`.
    ///
    /// # Errors
    /// [`DialError::Identity`]: the identity to expect is none.
    pub fn new(settings: &Settings, credentials: Arc<Credentials>) -> Result<Self, DialError> {
        Ok(Self {
            address: settings.control_plane.clone(),
            identity: Identity::parse(&settings.control_plane_identity.to_string())?,
            anchors: settings.trust_anchors.clone(),
            credentials,
            metrics: Arc::default(),
        })
    }

    /// Counts the names it resolves in `metrics`.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// A way to the control plane of `identity` at `address`, for who is no sidecar.
    pub(crate) fn to(
        address: ControlPlane,
        identity: Identity,
        anchors: TrustAnchors,
        credentials: Arc<Credentials>,
    ) -> Self {
        Self { address, identity, anchors, credentials, metrics: Arc::default() }
    }

    /// What it proves itself with.
    pub(crate) fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`DialError`].
    ///
    /// # Cancel safety
    /// Dropping it closes what was opened.
    pub async fn connect(&self, proof: Proof) -> Result<Channel, DialError> {
        let config = Arc::new(self.tls(proof)?);
        let failed = |source| DialError::Connect {
            address: self.address.clone(),
            identity: self.identity.clone(),
            source,
        };
        // The authority is for the request line only; the connector goes where the settings say.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(failed)?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let (address, metrics) = (self.address.clone(), Arc::clone(&self.metrics));
        let connector = tower::service_fn(move |_: http::Uri| {
            open(address.clone(), Arc::clone(&config), Arc::clone(&metrics))
        });
        endpoint.connect_with_connector(connector).await.map_err(failed)
    }

    fn tls(&self, proof: Proof) -> Result<ClientConfig, DialError> {
        let provider = weft_proxy_net::tls::provider();
        let verifier = ExactServer::new(self.identity.clone(), Arc::new(self.roots()?), &provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match proof {
            Proof::Nothing => builder.with_no_client_auth(),
            Proof::Certificate => {
                builder.with_client_cert_resolver(Arc::new(Shown(self.credentials.clone())))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// The anchors, a file's read anew because a mounted file changes, and the roots of the bundle: either
    /// may be ahead of the other while a root is being rotated.
    fn roots(&self) -> Result<RootCertStore, DialError> {
        let mut roots = RootCertStore::empty();
        let problem = match self.anchors.read() {
            Ok(anchors) => {
                roots.add_parsable_certificates(anchors);
                "it holds no certificate in PEM".to_owned()
            }
            Err(error) => error.to_string(),
        };
        if let Some(trust) = self.credentials.trust() {
            roots.add_parsable_certificates(trust.roots.iter().cloned());
        }
        if roots.is_empty() {
            return Err(DialError::NoRoots { anchors: self.anchors.to_string(), problem });
        }
        Ok(roots)
    }
}

async fn open(
    address: ControlPlane,
    config: Arc<ClientConfig>,
    metrics: Arc<Metrics>,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let late = |what: &'static str| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
    let tcp = reach(&metrics, Purpose::ControlPlane, (&address.host, address.port)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(address.host.clone())
        .or_else(|_| ServerName::try_from("control-plane.invalid"))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(late("no TLS handshake within 10 s"))??;
    Ok(TokioIo::new(tls))
}

/// A connection to the first address that takes one. Each gets its share of the time, so that one that
/// is silent leaves some for the others.
///
/// # Errors
/// The name cannot be resolved, or nobody answers.
///
/// # Cancel safety
/// Dropping it closes what was opened.
pub(crate) async fn reach(
    metrics: &Metrics,
    purpose: Purpose,
    (host, port): (&str, u16),
) -> io::Result<TcpStream> {
    let late = |what: String| io::Error::new(io::ErrorKind::TimedOut, what);
    let end = Instant::now() + CONNECT_TIMEOUT;
    let mut found = resolve(metrics, purpose, (host, port), end).await?.into_iter();
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    while let Some(target) = found.next() {
        let others = u32::try_from(found.len()).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / others.saturating_add(1);
        last = match tokio::time::timeout(share, TcpStream::connect(target)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => io::Error::new(error.kind(), format!("{target}: {error}")),
            Err(_) => late(format!("{target}: no connection within {} ms", share.as_millis())),
        };
        tracing::debug!(error = %last, host, "an address does not answer");
    }
    Err(last)
}

/// Shows the leaf that is current when the handshake asks.
#[derive(Debug)]
struct Shown(Arc<Credentials>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let leaf = self.0.alive(SystemTime::now())?;
        leaf.key.key.choose_scheme(schemes)?;
        Some(Arc::clone(&leaf.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// An error with all its causes in one line: the outer ones of tonic say nothing by themselves. Some errors say
/// their cause themselves: that is not said again.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Whether the peer took our certificate for none of its own: the way out is a new certificate.
///
/// In TLS 1.3 the refusal comes as an alert after our side of the handshake is done, so it is the
/// first call that fails. HTTP/2 passes a broken connection on to its streams as text only; the text
/// is rustls' own.
pub(crate) fn refused_our_certificate(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.to_string().contains(ALERT))
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// Source: the text of rustls' `Error::AlertReceived`; a test with a real refusal guards it.
const ALERT: &str = "received fatal alert";
