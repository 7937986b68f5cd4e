//! Gathering, back-pressure, ends and sizes of a [`Sock`] in the clear.

use super::*;
use crate::drive::Drive;
use std::future::poll_fn;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

#[test]
fn a_connection_is_small() {
    assert!(size_of::<Sock>() <= 160, "{}", size_of::<Sock>());
    assert!(size_of::<Io>() == size_of::<usize>());
    assert!(size_of::<crate::relay::Relay>() <= 400, "{}", size_of::<crate::relay::Relay>());
}

#[tokio::test(flavor = "local")]
async fn what_one_poll_writes_stays_until_the_poll_ends() {
    let (a, mut b) = pair().await;
    let io = Io::new(Sock::tcp(a));
    let mut writer = io.clone();
    let watched = io.clone();
    let driven = Drive::new(
        async move {
            writer.write_all(b"one ").await.unwrap();
            writer.flush().await.unwrap();
            writer.write_all(b"two").await.unwrap();
            assert!(watched.0.borrow().is_dirty());
        },
        io.clone(),
    );
    driven.await;
    assert!(io.0.borrow().is_clean());
    let mut got = [0; 7];
    b.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"one two");
}

#[tokio::test(flavor = "local")]
async fn writer_waits_when_the_peer_does_not_read_and_goes_on_when_it_does() {
    let (a, mut b) = pair().await;
    let io = Io::new(Sock::tcp(a));
    let total = 64 * 1024 * 1024;
    let mut writer = io.clone();
    let watched = io.clone();
    let writing = Drive::new(
        async move {
            let block = vec![7; 100_000];
            let mut left = total;
            while left > 0 {
                let n = writer.write(&block[..left.min(100_000)]).await.unwrap();
                left -= n;
                let sock = watched.0.borrow();
                assert!(sock.gathered.len() <= GATHER + TAKE, "{}", sock.gathered.len());
            }
            writer.shutdown().await.unwrap();
        },
        io.clone(),
    );
    let mut got = 0;
    let reading = async {
        let mut block = vec![0; 1 << 20];
        loop {
            let n = b.read(&mut block).await.unwrap();
            if n == 0 {
                break;
            }
            assert!(block[..n].iter().all(|&byte| byte == 7));
            got += n;
        }
    };
    tokio::join!(writing, reading);
    assert_eq!(got, total);
    assert_eq!(io.0.borrow().written_bytes(), total as u64);
}

#[tokio::test(flavor = "local")]
async fn bytes_given_back_are_read_again_and_make_it_readable() {
    let (a, mut b) = pair().await;
    b.write_all(b"world").await.unwrap();
    let mut io = Io::new(Sock::tcp(a));
    io.readable().await;
    io.0.borrow_mut().unread(b"hello ");
    io.readable().await;
    let mut got = [0; 11];
    io.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello world");
}

#[tokio::test(flavor = "local")]
async fn reset_is_seen_as_a_reset() {
    let (a, mut b) = pair().await;
    Sock::tcp(a).reset();
    let error = b.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "local")]
async fn finished_side_still_reads_and_no_longer_writes() {
    let (a, mut b) = pair().await;
    let mut sock = Sock::tcp(a);
    poll_fn(|cx| sock.poll_write(cx, &[IoSlice::new(b"bye")])).await.unwrap();
    poll_fn(|cx| sock.poll_finish(cx)).await.unwrap();
    let mut got = Vec::new();
    b.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"bye");
    b.write_all(b"late").await.unwrap();
    let mut io = Io::new(sock);
    let mut late = [0; 4];
    io.read_exact(&mut late).await.unwrap();
    assert_eq!(io.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(flavor = "local")]
async fn first_write_error_meets_every_later_write() {
    let (a, b) = pair().await;
    Sock::tcp(b).reset();
    let mut sock = Sock::tcp(a);
    poll_fn(|cx| sock.poll_readable(cx)).await;
    poll_fn(|cx| sock.poll_write(cx, &[IoSlice::new(b"x")])).await.unwrap();
    let first = poll_fn(|cx| sock.poll_flush_now(cx)).await.unwrap_err();
    let later = poll_fn(|cx| sock.poll_write(cx, &[IoSlice::new(b"x")])).await.unwrap_err();
    assert_eq!(first.kind(), later.kind());
    assert!(sock.is_clean());
}
