//! Bytes through TLS: sizes, ends, key updates, garbage.

use super::*;
use crate::drive::Drive;
use std::io::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use weft_proxy_core::Hop;

/// Bytes that show when one is lost, doubled or moved.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// Writes `out` in pieces, reads to the end, both at once; returns what came.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: S, out: &[u8], piece: usize) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut got = Vec::new();
    let writing = async {
        for part in out.chunks(piece) {
            write.write_all(part).await.unwrap();
        }
        write.shutdown().await.unwrap();
    };
    let ((), n) = tokio::join!(writing, async { read.read_to_end(&mut got).await.unwrap() });
    assert_eq!(n, got.len());
    got
}

/// Our client against tokio-rustls' server, and its client against our server.
async fn against_tokio_rustls(length: usize, piece: usize) {
    let (ca, clock) = (Ca::new(), Clock::new());
    let ours = ca.generation(SHOP, &clock);
    let theirs = ca.generation(CART, &clock);
    let (there, back) = (pattern(length), pattern(length + 7));

    let (a, b, address) = pair().await;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(theirs.server()));
    let dialer = dialer(ca.generation(SHOP, &clock));
    let expected = identity(CART);
    let (a, b) = tokio::join!(dialer.connect(a, address, &expected, Hop::Tcp), acceptor.accept(b));
    let io = Io::new(a.unwrap().0);
    let (got, sent) =
        tokio::join!(Drive::new(exchange(io.clone(), &there, piece), io), exchange(b.unwrap(), &back, piece));
    assert!(got == back && sent == there);

    let (a, b, _) = pair().await;
    let mut config = theirs.client(&identity(SHOP)).unwrap();
    config.alpn_protocols = vec![Hop::Http1.alpn().to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("any.test").unwrap();
    let (a, b) = tokio::join!(connector.connect(name, a), accept(b, &[], &ours));
    let (sock, peer) = b.unwrap();
    assert_eq!((peer.identity.as_str(), peer.hop), (CART, Hop::Http1));
    let io = Io::new(sock);
    let (got, sent) =
        tokio::join!(Drive::new(exchange(io.clone(), &there, piece), io), exchange(a.unwrap(), &back, piece));
    assert!(got == back && sent == there);
}

#[tokio::test(flavor = "local")]
async fn bytes_pass_between_us_and_tokio_rustls_in_all_sizes() {
    for (length, piece) in
        [(0, 1), (1, 1), (3000, 1), (16_384, 16_384), (70_001, 16_385), (9_000_000, 300_000)]
    {
        against_tokio_rustls(length, piece).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_byte_at_a_time_reads_all_and_counts_them() {
    let (a, b) = both().await;
    let (a, mut b) = (Io::new(a), Io::new(b));
    let sent = pattern(40_000);
    let mut writer = a.clone();
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let reading = async {
        let mut got = Vec::new();
        let mut byte = [0];
        while b.read(&mut byte).await.unwrap() == 1 {
            got.push(byte[0]);
        }
        got
    };
    let ((), got) = tokio::join!(writing, reading);
    assert!(got == sent);
    assert_eq!(a.0.borrow().written_bytes(), 40_000);
    assert_eq!(b.0.borrow().read_bytes(), 40_000);
}

#[tokio::test(flavor = "local")]
async fn half_closed_side_still_receives() {
    let (a, b) = both().await;
    let (mut a, mut b) = (Io::new(a), Io::new(b));
    a.shutdown().await.unwrap();
    assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0);
    b.write_all(b"late").await.unwrap();
    b.shutdown().await.unwrap();
    let mut got = Vec::new();
    a.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"late");
    assert_eq!(a.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(flavor = "local")]
async fn stream_cut_without_farewell_is_an_error_not_an_end() {
    let (a, b) = both().await;
    let mut b = Io::new(b);
    let mut a = Io::new(a);
    a.write_all(b"half a mess").await.unwrap();
    flushed(&a).await;
    drop(a);
    let mut got = Vec::new();
    let error = b.read_to_end(&mut got).await.unwrap_err();
    assert_eq!((error.kind(), &got[..]), (ErrorKind::UnexpectedEof, &b"half a mess"[..]));
}

#[tokio::test(flavor = "local")]
async fn keys_are_updated_by_either_side_under_traffic() {
    let (a, b) = both().await;
    let (mut a, mut b) = (Io::new(a), Io::new(b));
    for round in 0..20 {
        let who = if round % 2 == 0 { &a } else { &b };
        who.0.borrow_mut().session_mut().unwrap().refresh_keys().unwrap();
        let sent = pattern(20_000 + round);
        for _ in 0..2 {
            a.write_all(&sent).await.unwrap();
            flushed(&a).await;
            let mut got = vec![0; sent.len()];
            b.read_exact(&mut got).await.unwrap();
            assert!(got == sent);
            std::mem::swap(&mut a, &mut b);
        }
    }
}

#[tokio::test(flavor = "local")]
async fn garbage_after_the_handshake_is_refused_with_an_alert() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let ours = ca.generation(CART, &clock);
    let (a, b, _) = pair().await;
    let mut config = ca.generation(SHOP, &clock).client(&identity(CART)).unwrap();
    config.alpn_protocols = vec![Hop::Tcp.alpn().to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("any.test").unwrap();
    let (a, b) = tokio::join!(connector.connect(name, a), accept(b, &[], &ours));
    let mut server = Io::new(b.unwrap().0);
    let (mut tcp, mut session) = a.unwrap().into_inner();
    let mut record = vec![0x17, 3, 3, 0, 64];
    record.extend_from_slice(&pattern(64));
    tcp.write_all(&record).await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::InvalidData);
    drop(server);
    // What comes back decrypts, after the session ticket, to the alert of a bad record.
    let mut sealed = Vec::new();
    tcp.read_to_end(&mut sealed).await.unwrap();
    let mut rest = &sealed[..];
    let error = loop {
        assert!(!rest.is_empty(), "no alert came");
        session.read_tls(&mut rest).unwrap();
        if let Err(error) = session.process_new_packets() {
            break error;
        }
    };
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

#[tokio::test(flavor = "local")]
async fn garbage_instead_of_a_handshake_is_refused_wherever_it_begins() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let ours = ca.generation(CART, &clock);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0xff; 70_000]] {
        let (mut a, b, _) = pair().await;
        a.write_all(garbage).await.unwrap();
        let error = accept(b, &[], &ours).await.unwrap_err();
        assert_eq!(error.reason(), "protocol", "{error}");
    }
}

#[tokio::test(flavor = "local")]
async fn handshake_cut_after_any_byte_ends_as_closed() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let ours = ca.generation(CART, &clock);
    let hello = client_hello(&ca, &clock).await;
    for n in (0..hello.len()).step_by(97).chain([hello.len()]) {
        let (mut a, b, _) = pair().await;
        a.write_all(&hello[..n]).await.unwrap();
        a.shutdown().await.unwrap();
        let error = accept(b, &[], &ours).await.unwrap_err();
        assert_eq!(error.reason(), "closed", "{n}: {error}");
    }
}

/// What our client sends first.
async fn client_hello(ca: &Ca, clock: &Arc<Clock>) -> Vec<u8> {
    let dialer = dialer(ca.generation(SHOP, clock));
    let (a, mut b, address) = pair().await;
    let expected = identity(CART);
    let mut hello = vec![0; 4096];
    tokio::select! {
        biased;
        _ = dialer.connect(a, address, &expected, Hop::Tcp) => unreachable!("nobody answers"),
        n = b.read(&mut hello) => hello.truncate(n.unwrap()),
    }
    hello
}

#[tokio::test(flavor = "local")]
async fn handshake_goes_on_from_bytes_already_read() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let dialer = dialer(ca.generation(SHOP, &clock));
    for take in [1, 5, 200, 100_000] {
        let (a, mut b, address) = pair().await;
        let expected = identity(CART);
        let served = async {
            let mut peeked = vec![0; take];
            let n = b.read(&mut peeked).await.unwrap();
            accept(b, &peeked[..n], &server).await
        };
        let (client, served) = tokio::join!(dialer.connect(a, address, &expected, Hop::Tcp), served);
        assert_eq!(client.unwrap().1.hop, Hop::Tcp);
        served.unwrap();
    }
}

#[tokio::test(flavor = "local")]
async fn unfinished_handshake_message_leaves_the_connection_whole() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let ours = ca.generation(CART, &clock);
    let (a, b, _) = pair().await;
    let mut config = ca.generation(SHOP, &clock).client(&identity(CART)).unwrap();
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![Hop::Tcp.alpn().to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("any.test").unwrap();
    let (a, b) = tokio::join!(connector.connect(name, a), accept(b, &[], &ours));
    let mut server = Io::new(b.unwrap().0);
    let (mut tcp, session) = a.unwrap().into_inner();
    tcp.write_all(&half_a_key_update(session)).await.unwrap();

    // The server reads half a message, then writes and closes all the same.
    let pending = crate::sweep::deadline(server.read(&mut [0; 8]), Duration::from_millis(200)).await;
    assert!(pending.is_err());
    server.write_all(b"still here").await.unwrap();
    flushed(&server).await;
    server.shutdown().await.unwrap();
    let mut sealed = Vec::new();
    tcp.read_to_end(&mut sealed).await.unwrap();
    assert!(sealed.len() > b"still here".len());
}

/// A record, rightly encrypted as the client's first, that holds two of a KeyUpdate's five bytes.
fn half_a_key_update(session: rustls::ClientConnection) -> Vec<u8> {
    let (sequence, rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv }) =
        session.dangerous_extract_secrets().unwrap().tx
    else {
        panic!("another cipher")
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (at, byte) in sequence.to_be_bytes().into_iter().enumerate() {
        nonce[4 + at] ^= byte;
    }
    let head = [0x17, 3, 3, 0, 3 + 16];
    let mut body = vec![24, 0, 0x16];
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, key.as_ref()).unwrap();
    aws_lc_rs::aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(
            aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce),
            aws_lc_rs::aead::Aad::from(head),
            &mut body,
        )
        .unwrap();
    [&head[..], &body].concat()
}
