//! Who this sidecar is, and whom it trusts: swapped live.
//!
//! The certificate chore puts a new [`Generation`] into the one [`TlsIdentity`] all threads share, when the
//! certificate is renewed or the trust roots change. Handshakes that begin later use it; connections that
//! stand are not touched.
//!
//! Invariant: a generation never changes; certificate, key, roots, ticket keys and resumable sessions
//! belong together and go together.
//! Invariant: TLS 1.3 only, and never without a client certificate.

use super::peer::{BadPeer, peer_identity, validity};
use super::sessions::{Sessions, Tickets};
use super::verify::{AnyClient, ExactServer};
use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::sync::{Arc, OnceLock};
use weft_proxy_core::{Hop, Identity};

/// Tickets given with each handshake.
/// Source: a ticket is used once and each resumed connection brings a new one.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Why certificate, key and roots make no identity.
#[derive(Debug, thiserror::Error)]
pub enum BadIdentity {
    /// The certificate names nobody.
    #[error(transparent)]
    Name(#[from] BadPeer),
    /// The certificate's times cannot be read.
    #[error("the certificate's times cannot be read")]
    Times,
    /// A key that is not the certificate's, a root that is none.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Algorithms between sidecars, best first.
///
/// AES-128-GCM before AES-256 (5 % of CPU), X25519MLKEM768 before X25519 (safe against recorded traffic).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    Arc::clone(provider)
}

/// One certificate with its key, the roots of that moment, and all that follows from them.
#[derive(Debug)]
pub struct Generation {
    id: Identity,
    until: UnixTime,
    roots: Arc<RootCertStore>,
    key: Arc<SingleCertAndKey>,
    server: Arc<ServerConfig>,
    resumes: bool,
    clock: Arc<dyn TimeProvider>,
}

impl Generation {
    /// From our chain (leaf first), its key and the trust domain's roots.
    ///
    /// # Errors
    /// When they do not belong together or cannot be read.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, BadIdentity> {
        Self::with_clock(chain, key, roots, Arc::new(DefaultTimeProvider))
    }

    /// The same with a clock of the caller's: certificates expire by it.
    ///
    /// # Errors
    /// As [`Generation::new`].
    pub fn with_clock(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: &[CertificateDer<'static>],
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, BadIdentity> {
        Self::of(CertifiedKey::from_der(chain, key, &provider())?, roots, clock)
    }

    /// From a chain and a key that cannot be exported.
    ///
    /// # Errors
    /// As [`Generation::new`].
    pub fn of(
        key: CertifiedKey,
        roots: &[CertificateDer<'static>],
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, BadIdentity> {
        key.keys_match()?;
        let id = peer_identity(&key.cert)?;
        let (_, until) = key.cert.first().and_then(validity).ok_or(BadIdentity::Times)?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let roots = Arc::new(store);
        let key = Arc::new(SingleCertAndKey::from(key));
        let server = server_config(&roots, &key, until, &clock)?;
        Ok(Self { id, until, roots, key, server: Arc::new(server), resumes: true, clock })
    }

    /// The same, where every handshake is a full one: no tickets are given, none are used.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        let mut server = ServerConfig::clone(&self.server);
        server.send_tls13_tickets = 0;
        server.ticketer = Arc::new(NoTickets);
        self.server = Arc::new(server);
        self.resumes = false;
        self
    }

    /// Our own identity.
    #[must_use]
    pub fn id(&self) -> &Identity {
        &self.id
    }

    /// The moment from which our certificate is no longer good.
    #[must_use]
    pub fn until(&self) -> UnixTime {
        self.until
    }

    /// For accepting: a client certificate is required, Weft's own protocols are offered.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// The clock by which certificates expire.
    pub(crate) fn now(&self) -> Option<UnixTime> {
        self.clock.current_time()
    }

    /// For reaching `expected` and nobody else, with a session store of its own.
    ///
    /// # Errors
    /// When rustls refuses the algorithms, which it does for none of ours.
    pub fn client(&self, expected: &Identity) -> Result<ClientConfig, BadIdentity> {
        let verifier = ExactServer::new(expected.clone(), Arc::clone(&self.roots), &provider());
        let mut config = ClientConfig::builder_with_details(provider(), Arc::clone(&self.clock))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.key) as _);
        config.resumption = if self.resumes {
            Resumption::store(Arc::new(Sessions::default()))
        } else {
            Resumption::disabled()
        };
        // The name is only the key under which sessions are kept.
        config.enable_sni = false;
        Ok(config)
    }
}

/// Gives no tickets and takes none.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }
    fn lifetime(&self) -> u32 {
        0
    }
    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

fn server_config(
    roots: &Arc<RootCertStore>,
    key: &Arc<SingleCertAndKey>,
    until: UnixTime,
    clock: &Arc<dyn TimeProvider>,
) -> Result<ServerConfig, BadIdentity> {
    let verifier = AnyClient::new(Arc::clone(roots), provider())?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::clone(clock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(key) as _);
    config.alpn_protocols =
        [Hop::Http2, Hop::Http1, Hop::TcpTold, Hop::Tcp].map(|hop| hop.alpn().to_vec()).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Tickets::new(until, Arc::clone(clock))?);
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    Ok(config)
}

/// The identity all threads share; empty until the first certificate has come.
#[derive(Debug, Default)]
pub struct TlsIdentity(ArcSwapOption<Generation>);

impl TlsIdentity {
    /// No certificate yet.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// From now on, handshakes use `generation`.
    pub fn set(&self, generation: Generation) {
        self.0.store(Some(Arc::new(generation)));
    }

    /// What handshakes use now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Generation>> {
        self.0.load_full()
    }
}
