//! Who may talk to whom, and which sessions are resumed.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_proxy_core::Hop;

/// One handshake; on success a byte goes each way, so that the ticket arrives.
async fn meet(
    dialer: &Dialer,
    server: &Generation,
    expected: &str,
) -> (Result<Peer, TlsError>, Result<Peer, TlsError>) {
    let (a, b, _) = pair().await;
    // One endpoint as far as sessions go, although each test connection has a port of its own.
    let endpoint = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4143);
    let expected = identity(expected);
    let client = async {
        let (sock, peer) = dialer.connect(a, endpoint, &expected, Hop::Http2).await?;
        let mut io = Io::new(sock);
        // The server may refuse only after we are done; then this read says so.
        let mut byte = [0];
        let n = io.read(&mut byte).await?;
        assert_eq!(n, 1);
        io.shutdown().await?;
        Ok(peer)
    };
    let served = async {
        let (sock, peer) = accept(b, &[], server).await?;
        let mut io = Io::new(sock);
        io.write_all(b"!").await.unwrap();
        flushed(&io).await;
        let _ = io.read(&mut [0]).await;
        Ok(peer)
    };
    tokio::join!(client, served)
}

#[tokio::test(flavor = "local")]
async fn two_sidecars_know_each_other() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let (client, served) = meet(&dialer(ca.generation(SHOP, &clock)), &server, CART).await;
    assert_eq!(
        client.unwrap(),
        Peer { identity: identity(CART), hop: Hop::Http2, resumed: false, group: Some("X25519MLKEM768") }
    );
    assert_eq!(
        served.unwrap(),
        Peer { identity: identity(SHOP), hop: Hop::Http2, resumed: false, group: Some("X25519MLKEM768") }
    );
}

#[tokio::test(flavor = "local")]
async fn handshake_is_tls13_with_post_quantum_key_exchange_and_aes128() {
    let (a, b) = both().await;
    for sock in [&a, &b] {
        let state = sock.session().unwrap().state();
        assert_eq!(state.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        let suite = state.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        let group = state.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    }
}

#[tokio::test(flavor = "local")]
async fn server_with_another_identity_of_the_same_domain_is_refused() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(SHOP, &clock);
    let (client, served) = meet(&dialer(ca.generation(SHOP, &clock)), &server, CART).await;
    let error = client.unwrap_err();
    assert_eq!(error.reason(), "wrong_identity", "{error}");
    assert!(error.to_string().contains(SHOP) && error.to_string().contains(CART), "{error}");
    assert_eq!(served.unwrap_err().reason(), "refused_by_peer");
}

#[tokio::test(flavor = "local")]
async fn longer_identity_with_the_expected_one_as_prefix_is_refused() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(&format!("{CART}2"), &clock);
    let (client, _) = meet(&dialer(ca.generation(SHOP, &clock)), &server, CART).await;
    assert_eq!(client.unwrap_err().reason(), "wrong_identity");
}

#[tokio::test(flavor = "local")]
async fn foreign_authority_is_refused_both_ways() {
    let (ours, theirs, clock) = (Ca::new(), Ca::new(), Clock::new());
    let server = theirs.generation(CART, &clock);
    let (client, _) = meet(&dialer(ours.generation(SHOP, &clock)), &server, CART).await;
    assert_eq!(client.unwrap_err().reason(), "unknown_issuer");

    // The client trusts the server's authority, but holds a certificate of another.
    let (chain, key) = ours.leaf(&Leaf { uris: &[SHOP], life: 86_400, ca: false });
    let stolen =
        Generation::with_clock(chain, key, std::slice::from_ref(&theirs.root), Arc::clone(&clock) as _)
            .unwrap();
    let (client, served) = meet(&dialer(stolen), &server, CART).await;
    assert_eq!(served.unwrap_err().reason(), "unknown_issuer");
    client.unwrap_err();
}

#[tokio::test(flavor = "local")]
async fn expired_certificate_is_refused_both_ways() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let short = Leaf { uris: &[CART], life: 60, ca: false };
    let server = ca.generation_of(&short, &clock);
    let long = dialer(ca.generation(SHOP, &clock));
    clock.advance(61);
    let (client, _) = meet(&long, &server, CART).await;
    assert_eq!(client.unwrap_err().reason(), "certificate_expired");

    let server = ca.generation(CART, &clock);
    let short = dialer(ca.generation_of(&Leaf { uris: &[SHOP], life: 60, ca: false }, &clock));
    let (client, served) = meet(&short, &server, CART).await;
    assert_eq!(served.unwrap_err().reason(), "certificate_expired");
    client.unwrap_err();
}

#[tokio::test(flavor = "local")]
async fn client_without_exactly_one_uri_name_is_refused() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    for uris in [&[] as &[&str], &[SHOP, CART], &["spiffe://weft.test"], &["https://weft.test/ns/a/sa/b"]] {
        let (chain, key) = ca.leaf(&Leaf { uris, life: 86_400, ca: false });
        let error = presented(&ca, chain, key, &server, &clock).await;
        assert_eq!(error.reason(), "wrong_identity", "{uris:?}: {error}");
    }
}

#[tokio::test(flavor = "local")]
async fn certificate_of_an_authority_is_no_client() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let (chain, key) = ca.leaf(&Leaf { uris: &[SHOP], life: 86_400, ca: true });
    let error = presented(&ca, chain, key, &server, &clock).await;
    assert_eq!(error.reason(), "bad_certificate", "{error}");
}

/// What our server says to a foreign client that presents `chain`.
async fn presented(
    ca: &Ca,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    server: &Generation,
    clock: &Arc<Clock>,
) -> TlsError {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.root.clone()).unwrap();
    let any = Generation::client(&ca.generation(SHOP, clock), &identity(CART)).unwrap();
    let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider()).unwrap();
    let mut config = any;
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    config.alpn_protocols = vec![Hop::Tcp.alpn().to_vec()];
    foreign(config, server).await
}

/// What our server says to a client with `config`.
async fn foreign(config: rustls::ClientConfig, server: &Generation) -> TlsError {
    let (a, b, _) = pair().await;
    let name = rustls_pki_types::ServerName::try_from("any.test").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let client = async {
        if let Ok(mut stream) = connector.connect(name, a).await {
            let _ = stream.read(&mut [0]).await;
        }
    };
    let ((), served) = tokio::join!(client, accept(b, &[], server));
    served.unwrap_err()
}

#[tokio::test(flavor = "local")]
async fn client_without_a_certificate_or_without_our_protocol_is_refused() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let good = || ca.generation(SHOP, &clock).client(&identity(CART)).unwrap();

    let mut bare = good();
    bare.client_auth_cert_resolver = Arc::new(NoCertificate);
    bare.alpn_protocols = vec![Hop::Tcp.alpn().to_vec()];
    assert_eq!(foreign(bare, &server).await.reason(), "no_certificate");

    assert_eq!(foreign(good(), &server).await.reason(), "no_protocol");
    let mut h2 = good();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    assert_eq!(foreign(h2, &server).await.reason(), "no_protocol");
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "local")]
async fn second_connection_resumes_and_still_knows_both_identities() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let dialer = dialer(ca.generation(SHOP, &clock));
    meet(&dialer, &server, CART).await.0.unwrap();
    for _ in 0..3 {
        let (client, served) = meet(&dialer, &server, CART).await;
        assert_eq!(
            client.unwrap(),
            Peer { identity: identity(CART), hop: Hop::Http2, resumed: true, group: Some("X25519MLKEM768") }
        );
        assert_eq!(
            served.unwrap(),
            Peer { identity: identity(SHOP), hop: Hop::Http2, resumed: true, group: Some("X25519MLKEM768") }
        );
    }
}

#[tokio::test(flavor = "local")]
async fn session_is_not_resumed_under_another_expected_identity() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let dialer = dialer(ca.generation(SHOP, &clock));
    meet(&dialer, &server, CART).await.0.unwrap();
    // The endpoint is now said to be another workload; the old session must not vouch for it.
    let (client, _) = meet(&dialer, &server, SHOP).await;
    assert_eq!(client.unwrap_err().reason(), "wrong_identity");
}

#[tokio::test(flavor = "local")]
async fn session_does_not_outlive_the_clients_certificate() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let short = dialer(ca.generation_of(&Leaf { uris: &[SHOP], life: 600, ca: false }, &clock));
    meet(&short, &server, CART).await.0.unwrap();
    clock.advance(601);
    let (client, served) = meet(&short, &server, CART).await;
    assert_eq!(served.unwrap_err().reason(), "certificate_expired");
    client.unwrap_err();
}

#[tokio::test(flavor = "local")]
async fn session_does_not_outlive_the_servers_certificate() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation_of(&Leaf { uris: &[CART], life: 600, ca: false }, &clock);
    let dialer = dialer(ca.generation(SHOP, &clock));
    meet(&dialer, &server, CART).await.0.unwrap();
    clock.advance(601);
    let (client, _) = meet(&dialer, &server, CART).await;
    assert_eq!(client.unwrap_err().reason(), "certificate_expired");
}

#[tokio::test(flavor = "local")]
async fn renewed_identity_starts_over_and_roots_rotate_with_overlap() {
    let (old, new, clock) = (Ca::new(), Ca::new(), Clock::new());
    let shared = Arc::new(TlsIdentity::empty());
    let dialer = Dialer::new(Arc::clone(&shared));
    let (_, none) = (meet_nobody(&dialer).await, shared.current());
    assert!(none.is_none());

    shared.set(old.generation(SHOP, &clock));
    let server = old.generation(CART, &clock);
    meet(&dialer, &server, CART).await.0.unwrap();

    // Overlap: the client trusts both and is served by a certificate of the new root; nothing is resumed.
    let (chain, key) = old.leaf(&Leaf { uris: &[SHOP], life: 86_400, ca: false });
    let roots = [old.root.clone(), new.root.clone()];
    shared.set(Generation::with_clock(chain, key, &roots, Arc::clone(&clock) as _).unwrap());
    let (chain, key) = new.leaf(&Leaf { uris: &[CART], life: 86_400, ca: false });
    let server = Generation::with_clock(chain, key, &roots, Arc::clone(&clock) as _).unwrap();
    let (client, served) = meet(&dialer, &server, CART).await;
    assert!(!client.unwrap().resumed && !served.unwrap().resumed);

    // The old root is gone at the server: the client's old certificate is worth nothing, resumed or not.
    let server = new.generation(CART, &clock);
    let (client, served) = meet(&dialer, &server, CART).await;
    assert_eq!(served.unwrap_err().reason(), "unknown_issuer");
    client.unwrap_err();
}

async fn meet_nobody(dialer: &Dialer) {
    let (a, _b, address) = pair().await;
    let error = dialer.connect(a, address, &identity(CART), Hop::Tcp).await.unwrap_err();
    assert_eq!(error.reason(), "no_identity");
}
