//! The certificate authority: one root, kept in a file or in memory, an optional intermediate in
//! memory, and leafs that carry one SPIFFE identity.
//!
//! Before it: `certify` has decided who the caller is. After it: the chain travels to the sidecar.
//!
//! Invariant: a leaf holds exactly the identity it is asked for; nothing a caller wrote is copied
//! into it but the public key.
//! Invariant: nothing outlives its issuer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use weft_proto::names::SpiffeId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::clock::unix_now;
use crate::files;

/// Life of a root. Source: ten years, as Istio's and Linkerd's own roots.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of an intermediate, renewed at half of it. Source: Weft's own; short enough that a leak ends by itself.
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// How far `notBefore` lies in the past. Source: five minutes cover the clock skew Kubernetes tolerates.
const BACKDATE: Duration = Duration::from_secs(300);
/// The root's private key inside the state directory. Source: Weft's own.
const ROOT_KEY: &str = "root-key.pem";
/// The root's certificate inside the state directory. Source: as for the key.
const ROOT_CERTIFICATE: &str = "root-cert.pem";
/// Largest key or certificate file that is read. Source: Weft's own; a P-256 key and certificate have
/// about 1 KiB.
const FILE_LIMIT: u64 = 64 * 1024;

/// Why the authority cannot start or sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the state directory.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The library refused a key, a name or a certificate.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The kept root cannot be used.
    #[error("{path}: {reason}")]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The issuer has no life left to give.
    #[error("the issuing certificate ends at {not_after} (seconds since 1970): replace the root")]
    Expired {
        /// End of the issuer's life.
        not_after: u64,
    },
}

/// A signed leaf and what belongs to it.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Leaf first, then the intermediate if there is one.
    pub chain: Vec<CertificateDer<'static>>,
    /// End of the leaf's life, seconds since 1970.
    pub not_after: u64,
    /// When to renew: half of the leaf's remaining life, seconds since 1970.
    pub renew_after: u64,
}

/// The authority of one trust domain.
pub struct Authority {
    trust_domain: String,
    root: CertificateDer<'static>,
    root_pem: String,
    root_not_after: u64,
    root_issuer: Issuer<'static, KeyPair>,
    intermediate: Option<ArcSwap<Intermediate>>,
    leaf_life: Duration,
}

struct Intermediate {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: u64,
    renew_after: u64,
}

/// How the authority is set up.
#[derive(Debug, Clone)]
pub struct AuthoritySettings {
    /// Directory of the root's files; absent: the root lives in memory.
    pub state: Option<PathBuf>,
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Sign leafs with an intermediate that lives in memory.
    pub intermediate: bool,
    /// Life of a leaf.
    pub leaf_life: Duration,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the kept root, or makes one.
    ///
    /// # Errors
    /// The state directory cannot be read or written, or holds a root of another trust domain, an
    /// expired one, or a key that others may read.
    pub fn open(settings: &AuthoritySettings) -> Result<Self, AuthorityError> {
        let (key, root) = match &settings.state {
            Some(state) => kept_root(state, &settings.trust_domain)?,
            None => new_root(&settings.trust_domain)?,
        };
        let root_not_after = not_after(&root).unwrap_or(0);
        let root_issuer = Issuer::from_ca_cert_der(&root, key)?;
        let intermediate = match settings.intermediate {
            true => Some(ArcSwap::from_pointee(Intermediate::new(&root_issuer, root_not_after)?)),
            false => None,
        };
        Ok(Self {
            trust_domain: settings.trust_domain.clone(),
            root_pem: pem("CERTIFICATE", &root),
            root,
            root_not_after,
            root_issuer,
            intermediate,
            leaf_life: settings.leaf_life,
        })
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Root certificates, DER.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// Root certificates, PEM.
    pub fn anchors_pem(&self) -> &str {
        &self.root_pem
    }

    /// Signs a leaf for `identity` over a public key whose possession was proved.
    ///
    /// # Errors
    /// The issuer is at its end, or the library refuses the key.
    pub fn sign(&self, identity: &SpiffeId, key: &impl PublicKeyData) -> Result<Leaf, AuthorityError> {
        self.sign_names(vec![SanType::URI(identity.to_string().try_into()?)], key)
    }

    /// Signs a server's leaf for DNS names, for those who do not speak SPIFFE: the API server that calls
    /// the webhook.
    ///
    /// # Errors
    /// As for [`Authority::sign`], or a name that is no DNS name.
    pub fn sign_server(&self, names: &[String], key: &impl PublicKeyData) -> Result<Leaf, AuthorityError> {
        let names = names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        self.sign_names(names.collect::<Result<_, AuthorityError>>()?, key)
    }

    fn sign_names(&self, names: Vec<SanType>, key: &impl PublicKeyData) -> Result<Leaf, AuthorityError> {
        let Some(slot) = &self.intermediate else {
            return self.sign_with(names, key, &self.root_issuer, self.root_not_after, None);
        };
        if unix_now() >= slot.load().renew_after {
            slot.store(Arc::new(Intermediate::new(&self.root_issuer, self.root_not_after)?));
        }
        let current = slot.load_full();
        let certificate = Some(current.certificate.clone());
        self.sign_with(names, key, &current.issuer, current.not_after, certificate)
    }

    fn sign_with(
        &self,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
        issuer: &Issuer<'static, KeyPair>,
        issuer_not_after: u64,
        intermediate: Option<CertificateDer<'static>>,
    ) -> Result<Leaf, AuthorityError> {
        let now = unix_now();
        if now >= issuer_not_after {
            return Err(AuthorityError::Expired { not_after: issuer_not_after });
        }
        let not_after = now.saturating_add(self.leaf_life.as_secs()).min(issuer_not_after);
        let mut params = validity(now, not_after);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf: CertificateDer<'static> = params.signed_by(key, issuer)?.into();
        let chain = std::iter::once(leaf).chain(intermediate).collect();
        Ok(Leaf { chain, not_after, renew_after: now + (not_after - now) / 2 })
    }
}

impl Intermediate {
    fn new(root: &Issuer<'static, KeyPair>, root_not_after: u64) -> Result<Self, AuthorityError> {
        let now = unix_now();
        if now >= root_not_after {
            return Err(AuthorityError::Expired { not_after: root_not_after });
        }
        let not_after = now.saturating_add(INTERMEDIATE_LIFE.as_secs()).min(root_not_after);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = issuer_params(now, not_after, "Weft intermediate", 0);
        params.use_authority_key_identifier_extension = true;
        let certificate: CertificateDer<'static> = params.signed_by(&key, root)?.into();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, issuer, not_after, renew_after: now + (not_after - now) / 2 })
    }
}

fn new_root(trust_domain: &str) -> Result<(KeyPair, CertificateDer<'static>), AuthorityError> {
    let now = unix_now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = issuer_params(now, now.saturating_add(ROOT_LIFE.as_secs()), "Weft root", 1);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    let certificate = params.self_signed(&key)?;
    Ok((key, certificate.into()))
}

fn kept_root(state: &Path, trust_domain: &str) -> Result<(KeyPair, CertificateDer<'static>), AuthorityError> {
    let (key_path, certificate_path) = (state.join(ROOT_KEY), state.join(ROOT_CERTIFICATE));
    let refuse =
        |path: &Path, reason: &str| AuthorityError::Root { path: path.to_owned(), reason: reason.to_owned() };
    match (key_path.exists(), certificate_path.exists()) {
        (false, false) => {
            let (key, root) = new_root(trust_domain)?;
            files::create_private_dir(state)?;
            let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
            files::write_atomically(&key_path, key_pem.as_bytes(), 0o600)?;
            files::write_atomically(&certificate_path, pem("CERTIFICATE", &root).as_bytes(), 0o644)?;
            return Ok((key, root));
        }
        (true, true) => {}
        (true, false) => {
            return Err(refuse(&certificate_path, "missing beside its key: restore it, or remove the key"));
        }
        (false, true) => {
            return Err(refuse(&key_path, "missing beside its certificate: restore it, or remove both"));
        }
    }
    if files::readable_by_others(&key_path)? {
        return Err(refuse(&key_path, "others may read the root's key: make its mode 0600"));
    }
    let key_pem = zeroize::Zeroizing::new(files::read_limited(&key_path, FILE_LIMIT)?);
    let key_text = std::str::from_utf8(&key_pem).map_err(|_| refuse(&key_path, "not PEM text"))?;
    let key = KeyPair::from_pem(key_text)?;
    let root_pem = files::read_limited(&certificate_path, FILE_LIMIT)?;
    let root = certificate_from_pem(&root_pem).ok_or_else(|| refuse(&certificate_path, "no certificate"))?;
    check_root(&root, &key, trust_domain).map_err(|reason| refuse(&certificate_path, &reason))?;
    Ok((key, root))
}

/// A root that is not ours, or not any more, stops the start: signing with it would only move the
/// failure to every sidecar.
fn check_root(root: &CertificateDer<'_>, key: &KeyPair, trust_domain: &str) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(root).map_err(|error| error.to_string())?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err(format!("does not belong to {ROOT_KEY}"));
    }
    let expected = format!("spiffe://{trust_domain}");
    let named = parsed.subject_alternative_name().ok().flatten().is_some_and(|names| {
        names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == expected))
    });
    if !named {
        return Err(format!("is not the root of trust domain {trust_domain:?}: correct --trust-domain"));
    }
    match not_after(root) {
        Some(end) if end > unix_now() => Ok(()),
        _ => Err("has expired: move both files away to make a new root".to_owned()),
    }
}

fn issuer_params(now: u64, not_after: u64, name: &str, depth: u8) -> CertificateParams {
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

/// End of a certificate's life, seconds since 1970.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

fn certificate_from_pem(pem: &[u8]) -> Option<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem).ok()
}

/// PEM text of one DER block. Source: RFC 7468 §2, lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..body.len()).step_by(64).filter_map(|at| body.get(at..(at + 64).min(body.len()))).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
