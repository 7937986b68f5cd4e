//! What strangers may send to either port, and that it harms nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::{Folder, PATIENCE, get, manifests, start, status_until};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_control_plane::ControlPlane;

async fn shop() -> (Folder, ControlPlane) {
    let folder = Folder::new();
    folder.tokens("- {token: a-token-of-the-cart, serviceAccount: shop/cart, uses: 9}\n");
    folder.save("shop.yaml", manifests::SHOP);
    let control_plane = start(&folder.args()).await;
    (folder, control_plane)
}

async fn still_serves(control_plane: &ControlPlane) {
    common::client::join(control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    assert_eq!(get(control_plane, "/ready").await.0, 200);
}

/// Sends bytes and waits for the other side to close.
async fn throw(address: std::net::SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("closed in time");
}

#[tokio::test]
async fn garbage_on_either_port_is_closed_and_counted() {
    let (_folder, control_plane) = shop().await;
    let hello = [&[0x16, 3, 1, 0xff, 0xff, 1][..], &[0; 64]].concat();
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &hello, &[0xff; 4096], b""]
    {
        throw(control_plane.grpc, bytes).await;
        throw(control_plane.admin, bytes).await;
    }
    still_serves(&control_plane).await;
    let (_, metrics) = get(&control_plane, "/metrics").await;
    assert!(metrics.contains("connections_total{outcome=\"HandshakeFailed\"} 5"), "{metrics}");
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out() {
    let (_folder, control_plane) = shop().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(control_plane.grpc).await.unwrap());
        silent.push(TcpStream::connect(control_plane.admin).await.unwrap());
    }
    common::client::join(&control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    drop(silent);
    status_until(&control_plane, |status| status["ready"] == true).await;
}

#[tokio::test]
async fn the_handshake_is_tls_13_with_the_post_quantum_exchange_and_no_resumption() {
    let (_folder, control_plane) = shop().await;
    let config = common::client::config(common::client::roots(&control_plane), None);
    for _ in 0..2 {
        let socket = TcpStream::connect(control_plane.grpc).await.unwrap();
        let name = ServerName::try_from("control-plane.weft").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let mut stream = connector.connect(name, socket).await.unwrap();
        // The server's first frame: whatever tickets there were have come before it.
        stream.read_u8().await.unwrap();
        let tls = stream.get_ref().1;
        assert_eq!(tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        let group = tls.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn the_control_plane_is_known_by_its_identity_and_by_no_name() {
    let (_folder, control_plane) = shop().await;
    let mut roots = rustls::RootCertStore::empty();
    for root in common::client::roots(&control_plane) {
        roots.add(root).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(control_plane.grpc).await.unwrap();
    let name = ServerName::try_from("control-plane.weft").unwrap();
    let error = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}
