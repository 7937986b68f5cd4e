//! The relay between real sockets, in the clear and between TLS.

use super::*;
use crate::sock::Io;
use crate::sweep::Sweep;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

/// A relay in the clear; the client's and the server's end of it.
async fn relayed(sweep: &Sweep, idle: Option<Duration>) -> (TcpStream, Relay, TcpStream) {
    let (client, downstream) = pair().await;
    let (upstream, server) = pair().await;
    let relay = Relay::new(Sock::tcp(downstream), Sock::tcp(upstream), sweep.watch(), idle);
    (client, relay, server)
}

/// Sends `length` bytes and the end; returns how many came back before the other end.
async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, length: usize) -> usize {
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let writing = async {
        let block: Vec<u8> = (0..65_521).map(|at| (at % 251) as u8).collect();
        let mut left = length;
        while left > 0 {
            let n = left.min(block.len());
            write.write_all(&block[..n]).await.unwrap();
            left -= n;
        }
        write.shutdown().await.unwrap();
    };
    let reading = async {
        let mut area = vec![0; 100_000];
        let mut got = 0;
        loop {
            let n = read.read(&mut area).await.unwrap();
            if n == 0 {
                return got;
            }
            for (at, &byte) in area[..n].iter().enumerate() {
                assert_eq!(byte, (((got + at) % 65_521) % 251) as u8);
            }
            got += n;
        }
    };
    tokio::join!(writing, reading).1
}

#[tokio::test(flavor = "local")]
async fn megabytes_pass_both_ways_at_once_and_are_counted() {
    let (client, relay, server) = relayed(&Sweep::new(), None).await;
    let (up, down) = (30_000_001, 20_000_003);
    let (at_client, done, at_server) = tokio::join!(exchange(client, up), relay, exchange(server, down));
    assert_eq!((at_client, at_server), (down, up));
    assert_eq!(done, Relayed { up: up as u64, down: down as u64, end: Ended::Clean });
}

#[tokio::test(flavor = "local")]
async fn megabytes_pass_between_tls_and_the_clear() {
    let (client, inside) = crate::tls::tests::both().await;
    let (upstream, server) = pair().await;
    let relay = Relay::new(inside, Sock::tcp(upstream), Sweep::new().watch(), None);
    let io = Io::new(client);
    let client = crate::drive::Drive::new(exchange(io.clone(), 9_000_001), io);
    let (at_client, done, at_server) = tokio::join!(client, relay, exchange(server, 8_000_003));
    assert_eq!((at_client, at_server), (8_000_003, 9_000_001));
    assert_eq!(done.end, Ended::Clean);
}

#[tokio::test(flavor = "local")]
async fn one_direction_ends_while_the_other_goes_on() {
    let (mut client, relay, mut server) = relayed(&Sweep::new(), None).await;
    let talk = async {
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        for _ in 0..3 {
            server.write_all(b"still").await.unwrap();
            client.read_exact(&mut [0; 5]).await.unwrap();
        }
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    };
    let (done, ()) = tokio::join!(relay, talk);
    assert_eq!(done, Relayed { up: 0, down: 15, end: Ended::Clean });
}

#[tokio::test(flavor = "local")]
async fn reset_of_one_side_is_a_reset_for_the_other() {
    let (client, relay, mut server) = relayed(&Sweep::new(), None).await;
    Sock::tcp(client).reset();
    assert_eq!(relay.await.end, Ended::DownstreamReset);
    assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (mut client, relay, server) = relayed(&Sweep::new(), None).await;
    Sock::tcp(server).reset();
    assert_eq!(relay.await.end, Ended::UpstreamReset);
    assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "local")]
async fn tls_cut_without_farewell_is_passed_on_as_a_reset() {
    let (client, inside) = crate::tls::tests::both().await;
    let (upstream, mut server) = pair().await;
    let relay = Relay::new(inside, Sock::tcp(upstream), Sweep::new().watch(), None);
    drop(client);
    let done = relay.await;
    assert_eq!(done.end, Ended::Cut);
    assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "local")]
async fn silence_ends_a_relay_and_traffic_keeps_it() {
    let sweep = Sweep::new();
    tokio::task::spawn_local(sweep.clone().run());
    let (mut client, relay, mut server) = relayed(&sweep, Some(Duration::from_millis(500))).await;
    let relay = tokio::task::spawn_local(relay);
    let start = sweep.ticks();
    while sweep.ticks() < start + 8 {
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
    }
    assert!(!relay.is_finished());
    assert_eq!(relay.await.unwrap().end, Ended::Idle);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "local")]
async fn cut_ends_every_relay_at_once() {
    let sweep = Sweep::new();
    let (_client, relay, mut server) = relayed(&sweep, None).await;
    let relay = tokio::task::spawn_local(relay);
    tokio::task::yield_now().await;
    sweep.cut();
    assert_eq!(relay.await.unwrap().end, Ended::Drained);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "local")]
async fn slow_reader_holds_back_the_sender_within_the_bound() {
    let (mut client, mut relay, mut server) = relayed(&Sweep::new(), None).await;
    let block = vec![1; 1 << 20];
    let mut sent = 0;
    // Until nothing moves any more: the kernel's buffers are full and the relay takes no more.
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(200), async {
        tokio::select! {
            n = client.write(&block) => n.unwrap(),
            _ = &mut relay => unreachable!("nobody ended"),
        }
    })
    .await
    {
        sent += n;
    }
    assert!(relay.upstream.is_dirty());
    let (held, _) = relay.moved();
    assert!(held <= sent as u64);
    let drained = async {
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        server.shutdown().await.unwrap();
        got.len()
    };
    let (done, got) = tokio::join!(relay, drained);
    assert_eq!((got, done.end), (sent, Ended::Clean));
}
