//! Reads a certificate request: the proof that the caller holds the private key, and nothing else.
//!
//! Invariant: of a request only the public key is used, after its own signature was verified with
//! it; names, extensions and attributes are not even parsed into anything.
//! Invariant: one key type, P-256, named by the key itself and not by the signature's algorithm.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer as _;

/// Largest request that is read. Source: a P-256 request is about 250 bytes.
const REQUEST_LIMIT: usize = 8 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not one PKCS#10 structure.
    #[error("the CSR is not one PKCS#10 request in DER")]
    Malformed,
    /// Another key type than P-256 with SHA-256.
    #[error("the CSR's key is not P-256 signed with SHA-256")]
    WrongKey,
    /// The signature is not the key's own.
    #[error("the CSR's signature was not made by its key")]
    WrongSignature,
}

/// The public key of a request, once its possession is proved.
///
/// # Errors
/// The request is malformed, of another key type, or its signature is wrong.
pub fn proven_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, BadRequest> {
    if der.len() > REQUEST_LIMIT {
        return Err(BadRequest::Malformed);
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| BadRequest::Malformed)?;
    if !rest.is_empty() {
        return Err(BadRequest::Malformed);
    }
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY
        || curve != Some(OID_EC_P256)
        || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
    {
        return Err(BadRequest::WrongKey);
    }
    request.verify_signature().map_err(|_| BadRequest::WrongSignature)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| BadRequest::WrongKey)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_proper_request_yields_its_key() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let proven = proven_key(&request(&key)).unwrap();
        assert_eq!(rcgen::PublicKeyData::der_bytes(&proven), rcgen::PublicKeyData::der_bytes(&key));
    }

    #[test]
    fn a_signature_by_another_key_proves_nothing() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (theirs, mut ours) = (request(&other), request(&key));
        let at = ours.windows(65).position(|w| w == rcgen::PublicKeyData::der_bytes(&key)).unwrap();
        let from = theirs.windows(65).position(|w| w == rcgen::PublicKeyData::der_bytes(&other)).unwrap();
        ours[at..at + 65].copy_from_slice(&theirs[from..from + 65]);
        assert_eq!(proven_key(&ours).unwrap_err(), BadRequest::WrongSignature);
    }

    #[test]
    fn other_key_types_are_refused() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(proven_key(&request(&key)).unwrap_err(), BadRequest::WrongKey);
        }
    }

    #[test]
    fn truncated_padded_and_oversized_requests_are_malformed() {
        let whole = request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        for length in 0..whole.len() {
            assert_eq!(proven_key(&whole[..length]).unwrap_err(), BadRequest::Malformed, "{length} bytes");
        }
        let padded = [whole.as_slice(), &[0]].concat();
        assert_eq!(proven_key(&padded).unwrap_err(), BadRequest::Malformed);
        assert_eq!(proven_key(&vec![0x30; REQUEST_LIMIT + 1]).unwrap_err(), BadRequest::Malformed);
    }
}
