//! Is this the control plane? The chain by rustls, then the one URI name by us.
//!
//! Invariant: exactly one URI name, and exactly the expected one; no prefix, no pattern.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use weft_proto::names::SpiffeId;

/// Accepts one identity.
#[derive(Debug)]
pub(super) struct Expected {
    roots: RootCertStore,
    identity: SpiffeId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Expected {
    pub(super) fn new(roots: RootCertStore, identity: SpiffeId, provider: &CryptoProvider) -> Self {
        Self { roots, identity, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(leaf, intermediates, &self.roots, now, &self.algorithms)?;
        let found = identity_of(leaf).map_err(|problem| not_the_one(&self.identity, &problem))?;
        if found != self.identity {
            return Err(not_the_one(&self.identity, &format!("it proved to be {found}")));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies `leaf` up to one of `roots`.
pub(crate) fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
}

/// The one identity that a certificate carries.
pub(crate) fn identity_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, String> {
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let mut names = parsed.valid_uri_names();
    match (names.next(), names.next()) {
        (Some(name), None) => name.parse().map_err(|error: weft_proto::names::BadName| error.to_string()),
        (None, _) => Err("its certificate carries no identity".to_owned()),
        (Some(_), Some(_)) => Err("its certificate carries several identities".to_owned()),
    }
}

fn not_the_one(expected: &SpiffeId, found: &str) -> Error {
    let problem = format!(
        "the control plane is not {expected}: {found}; check --control-plane and --control-plane-identity"
    );
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(std::sync::Arc::new(NotTheOne(
        problem,
    )))))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotTheOne(String);
