//! Verifies peers' certificates against what the authority trusts at that moment.
//!
//! Invariant: a root counts from the moment the authority trusts it until the moment it does not, for
//! every handshake that is verified in between; no listener restarts for it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use crate::authority::Authority;

/// A verifier that follows an authority.
#[derive(Debug)]
pub(super) struct LiveVerifier {
    authority: Arc<Authority>,
    changes: watch::Receiver<u64>,
    provider: Arc<CryptoProvider>,
    current: ArcSwapOption<(u64, Arc<dyn ClientCertVerifier>)>,
}

impl LiveVerifier {
    /// Follows `authority` from now on.
    ///
    /// # Errors
    /// Its roots cannot be used.
    pub(super) fn new(
        authority: &Arc<Authority>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let verifier = Self {
            authority: Arc::clone(authority),
            changes: authority.changes(),
            provider,
            current: ArcSwapOption::empty(),
        };
        verifier.current()?;
        Ok(verifier)
    }

    fn current(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        // Read before the roots: a change in between leads to one more reading, never to a stale one.
        let number = *self.changes.borrow();
        if let Some(known) = self.current.load_full()
            && known.0 == number
        {
            return Ok(Arc::clone(&known.1));
        }
        let fresh = self.build()?;
        self.current.store(Some(Arc::new((number, Arc::clone(&fresh)))));
        Ok(fresh)
    }

    fn build(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for root in self.authority.roots() {
            roots.add(root)?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))
    }
}

impl ClientCertVerifier for LiveVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Sidecars hold one certificate; there is nothing to choose from by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.current()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current()?.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current()?.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
