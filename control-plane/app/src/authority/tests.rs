//! What a signed leaf holds, and what a kept root survives.

use std::os::unix::fs::PermissionsExt as _;

use std::path::Path;

use rcgen::PKCS_ECDSA_P256_SHA256;
use x509_parser::prelude::GeneralName;

use super::folder::{ROOT_CERTIFICATE, ROOT_KEY};
use super::*;
use crate::files;
use crate::testing::Folder;

fn settings(state: Option<PathBuf>) -> AuthoritySettings {
    AuthoritySettings {
        state,
        trust_domain: "cluster.local".to_owned(),
        intermediate: false,
        leaf_life: Duration::from_secs(86_400),
    }
}

fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn a_leaf_holds_one_identity_and_both_uses() {
    let leaf = Authority::open(&settings(None)).unwrap().sign(&identity(), &key()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "a leaf without a subject needs a critical name");
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/cart")]);
    let uses = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(uses.server_auth && uses.client_auth && !uses.any);
    assert!(!parsed.is_ca());
    let now = i64::try_from(unix_now()).unwrap();
    assert!(parsed.validity().not_before.timestamp() <= now - 290);
    assert_eq!(parsed.validity().not_after.timestamp(), i64::try_from(leaf.not_after).unwrap());
    let half = unix_now() + 43_200;
    assert!(leaf.renew_after <= half && leaf.renew_after > half - 60);
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let mut settings = settings(None);
    settings.leaf_life = Duration::from_secs(100 * 365 * 86_400);
    let authority = Authority::open(&settings).unwrap();
    let root_end = not_after(&authority.roots()[0]).unwrap();
    assert_eq!(authority.sign(&identity(), &key()).unwrap().not_after, root_end);
    settings.intermediate = true;
    let leaf = Authority::open(&settings).unwrap().sign(&identity(), &key()).unwrap();
    assert_eq!(Some(leaf.not_after), not_after(&leaf.chain[1]));
    assert!(leaf.not_after < root_end);
}

#[test]
fn a_chain_with_an_intermediate_is_verified_from_the_root() {
    let mut settings = settings(None);
    settings.intermediate = true;
    let authority = Authority::open(&settings).unwrap();
    let leaf = authority.sign(&identity(), &key()).unwrap();
    let roots = authority.roots();
    let anchors = [webpki::anchor_from_trusted_cert(&roots[0]).unwrap()];
    let end = webpki::EndEntityCert::try_from(&leaf.chain[0]).unwrap();
    let now = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(unix_now()));
    let verified = end.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &leaf.chain[1..],
        now,
        webpki::KeyUsage::client_auth(),
        None,
        None,
    );
    assert!(verified.is_ok());
}

#[test]
fn a_kept_root_survives_a_restart_with_private_files() {
    let folder = Folder::new();
    let state = folder.path().join("state");
    let first = Authority::open(&settings(Some(state.clone()))).unwrap();
    let second = Authority::open(&settings(Some(state.clone()))).unwrap();
    assert_eq!(first.roots(), second.roots());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(ROOT_KEY)), 0o600);
    assert_eq!(mode(&state.join(ROOT_CERTIFICATE)), 0o644);
}

#[test]
fn a_root_that_cannot_be_trusted_stops_the_start() {
    let folder = Folder::new();
    let state = folder.path().join("state");
    Authority::open(&settings(Some(state.clone()))).unwrap();

    let mut other = settings(Some(state.clone()));
    other.trust_domain = "example.org".to_owned();
    assert!(Authority::open(&other).unwrap_err().to_string().contains("trust domain"));

    let key_path = state.join(ROOT_KEY);
    std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Authority::open(&settings(Some(state.clone()))).unwrap_err().to_string().contains("0600"));

    files::write_atomically(&key_path, key().serialize_pem().as_bytes(), 0o600).unwrap();
    let error = Authority::open(&settings(Some(state.clone()))).unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");

    std::fs::remove_file(&key_path).unwrap();
    assert!(Authority::open(&settings(Some(state))).unwrap_err().to_string().contains("missing"));
}
