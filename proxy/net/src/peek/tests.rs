//! Looks at real connections.

use super::*;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn pair() -> (TcpStream, Sock) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), Sock::tcp(b.unwrap().0))
}

fn line(bytes: &[u8]) -> Step<usize> {
    bytes.iter().position(|&byte| byte == b'\n').map_or(Step::More, Step::Done)
}

#[tokio::test(flavor = "local")]
async fn bytes_that_come_one_by_one_are_seen_together_and_read_afterwards() {
    let (mut peer, mut sock) = pair().await;
    let slow = async {
        for byte in b"hello\n" {
            peer.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ((), seen) = tokio::join!(slow, peek(&mut sock, 64, line));
    assert_eq!(seen.unwrap(), Seen::Told(5));
    assert_eq!(sock.read_bytes(), 0);
    peer.write_all(b"more").await.unwrap();
    let mut got = [0; 10];
    crate::sock::Io::new(sock).read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello\nmore");
}

#[tokio::test(flavor = "local")]
async fn a_look_has_its_limit_and_sees_the_end() {
    let (mut peer, mut sock) = pair().await;
    peer.write_all(&[b'x'; 100]).await.unwrap();
    assert_eq!(peek(&mut sock, 64, line).await.unwrap(), Seen::Full);
    assert_eq!(sock.unread_bytes().len(), 64);

    let (mut peer, mut sock) = pair().await;
    peer.write_all(b"abc").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(peek(&mut sock, 64, line).await.unwrap(), Seen::Ended);
    assert_eq!(sock.unread_bytes(), b"abc");
}

#[tokio::test(flavor = "local")]
async fn a_look_given_up_loses_nothing() {
    let (mut peer, mut sock) = pair().await;
    peer.write_all(b"half").await.unwrap();
    let late = crate::sweep::deadline(peek(&mut sock, 64, line), std::time::Duration::from_millis(50)).await;
    late.unwrap_err();
    peer.write_all(b"\n").await.unwrap();
    assert_eq!(peek(&mut sock, 64, line).await.unwrap(), Seen::Told(4));
}

#[tokio::test(flavor = "local")]
async fn whoever_has_bytes_first_is_the_first_speaker() {
    let ((_client, mut first), (mut server, mut second)) = (pair().await, pair().await);
    server.write_all(b"220 ready\r\n").await.unwrap();
    assert_eq!(first_speaker(&mut first, &mut second).await, Side::Second);

    let ((mut client, mut first), (_server, mut second)) = (pair().await, pair().await);
    client.write_all(b"EHLO\r\n").await.unwrap();
    assert_eq!(first_speaker(&mut first, &mut second).await, Side::First);
}
