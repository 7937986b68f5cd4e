//! What Weft's own certificates hold, and the making of them.
//!
//! Invariant: nothing outlives its issuer.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;

use super::AuthorityError;
use crate::clock::unix_now;

/// Life of a root. Source: ten years, as Istio's and Linkerd's own roots.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of an intermediate, renewed at half of it. Source: Weft's own; short enough that a leak ends by itself.
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// How far `notBefore` lies in the past. Source: five minutes cover the clock skew Kubernetes tolerates.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate that signs leafs, made in memory below another.
pub(super) struct Intermediate {
    /// The certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// What signs.
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// End of its life, seconds since 1970.
    pub(super) not_after: u64,
    /// When it is replaced, seconds since 1970.
    pub(super) renew_after: u64,
}

impl Intermediate {
    /// One below `above`, whose life ends at `above_not_after`.
    pub(super) fn new(
        above: &Issuer<'static, KeyPair>,
        above_not_after: u64,
    ) -> Result<Self, AuthorityError> {
        let now = unix_now();
        if now >= above_not_after {
            return Err(AuthorityError::Expired { not_after: above_not_after });
        }
        let not_after = now.saturating_add(INTERMEDIATE_LIFE.as_secs()).min(above_not_after);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = issuer_params(now, not_after, "Weft intermediate", 0);
        params.use_authority_key_identifier_extension = true;
        let certificate: CertificateDer<'static> = params.signed_by(&key, above)?.into();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, issuer, not_after, renew_after: now + (not_after - now) / 2 })
    }
}

/// A fresh root of a trust domain.
pub(super) fn new_root(trust_domain: &str) -> Result<(KeyPair, CertificateDer<'static>), AuthorityError> {
    let now = unix_now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = issuer_params(now, now.saturating_add(ROOT_LIFE.as_secs()), "Weft root", 1);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    let certificate = params.self_signed(&key)?;
    Ok((key, certificate.into()))
}

/// A leaf of these names.
pub(super) fn leaf_params(now: u64, not_after: u64, names: Vec<SanType>) -> CertificateParams {
    let mut params = validity(now, not_after);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// An issuer of `depth` more issuers.
pub(super) fn issuer_params(now: u64, not_after: u64, name: &str, depth: u8) -> CertificateParams {
    let mut params = validity(now, not_after);
    params.distinguished_name.push(DnType::OrganizationName, "Weft");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn validity(now: u64, not_after: u64) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATE.as_secs()));
    params.not_after = epoch + Duration::from_secs(not_after);
    params
}
