//! The drill of replacing a root: sidecars that are a step apart always shake hands, whoever calls
//! whom, over real mutual TLS.
//!
//! ```text
//!   ca.crt   A      A+B     A+B     B         one step at a time, each when the one before
//!   tls.*    A      A       B       B         has reached every sidecar
//! ```
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::PATIENCE;
use common::client::{Held, config, key};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_control_plane::authority::{Authority, AuthoritySettings, Material};
use weft_control_plane::clock::unix_now;
use weft_control_plane::tls;

/// A root with its key, in PEM.
struct Root {
    certificate: String,
    key: KeyPair,
    params: CertificateParams,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn root(name: &str) -> Root {
    let (params, key) = (params(name), key());
    Root { certificate: params.self_signed(&key).unwrap().pem(), key, params }
}

fn material(signer: &Root, trusted: &[&Root]) -> Material {
    let bundle: String = trusted.iter().map(|root| root.certificate.as_str()).collect();
    let (certificate, key) = (signer.certificate.as_bytes(), signer.key.serialize_pem());
    Material::read(certificate, key.as_bytes(), bundle.as_bytes(), "cluster.local", unix_now()).unwrap()
}

fn authority(material: Material) -> Arc<Authority> {
    let settings = AuthoritySettings {
        state: None,
        trust_domain: "cluster.local".to_owned(),
        intermediate: false,
        leaf_life: Duration::from_secs(3600),
    };
    Arc::new(Authority::with(material, &settings).unwrap())
}

/// What a sidecar holds: a leaf of the signer of one moment, and the roots of that moment.
struct Sidecar {
    held: Held,
    roots: Vec<CertificateDer<'static>>,
}

fn sidecar(authority: &Authority) -> Sidecar {
    let key = key();
    // The client of these tests only calls the control plane's identity.
    let id = "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane".parse().unwrap();
    let chain = authority.sign(&id, &key).unwrap().chain;
    Sidecar { held: Held { chain, key }, roots: authority.roots() }
}

fn server_config(sidecar: &Sidecar) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    sidecar.roots.iter().for_each(|root| roots.add(root.clone()).unwrap());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(sidecar.held.key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(sidecar.held.chain.clone(), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Both sides finish the handshake, and a byte arrives.
async fn shake(client: &Sidecar, server: Arc<rustls::ServerConfig>) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("control-plane.weft").unwrap();
    let connector = TlsConnector::from(config(client.roots.clone(), Some(&client.held)));
    let call = async {
        let mut stream = connector.connect(name, near).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        // Held until the server has read: a refusal arrives instead of the end.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    };
    let answer = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        stream.shutdown().await
    };
    let both = async { tokio::join!(call, answer) };
    let (called, answered) = tokio::time::timeout(PATIENCE, both).await.expect("a handshake in time");
    answered.map_err(|error| format!("server: {error}"))?;
    called.map_err(|error| format!("client: {error}"))
}

async fn assert_both_ways(one: &Sidecar, other: &Sidecar, when: &str) {
    assert_eq!(shake(one, server_config(other)).await, Ok(()), "{when}: one calls the other");
    assert_eq!(shake(other, server_config(one)).await, Ok(()), "{when}: the other calls the one");
}

#[tokio::test]
async fn sidecars_a_step_apart_always_shake_hands_in_the_drill() {
    let (a, b) = (root("A"), root("B"));
    for (old, new) in [(&a, &b), (&b, &a)] {
        let authority = authority(material(old, &[old]));
        let mut before = sidecar(&authority);
        let drill = [
            ("the new root is trusted", material(old, &[old, new])),
            ("the new root signs", material(new, &[old, new])),
            ("the old root is gone", material(new, &[new])),
        ];
        for (when, material) in drill {
            assert!(authority.replace(material).unwrap(), "{when}");
            let after = sidecar(&authority);
            assert_both_ways(&before, &after, when).await;
            assert_both_ways(&after, &after, when).await;
            before = after;
        }
        assert_eq!(before.roots.len(), 1);
    }
}

#[tokio::test]
async fn without_the_overlap_old_and_new_sidecars_refuse_each_other() {
    let (a, b) = (root("A"), root("B"));
    let authority = authority(material(&a, &[&a]));
    let before = sidecar(&authority);
    authority.replace(material(&b, &[&b])).unwrap();
    let after = sidecar(&authority);
    assert!(shake(&before, server_config(&after)).await.is_err());
    assert!(shake(&after, server_config(&before)).await.is_err());
}

#[tokio::test]
async fn the_control_plane_takes_old_leafs_as_long_as_their_root_is_trusted_without_a_restart() {
    let (a, b) = (root("A"), root("B"));
    let authority = authority(material(&a, &[&a]));
    let own = Arc::new(tls::OwnCertificate::issue(&authority, "weft-system").unwrap());
    let server = Arc::new(tls::server_config(&authority, Arc::clone(&own)).unwrap());
    let old = sidecar(&authority);
    assert_eq!(shake(&old, Arc::clone(&server)).await, Ok(()));

    authority.replace(material(&b, &[&a, &b])).unwrap();
    let new = sidecar(&authority);
    assert_eq!(shake(&old, Arc::clone(&server)).await, Ok(()), "its root is still trusted");
    assert_eq!(shake(&new, Arc::clone(&server)).await, Ok(()), "the new root is trusted at once");

    authority.replace(material(&b, &[&b])).unwrap();
    let refused = shake(&old, Arc::clone(&server)).await;
    assert!(refused.is_err(), "its root is trusted no more");
}

#[tokio::test]
async fn an_intermediate_as_cert_manager_writes_it_signs_leafs_that_its_root_verifies() {
    let (a, b) = (root("A"), root("B"));
    let issuer = Issuer::from_params(&a.params, &a.key);
    let below = key();
    let intermediate = params("below A").signed_by(&below, &issuer).unwrap().pem();
    let key_pem = below.serialize_pem();
    let read = |certificates: &str| {
        let (key, roots) = (key_pem.as_bytes(), a.certificate.as_bytes());
        Material::read(certificates.as_bytes(), key, roots, "cluster.local", unix_now()).unwrap()
    };
    // With or without the root at the end of the chain.
    for certificates in [intermediate.clone(), format!("{intermediate}{}", a.certificate)] {
        let issued = sidecar(&authority(read(&certificates)));
        assert_eq!(issued.held.chain.len(), 2, "the leaf and the intermediate, never the root");
        assert_both_ways(&issued, &sidecar(&authority(material(&a, &[&a, &b]))), "below and above").await;
    }
}
