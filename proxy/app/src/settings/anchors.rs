//! The roots that vouch for the control plane before the mesh's own trust bundle does: a file, or the
//! text itself.
//!
//! Invariant: inline text holds at least one certificate; a file is read at each use, because it changes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Serialize, Serializer};

use super::SettingsError;

/// Where the roots are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchors {
    /// In a PEM file.
    File(PathBuf),
    /// Given with the settings.
    Inline(Arc<[CertificateDer<'static>]>),
}

impl TrustAnchors {
    /// Exactly one of the two forms. An empty variable is none.
    pub(super) fn given(pem: Option<String>, file: Option<PathBuf>) -> Result<Self, SettingsError> {
        match (pem.filter(|pem| !pem.trim().is_empty()), file) {
            (None, Some(path)) => Ok(Self::File(path)),
            (None, None) => Err(SettingsError::NoTrustAnchors),
            (Some(pem), _) => {
                let roots = certificates(pem.as_bytes());
                if roots.is_empty() {
                    Err(SettingsError::TrustAnchorsPem)
                } else {
                    Ok(Self::Inline(roots.into()))
                }
            }
        }
    }

    /// The roots as they stand now; none when the file holds none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Vec<CertificateDer<'static>>> {
        match self {
            Self::File(path) => Ok(certificates(&std::fs::read(path)?)),
            Self::Inline(roots) => Ok(roots.to_vec()),
        }
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

impl std::fmt::Display for TrustAnchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Inline(roots) => write!(f, "{} given inline", roots.len()),
        }
    }
}

impl Serialize for TrustAnchors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
