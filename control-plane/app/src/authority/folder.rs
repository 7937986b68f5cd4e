//! The root as a folder keeps it: two files that survive a restart.
//!
//! Invariant: a root that is not ours, or not any more, stops the start: signing with it would only
//! move the failure to every sidecar.

use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use super::material::{BadMaterial, Material};
use super::{AuthorityError, issue, pem};
use crate::clock::unix_now;
use crate::files;

/// The root's private key inside the state directory. Source: Weft's own.
pub(super) const ROOT_KEY: &str = "root-key.pem";
/// The root's certificate inside the state directory. Source: as for the key.
pub(super) const ROOT_CERTIFICATE: &str = "root-cert.pem";
/// Largest key or certificate file that is read. Source: Weft's own; a P-256 key and certificate have
/// about 1 KiB.
const FILE_LIMIT: u64 = 64 * 1024;

/// Reads the kept root, or makes one and keeps it.
pub(super) fn open(state: &Path, trust_domain: &str) -> Result<Material, AuthorityError> {
    let (key_path, certificate_path) = (state.join(ROOT_KEY), state.join(ROOT_CERTIFICATE));
    let refuse =
        |path: &Path, reason: &str| AuthorityError::Root { path: path.to_owned(), reason: reason.to_owned() };
    match (key_path.exists(), certificate_path.exists()) {
        (false, false) => {
            let (key, root) = issue::new_root(trust_domain)?;
            keep(state, &key, &root)?;
            return Material::own(key, root);
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
    let key = zeroize::Zeroizing::new(files::read_limited(&key_path, FILE_LIMIT)?);
    let certificate = files::read_limited(&certificate_path, FILE_LIMIT)?;
    Material::read(&certificate, &key, &[], trust_domain, unix_now()).map_err(|bad| match bad {
        BadMaterial::Key => refuse(&key_path, "no private key in PEM: restore it, or remove both files"),
        BadMaterial::Mismatch => refuse(&certificate_path, &format!("does not belong to {ROOT_KEY}")),
        BadMaterial::ForeignDomain { .. } => {
            let text = format!("is not the root of trust domain {trust_domain:?}: correct --trust-domain");
            refuse(&certificate_path, &text)
        }
        BadMaterial::Expired { .. } => {
            refuse(&certificate_path, "has expired: move both files away to make a new root")
        }
        other => refuse(&certificate_path, &other.to_string()),
    })
}

fn keep(state: &Path, key: &KeyPair, root: &CertificateDer<'_>) -> Result<(), AuthorityError> {
    files::create_private_dir(state)?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    files::write_atomically(&state.join(ROOT_KEY), key_pem.as_bytes(), 0o600)?;
    files::write_atomically(&state.join(ROOT_CERTIFICATE), pem("CERTIFICATE", root).as_bytes(), 0o644)?;
    Ok(())
}
