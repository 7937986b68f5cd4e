//! What can be used to sign, and what is said of what cannot.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, SanType,
};

use super::*;
use crate::clock::unix_now;

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn root(params: &CertificateParams, key: &KeyPair) -> String {
    params.self_signed(key).unwrap().pem()
}

fn read(certificates: &str, key: &KeyPair, roots: &str) -> Result<Material, BadMaterial> {
    let key = key.serialize_pem();
    Material::read(certificates.as_bytes(), key.as_bytes(), roots.as_bytes(), "cluster.local", unix_now())
}

#[test]
fn a_root_of_our_own_survives_being_written_and_read() {
    let fresh = Material::fresh("cluster.local").unwrap();
    let (certificates, key, roots) = fresh.to_pem();
    let again = Material::read(
        certificates.as_bytes(),
        key.as_bytes(),
        roots.as_bytes(),
        "cluster.local",
        unix_now(),
    );
    let again = again.unwrap();
    assert!(again == fresh && again.may_delegate);
    assert_eq!((again.roots.len(), again.chain.len(), again.expired_roots), (1, 0, 0));
    assert_eq!(again.not_after(), fresh.not_after());
}

#[test]
fn roots_are_the_union_of_those_listed_and_the_signers_own_each_once() {
    let (a, b) = (key(), key());
    let (root_a, root_b) = (root(&authority_params("A"), &a), root(&authority_params("B"), &b));
    let count = |roots: &str| read(&root_a, &a, roots).unwrap().roots.len();
    assert_eq!(count(""), 1);
    assert_eq!(count(&root_a), 1);
    assert_eq!(count(&root_b), 2);
    assert_eq!(count(&format!("{root_a}{root_b}{root_a}")), 2);
}

#[test]
fn keys_of_other_curves_sign_too() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(read(&root(&authority_params("A"), &key), &key, "").is_ok());
}

#[test]
fn life_is_that_of_the_first_to_end_on_the_way_up() {
    let (above, below) = (key(), key());
    let mut short = authority_params("A");
    short.not_after = rcgen::date_time_ymd(2050, 1, 1);
    let root = root(&short, &above);
    let mut long = authority_params("below");
    long.not_after = rcgen::date_time_ymd(2090, 1, 1);
    let issuer = Issuer::from_params(&short, &above);
    let certificate = long.signed_by(&below, &issuer).unwrap().pem();
    let material = read(&certificate, &below, &root).unwrap();
    assert_eq!(material.not_after(), 2_524_608_000);
}

#[test]
fn a_root_that_has_ended_is_left_out_and_counted() {
    let (a, b) = (key(), key());
    let mut old = authority_params("old");
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (root_a, ended) = (root(&authority_params("A"), &a), root(&old, &b));
    let material = read(&root_a, &a, &ended).unwrap();
    assert_eq!((material.roots.len(), material.expired_roots), (1, 1));
    let refused = read(&ended, &b, "").unwrap_err();
    assert_eq!(refused, BadMaterial::Expired { subject: "CN=old".to_owned() });
}

#[test]
fn what_cannot_sign_is_refused_with_what_to_do() {
    let (a, b) = (key(), key());
    let (root_a, root_b) = (root(&authority_params("A"), &a), root(&authority_params("B"), &b));
    let issuer_params = authority_params("A");
    let issuer = Issuer::from_params(&issuer_params, &a);
    let orphan = authority_params("below A").signed_by(&b, &issuer).unwrap().pem();
    let mut leaf = authority_params("leaf");
    leaf.is_ca = IsCa::NoCa;
    leaf.key_usages = Vec::new();
    let leaf = leaf.signed_by(&b, &issuer).unwrap().pem();
    let mut early = authority_params("early");
    early.not_before = rcgen::date_time_ymd(2090, 1, 1);
    early.not_after = rcgen::date_time_ymd(2091, 1, 1);
    let mut foreign = authority_params("foreign");
    foreign.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
    let cases = [
        (read("", &a, ""), "tls.crt holds no certificate"),
        (read("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &a, ""), "tls.crt holds no"),
        (read(&root_a, &a, "not PEM"), "ca.crt holds no certificate"),
        (read(&root_a, &b, ""), "tls.key does not belong"),
        (read(&leaf, &b, &root_a), "may not sign certificates"),
        (read(&root_a, &a, &leaf), "ca.crt: certificate \"CN=leaf\" may not sign"),
        (read(&orphan, &b, ""), "add the root of \"CN=below A\" to ca.crt"),
        (read(&orphan, &b, &root_b), "does not lead up to a living root"),
        (read(&root(&early, &a), &a, ""), "is not valid yet"),
        (read(&root(&foreign, &a), &a, ""), "is of trust domain \"example.org\""),
    ];
    for (read, expected) in cases {
        let text = read.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let no_key = Material::read(root_a.as_bytes(), b"no key", b"", "cluster.local", unix_now());
    assert_eq!(no_key.unwrap_err(), BadMaterial::Key);
}

#[test]
fn a_key_is_never_shown() {
    let material = Material::fresh("cluster.local").unwrap();
    let (_, key, _) = material.to_pem();
    let inner: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let shown = format!("{material:?}");
    assert!(!shown.contains(inner.get(..20).unwrap()) && shown.len() < 80, "{shown}");
}

#[test]
fn bytes_of_any_kind_are_refused_and_never_panic() {
    let mut state = 7_u64;
    let fresh = Material::fresh("cluster.local").unwrap();
    let (certificates, key, roots) = fresh.to_pem();
    for _ in 0..500 {
        let mut damaged =
            [certificates.clone().into_bytes(), key.as_bytes().to_vec(), roots.clone().into_bytes()];
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let which = usize::try_from(state >> 62).unwrap() % 3;
        let length = damaged[which].len();
        let at = usize::try_from(state >> 20).unwrap() % length;
        damaged[which][at] ^= u8::try_from((state >> 8) & 0xff).unwrap() | 1;
        let [certificates, key, roots] = damaged;
        let _ = Material::read(&certificates, &key, &roots, "cluster.local", unix_now());
    }
}
