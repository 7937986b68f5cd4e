//! The webhook's serving certificate: issued in memory by the mesh's own authority for the service's DNS
//! names, and renewed while connections stay.
//!
//! Before it: `authority`. After it: `serve` shakes hands with it; the leader tells the API server whom to
//! trust.
//!
//! Invariant: the key never leaves the process's memory; every replica has its own.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::authority::Authority;
use crate::clock::unix_now;
use crate::observe::front::offered::Offered;

/// Longest time between looks at the certificate's age. Source: Weft's own; the wall clock may jump.
const RENEWAL_CHECK: u64 = 60;
/// The protocol on the connection. Source: RFC 9112; the API server speaks it to every webhook.
const ALPN: &[u8] = b"http/1.1";

/// The serving certificate, swapped live.
#[derive(Debug)]
pub struct ServingCertificate {
    names: Vec<String>,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renew_after: u64,
}

impl ServingCertificate {
    /// Issues the first one.
    ///
    /// # Errors
    /// The authority cannot sign, or a name is no DNS name.
    pub fn issue(authority: &Authority, names: Vec<String>) -> anyhow::Result<Self> {
        let current = ArcSwap::from_pointee(issue(authority, &names)?);
        Ok(Self { names, current })
    }

    /// Renews it for as long as the process lives, and at once when the authority signs with something
    /// else; a failure is logged and tried again.
    ///
    /// # Cancel safety
    /// Dropping it stops the renewal; the current certificate stays.
    pub async fn renew(&self, authority: &Authority) {
        let mut changes = authority.changes();
        loop {
            let due = self.current.load().renew_after.saturating_sub(unix_now());
            let pause = tokio::time::sleep(Duration::from_secs(due.clamp(1, RENEWAL_CHECK)));
            let changed = tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                () = pause => false,
            };
            let now = if changed { u64::MAX } else { unix_now() };
            match self.renew_if_due(authority, now) {
                Ok(false) => {}
                Ok(true) => tracing::info!("the webhook's certificate was renewed"),
                Err(error) => tracing::error!(%error, "the webhook's certificate was not renewed"),
            }
        }
    }

    /// Renews it when it is due at `now` (seconds since 1970); gives whether it was.
    ///
    /// # Errors
    /// The authority cannot sign.
    pub fn renew_if_due(&self, authority: &Authority, now: u64) -> anyhow::Result<bool> {
        let due = now >= self.current.load().renew_after;
        if due {
            self.current.store(Arc::new(issue(authority, &self.names)?));
        }
        Ok(due)
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

/// The server's configuration: TLS 1.3; a client may show a certificate.
///
/// # Errors
/// The library refuses its own defaults.
pub(super) fn server_config(own: Arc<ServingCertificate>) -> anyhow::Result<rustls::ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Offered(provider)))
        .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn issue(authority: &Authority, names: &[String]) -> anyhow::Result<Current> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let leaf = authority.sign_server(names, &key)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = aws_lc_rs::sign::any_ecdsa_type(&private)?;
    Ok(Current { key: Arc::new(CertifiedKey::new(leaf.chain, signing)), renew_after: leaf.renew_after })
}
