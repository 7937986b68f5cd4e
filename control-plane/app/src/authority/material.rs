//! What an authority is made of: a signing certificate with its key, the way up to a root, and the
//! roots to trust. Read from PEM, as files and a Secret of cert-manager's shape hold it.
//!
//! Before it: a folder or a Secret. After it: the authority signs with it, or keeps its last good one.
//!
//! Invariant: material that is read is usable: the key belongs to the certificate, the certificate may
//! sign, is alive, and leads up to a root that is trusted.
//! Invariant: a key is in no message and in no `Debug`.

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{AuthorityError, not_after, pem};

/// Certificates that are read from one entry. Source: Weft's own; a rotation needs two roots.
const CERTIFICATES: usize = 64;

/// Why material cannot be used. Every message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMaterial {
    /// No certificate.
    #[error("{entry} holds no certificate that can be read: put PEM certificates there")]
    Certificate {
        /// Where.
        entry: &'static str,
    },
    /// No key.
    #[error("tls.key holds no private key that can be read: put an unencrypted PEM key there (ECDSA or RSA)")]
    Key,
    /// Key and certificate are of two pairs.
    #[error("tls.key does not belong to the first certificate of tls.crt: write both together")]
    Mismatch,
    /// A certificate that may not sign others.
    #[error(
        "{entry}: certificate {subject:?} may not sign certificates: issue it as an authority (CA: true, \
         key usage cert sign)"
    )]
    NoAuthority {
        /// Where.
        entry: &'static str,
        /// Whose.
        subject: String,
    },
    /// Its life is over.
    #[error("tls.crt: certificate {subject:?} has ended: renew it and write tls.crt and tls.key together")]
    Expired {
        /// Whose.
        subject: String,
    },
    /// Its life has not begun.
    #[error(
        "tls.crt: certificate {subject:?} is not valid yet: wait, or set the clocks of issuer and node right"
    )]
    TooEarly {
        /// Whose.
        subject: String,
    },
    /// It leads nowhere.
    #[error(
        "tls.crt does not lead up to a living root in ca.crt: add the root of {subject:?} to ca.crt, and what \
         lies between them to tls.crt"
    )]
    NoRoot {
        /// Whose.
        subject: String,
    },
    /// Of another mesh.
    #[error(
        "tls.crt is of trust domain {found:?}, the mesh is {expected:?}: correct one of them (--trust-domain)"
    )]
    ForeignDomain {
        /// The mesh's.
        expected: String,
        /// The certificate's.
        found: String,
    },
}

/// A signer, the way up, and the roots.
pub struct Material {
    /// What signs.
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// What goes with a leaf: from the signer up, without a root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The signer's own certificate.
    pub(super) signer: CertificateDer<'static>,
    /// What is trusted, each once; the signer's own root included.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// End of the first life on the way up, seconds since 1970.
    pub(super) not_after: u64,
    /// Whether another issuer may stand below the signer.
    pub(super) may_delegate: bool,
    /// Roots that are left out because their life is over.
    pub expired_roots: usize,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("roots", &self.roots.len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Two are the same when they sign and trust the same.
impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        (&self.signer, &self.chain, &self.roots) == (&other.signer, &other.chain, &other.roots)
    }
}

impl Material {
    /// A root of Weft's own that signs by itself.
    pub(super) fn own(key: KeyPair, root: CertificateDer<'static>) -> Result<Self, AuthorityError> {
        Ok(Self {
            not_after: not_after(&root).unwrap_or(0),
            issuer: Issuer::from_ca_cert_der(&root, key)?,
            chain: Vec::new(),
            signer: root.clone(),
            roots: vec![root],
            may_delegate: true,
            expired_roots: 0,
        })
    }

    /// A fresh root of a trust domain.
    ///
    /// # Errors
    /// The trust domain is no name.
    pub fn fresh(trust_domain: &str) -> Result<Self, AuthorityError> {
        let (key, root) = super::issue::new_root(trust_domain)?;
        Self::own(key, root)
    }

    /// Reads PEM: certificates from the signer up, its key, and roots. Without roots the chain must hold
    /// its own.
    ///
    /// # Errors
    /// It cannot be used; the message says why and what to do.
    pub fn read(
        certificates: &[u8],
        key: &[u8],
        roots: &[u8],
        trust_domain: &str,
        now: u64,
    ) -> Result<Self, BadMaterial> {
        let held = certificates_of(certificates, "tls.crt")?;
        let listed = match roots.iter().all(u8::is_ascii_whitespace) {
            true => Vec::new(),
            false => certificates_of(roots, "ca.crt")?,
        };
        let key = std::str::from_utf8(key).ok().and_then(|text| KeyPair::from_pem(text).ok());
        let key = key.ok_or(BadMaterial::Key)?;
        let signer = held.first().ok_or(BadMaterial::Certificate { entry: "tls.crt" })?.clone();
        let may_delegate = check_signer(&signer, &key, trust_domain, now)?;
        for root in &listed {
            authority(root, "ca.crt")?;
        }
        let (chain, own_root) = split(held);
        let mut all: Vec<CertificateDer<'static>> = Vec::new();
        for root in listed.into_iter().chain(own_root) {
            if !all.contains(&root) {
                all.push(root);
            }
        }
        let before = all.len();
        all.retain(|root| not_after(root).is_some_and(|end| end > now));
        let expired_roots = before - all.len();
        let end = way_up(&signer, &chain, &all, now)
            .ok_or_else(|| BadMaterial::NoRoot { subject: subject(&signer) })?;
        let issuer = Issuer::from_ca_cert_der(&signer, key)
            .map_err(|_| BadMaterial::NoAuthority { entry: "tls.crt", subject: subject(&signer) })?;
        Ok(Self { issuer, chain, signer, roots: all, not_after: end, may_delegate, expired_roots })
    }

    /// The signer's certificate and key and the roots, as a Secret holds them.
    pub(crate) fn to_pem(&self) -> (String, zeroize::Zeroizing<String>, String) {
        let key = zeroize::Zeroizing::new(self.issuer.key().serialize_pem());
        let signer = std::iter::once(&self.signer).chain(self.chain.iter().filter(|it| **it != self.signer));
        (bundle(signer), key, bundle(&self.roots))
    }

    /// What is trusted.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.clone()
    }

    /// The signer's certificate.
    pub fn signer(&self) -> CertificateDer<'static> {
        self.signer.clone()
    }

    /// End of the first life on the way from the signer to its root, seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }
}

/// Several certificates in PEM.
pub(super) fn bundle<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.into_iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
}

/// A person's name for a certificate.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => parsed.subject().to_string(),
        Err(_) => "unreadable".to_owned(),
    }
}

fn certificates_of(text: &[u8], entry: &'static str) -> Result<Vec<CertificateDer<'static>>, BadMaterial> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(CERTIFICATES).collect();
    let read = read.map_err(|_| BadMaterial::Certificate { entry })?;
    let sound =
        |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    match !read.is_empty() && read.iter().all(sound) {
        true => Ok(read),
        false => Err(BadMaterial::Certificate { entry }),
    }
}

/// Whether another issuer may stand below it.
fn check_signer(
    signer: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &str,
    now: u64,
) -> Result<bool, BadMaterial> {
    let (_, parsed) =
        X509Certificate::from_der(signer).map_err(|_| BadMaterial::Certificate { entry: "tls.crt" })?;
    let whose = || parsed.subject().to_string();
    if parsed.public_key().subject_public_key.data.as_ref() != rcgen::PublicKeyData::der_bytes(key) {
        return Err(BadMaterial::Mismatch);
    }
    let depth = authority(signer, "tls.crt")?;
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if parsed.validity().not_after.timestamp() <= now {
        return Err(BadMaterial::Expired { subject: whose() });
    }
    if parsed.validity().not_before.timestamp() > now {
        return Err(BadMaterial::TooEarly { subject: whose() });
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::URI(uri) = name
            && let Some(domain) = uri.strip_prefix("spiffe://")
            && domain != trust_domain
        {
            let (expected, found) = (trust_domain.to_owned(), domain.to_owned());
            return Err(BadMaterial::ForeignDomain { expected, found });
        }
    }
    Ok(depth.is_none_or(|depth| depth > 0))
}

/// How many issuers may stand below an issuer; none: any number.
fn authority(certificate: &CertificateDer<'_>, entry: &'static str) -> Result<Option<u32>, BadMaterial> {
    let refused = || BadMaterial::NoAuthority { entry, subject: subject(certificate) };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| refused())?;
    let constraints = parsed.basic_constraints().ok().flatten().ok_or_else(refused)?;
    let usage = parsed.key_usage().map_err(|_| refused())?;
    match constraints.value.ca && usage.is_none_or(|usage| usage.value.key_cert_sign()) {
        true => Ok(constraints.value.path_len_constraint),
        false => Err(refused()),
    }
}

/// What goes with a leaf, and the roots among what was held.
fn split(held: Vec<CertificateDer<'static>>) -> (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>) {
    let (roots, chain) = held.into_iter().partition(|certificate| signed_by(certificate, certificate));
    (chain, roots)
}

fn signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer))
    else {
        return false;
    };
    certificate.issuer() == issuer.subject()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// End of the first life from the signer up to a root; none: it leads to none, or is over.
fn way_up(
    signer: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: u64,
) -> Option<u64> {
    let mut at = signer;
    let mut end = not_after(signer)?;
    // Each step uses up one certificate of the chain, so a circle ends.
    for _ in 0..=chain.len() {
        if roots.contains(at) {
            return (end > now).then_some(end);
        }
        if let Some(root) = roots.iter().find(|root| signed_by(at, root)) {
            end = end.min(not_after(root)?);
            return (end > now).then_some(end);
        }
        at = chain.iter().find(|above| *above != at && signed_by(at, above))?;
        end = end.min(not_after(at)?);
    }
    None
}

#[cfg(test)]
mod tests;
