//! Calling the control plane as somebody who is no sidecar: `weft stat` and the like, where no Kubernetes API
//! stands between.
//!
//! A visitor has a certificate in files, or comes by one with a join token of its own, as a sidecar does.
//!
//! Invariant: the control plane is verified as a sidecar verifies it; a key made for a visit is never written.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::Channel;
use weft_proto::names::{SpiffeId, Workload};
use weft_proxy_core::Identity;
use weft_proxy_net::tls::peer_identity;

use crate::adopt::Trust;
use crate::certify::{Certifier, CertifyError, Credentials, Leaf};
pub use crate::dial::MAX_MESSAGE;
use crate::dial::{Dial, DialError, Proof};
use crate::settings::TrustAnchors;
pub use crate::settings::{ControlPlane, JoinToken};

/// Where to, and as whom.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Where the control plane listens.
    pub control_plane: ControlPlane,
    /// Who it must prove to be.
    pub identity: SpiffeId,
    /// File of the roots that vouch for it.
    pub anchors: PathBuf,
    /// What the visitor shows.
    pub pass: Pass,
}

/// What a visitor shows.
#[derive(Debug, Clone)]
pub enum Pass {
    /// A certificate of the mesh, and its key, in PEM files.
    Files {
        /// Leaf first.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A join token, for a certificate of this workload's.
    Token {
        /// Whom the token speaks for.
        workload: Workload,
        /// The token.
        token: JoinToken,
    },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// A file cannot be used.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No certificate.
    #[error(transparent)]
    Certify(#[from] CertifyError),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The identity to expect is none.
    #[error("the control plane's identity: {0}")]
    Identity(#[from] weft_proxy_core::names::NotAnIdentity),
}

impl Visit {
    /// Connects, with a certificate shown.
    ///
    /// # Errors
    /// [`VisitError`].
    ///
    /// # Cancel safety
    /// Dropping it closes what was opened; a join token may have been used.
    pub async fn connect(self) -> Result<Channel, VisitError> {
        let credentials = Arc::new(Credentials::new(false));
        let anchors = TrustAnchors::File(self.anchors.clone());
        let trust_domain = self.identity.trust_domain.clone();
        let identity = Identity::parse(&self.identity.to_string())?;
        let dial = Dial::to(self.control_plane, identity, anchors, Arc::clone(&credentials));
        match self.pass {
            Pass::Files { certificate, key } => {
                let roots = TrustAnchors::File(self.anchors.clone()).read();
                let roots = roots.map_err(|error| problem(&self.anchors, error))?;
                let leaf = leaf(&certificate, &key)?;
                let trust = Trust { trust_domain, roots };
                credentials.set(leaf, trust).map_err(|error| problem(&certificate, error))?;
            }
            Pass::Token { workload, token } => {
                Certifier::joining(workload, &trust_domain, token, dial.clone()).once().await?;
            }
        }
        Ok(dial.connect(Proof::Certificate).await?)
    }
}

fn leaf(certificate: &PathBuf, key: &PathBuf) -> Result<Leaf, VisitError> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| problem(certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| problem(key, error))?;
    let provider = weft_proxy_net::tls::provider();
    let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|error| problem(key, error))?;
    let identity = peer_identity(&certified.cert).map_err(|error| problem(certificate, error))?;
    // Whether its life is over is the control plane's to say.
    Ok(Leaf { key: Arc::new(certified), identity, not_after: u64::MAX })
}

fn problem(path: &std::path::Path, error: impl std::fmt::Display) -> VisitError {
    VisitError::File { path: path.display().to_string(), problem: error.to_string() }
}
