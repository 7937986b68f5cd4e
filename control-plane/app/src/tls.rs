//! The server side of TLS: 1.3 only, post-quantum key exchange first, client certificates when the
//! peer has one, and a leaf of our own that is renewed while connections stay.
//!
//! Before it: `authority`. After it: `listen` accepts with the configuration made here.
//!
//! Invariant: whose certificates are taken is what the authority trusts at that moment.
//! Invariant: no session resumption, so no peer outlives its certificate through a ticket.

mod own;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use weft_proto::names::SpiffeId;

use self::own::OwnServer;
use self::verify::LiveVerifier;
use crate::authority::Authority;
use crate::clock::unix_now;
use crate::metrics::{Metrics, Outcome};

/// Namespace of the control plane's own identity, unless told otherwise. Source: the installation's
/// default.
pub const OWN_NAMESPACE: &str = "weft-system";
/// Service account of the control plane's own identity. Source: the installation's account.
pub const OWN_SERVICE_ACCOUNT: &str = "weft-control-plane";
/// Longest time between looks at the leaf's age. Source: Weft's own; the wall clock may jump.
const RENEWAL_CHECK: u64 = 60;
/// The protocol on the connection. Source: RFC 9113 §3.2.
const ALPN: &[u8] = b"h2";

/// The control plane's own certificate, swapped live.
#[derive(Debug)]
pub struct OwnCertificate {
    id: SpiffeId,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renew_after: u64,
    not_after: u64,
}

impl OwnCertificate {
    /// Issues the first one.
    ///
    /// # Errors
    /// The authority cannot sign.
    pub fn issue(authority: &Authority, namespace: &str) -> anyhow::Result<Self> {
        let id = own_identity(authority.trust_domain(), namespace);
        Ok(Self { current: ArcSwap::from_pointee(issue(authority, &id)?), id })
    }

    /// Renews it for as long as the process lives, and at once when the authority signs with something
    /// else; a failure is logged and tried again.
    ///
    /// # Cancel safety
    /// Dropping it stops the renewal; the current certificate stays.
    pub async fn renew(&self, authority: &Authority, metrics: &Metrics) {
        let mut changes = authority.changes();
        loop {
            let end = self.current.load().not_after;
            metrics.certificate_expiry.set(i64::try_from(end).unwrap_or(i64::MAX));
            let due = self.current.load().renew_after.saturating_sub(unix_now());
            let pause = tokio::time::sleep(Duration::from_secs(due.clamp(1, RENEWAL_CHECK)));
            let changed = tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                () = pause => false,
            };
            let now = if changed { u64::MAX } else { unix_now() };
            match self.renew_if_due(authority, now) {
                Ok(false) => {}
                Ok(true) => {
                    Metrics::count(&metrics.certificates, Outcome::Own);
                    tracing::info!("the control plane's own certificate was renewed");
                }
                Err(error) => tracing::error!(%error, "the control plane's own certificate was not renewed"),
            }
        }
    }

    fn renew_if_due(&self, authority: &Authority, now: u64) -> anyhow::Result<bool> {
        let due = now >= self.current.load().renew_after;
        if due {
            self.current.store(Arc::new(issue(authority, &self.id)?));
        }
        Ok(due)
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The identity under which sidecars meet the control plane of a trust domain, installed in a namespace.
pub fn own_identity(trust_domain: &str, namespace: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: trust_domain.to_owned(),
        namespace: namespace.to_owned(),
        service_account: OWN_SERVICE_ACCOUNT.to_owned(),
    }
}

/// The server's configuration: who we are, and whose certificates we take.
///
/// # Errors
/// The roots cannot be used.
pub fn server_config(
    authority: &Arc<Authority>,
    own: Arc<OwnCertificate>,
) -> anyhow::Result<rustls::ServerConfig> {
    let provider = Arc::new(provider());
    let verifier = LiveVerifier::new(authority, Arc::clone(&provider))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client's configuration, of a replica that calls another: both show the certificate of the one identity,
/// each its own.
///
/// # Errors
/// The library refuses its own defaults.
pub fn client_config(
    authority: &Arc<Authority>,
    own: Arc<OwnCertificate>,
) -> anyhow::Result<rustls::ClientConfig> {
    let verifier = OwnServer { authority: Arc::clone(authority), id: own.id.clone() };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The cryptography: aws-lc, with X25519MLKEM768 as the preferred exchange.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn issue(authority: &Authority, id: &SpiffeId) -> anyhow::Result<Current> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let leaf = authority.sign(id, &key)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = aws_lc_rs::sign::any_ecdsa_type(&private)?;
    let key = Arc::new(CertifiedKey::new(leaf.chain, signing));
    Ok(Current { key, renew_after: leaf.renew_after, not_after: leaf.not_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::AuthoritySettings;

    #[test]
    fn our_own_leaf_is_replaced_once_half_of_its_life_is_over() {
        let settings = AuthoritySettings {
            state: None,
            trust_domain: "cluster.local".to_owned(),
            intermediate: false,
            leaf_life: Duration::from_secs(3600),
        };
        let authority = Authority::open(&settings).unwrap();
        let own = OwnCertificate::issue(&authority, OWN_NAMESPACE).unwrap();
        let leaf = |own: &OwnCertificate| own.current.load().key.cert.clone();
        let first = leaf(&own);
        assert!(!own.renew_if_due(&authority, unix_now()).unwrap());
        assert_eq!(leaf(&own), first);
        assert!(own.renew_if_due(&authority, unix_now() + 1801).unwrap());
        assert_ne!(leaf(&own), first);
    }

    #[test]
    fn the_post_quantum_exchange_comes_first() {
        let first = provider().kx_groups.first().map(|group| group.name());
        assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    }
}
