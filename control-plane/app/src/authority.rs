//! The certificate authority: a signer with a root, kept in a file, in memory or in a Secret, an
//! optional intermediate in memory, and leafs that carry one SPIFFE identity.
//!
//! Before it: `certify` has decided who the caller is. After it: the chain travels to the sidecar.
//!
//! Rotation with overlap, without a restart and without a failed handshake: first the new root joins
//! the trusted ones, then, once every sidecar has heard of it, the new signer takes over, and only
//! once every leaf of the old one has ended does the old root leave.
//!
//! Invariant: a leaf holds exactly the names it is asked for; nothing a caller wrote is copied
//! into it but the public key.
//! Invariant: nothing outlives its issuer.
//! Invariant: signer and roots change together: who reads one moment's signer trusts its root.

mod folder;
mod issue;
mod material;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{Issuer, KeyPair, PublicKeyData, SanType};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use weft_control_plane_core::config::Trust;
use weft_proto::names::SpiffeId;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use self::issue::Intermediate;
pub(crate) use self::material::subject;
pub use self::material::{BadMaterial, Material};
use crate::clock::unix_now;

/// Why the authority cannot start or sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the state directory.
    #[error(transparent)]
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
    leaf_life: Duration,
    delegate: bool,
    signer: ArcSwap<Signer>,
    changes: watch::Sender<u64>,
}

/// What signs and what is trusted at one moment.
struct Signer {
    material: Material,
    intermediate: Option<ArcSwap<Intermediate>>,
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
        let material = match &settings.state {
            Some(state) => folder::open(state, &settings.trust_domain)?,
            None => Material::fresh(&settings.trust_domain)?,
        };
        Self::with(material, settings)
    }

    /// An authority that signs with `material`.
    ///
    /// # Errors
    /// The material has no life left for an intermediate.
    pub fn with(material: Material, settings: &AuthoritySettings) -> Result<Self, AuthorityError> {
        Ok(Self {
            trust_domain: settings.trust_domain.clone(),
            leaf_life: settings.leaf_life,
            delegate: settings.intermediate,
            signer: ArcSwap::from_pointee(Signer::new(material, settings.intermediate)?),
            changes: watch::Sender::new(0),
        })
    }

    /// Signs with other material from now on; whoever follows [`changes`](Self::changes) is told. False:
    /// it is what signs already.
    ///
    /// # Errors
    /// The material has no life left for an intermediate; what signed goes on signing.
    pub fn replace(&self, material: Material) -> Result<bool, AuthorityError> {
        if self.signer.load().material == material {
            return Ok(false);
        }
        self.signer.store(Arc::new(Signer::new(material, self.delegate)?));
        self.changes.send_modify(|number| *number += 1);
        Ok(true)
    }

    /// Tells whenever signer or roots have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Root certificates, DER.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.signer.load().material.roots.clone()
    }

    /// Root certificates, PEM.
    pub fn anchors_pem(&self) -> String {
        material::bundle(&self.signer.load().material.roots)
    }

    /// The roots as sidecars are told.
    pub fn trust(&self) -> Trust {
        let roots = self.signer.load().material.roots.iter().map(|root| root.to_vec()).collect();
        Trust { trust_domain: self.trust_domain.clone(), roots }
    }

    /// The signer's certificate.
    pub fn signer(&self) -> CertificateDer<'static> {
        self.signer.load().material.signer.clone()
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
        let signer = self.signer.load_full();
        let Some(slot) = &signer.intermediate else {
            let material = &signer.material;
            let issuer = (&material.issuer, material.not_after);
            return self.sign_with(names, key, issuer, material.chain.clone());
        };
        if unix_now() >= slot.load().renew_after {
            slot.store(Arc::new(signer.intermediate()?));
        }
        let current = slot.load_full();
        let chain = std::iter::once(&current.certificate).chain(&signer.material.chain).cloned().collect();
        self.sign_with(names, key, (&current.issuer, current.not_after), chain)
    }

    fn sign_with(
        &self,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
        (issuer, issuer_not_after): (&Issuer<'static, KeyPair>, u64),
        mut chain: Vec<CertificateDer<'static>>,
    ) -> Result<Leaf, AuthorityError> {
        let now = unix_now();
        if now >= issuer_not_after {
            return Err(AuthorityError::Expired { not_after: issuer_not_after });
        }
        let not_after = now.saturating_add(self.leaf_life.as_secs()).min(issuer_not_after);
        let leaf = issue::leaf_params(now, not_after, names).signed_by(key, issuer)?;
        chain.insert(0, leaf.into());
        Ok(Leaf { chain, not_after, renew_after: now + (not_after - now) / 2 })
    }
}

impl Signer {
    /// With an intermediate below, where the material allows one.
    fn new(material: Material, delegate: bool) -> Result<Self, AuthorityError> {
        let mut signer = Self { material, intermediate: None };
        if delegate && signer.material.may_delegate {
            signer.intermediate = Some(ArcSwap::from_pointee(signer.intermediate()?));
        }
        Ok(signer)
    }

    fn intermediate(&self) -> Result<Intermediate, AuthorityError> {
        Intermediate::new(&self.material.issuer, self.material.not_after)
    }
}

/// End of a certificate's life, seconds since 1970.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
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
