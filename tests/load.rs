//! Much at once through two sidecars: a gigabyte with flat memory, and thousands of slow peers beside
//! prompt ones.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Pod, Wire, in_time};

const GIBIBYTE: u64 = 1 << 30;
/// What a sidecar's memory may grow by while a body passes. Source: far above what windows and buffers
/// hold, far below the body.
const GROWTH: u64 = 64 << 20;

/// Length of the pattern that bodies repeat. Source: a prime, so that a lost or doubled buffer shows.
const PATTERN: usize = 65_537;
/// Bytes written and read at a time.
const PIECE: usize = 256 << 10;

/// The pattern, long enough to take a piece from any place in it.
fn pattern() -> Vec<u8> {
    (0..PATTERN + PIECE).map(|at| (at % PATTERN % 251).to_le_bytes()[0]).collect()
}

fn piece(pattern: &[u8], done: u64, most: u64) -> &[u8] {
    let from = usize::try_from(done % PATTERN as u64).unwrap();
    &pattern[from..][..PIECE.min(usize::try_from(most).unwrap_or(PIECE))]
}

async fn write_body(stream: &mut (impl AsyncWrite + Unpin), bytes: u64) {
    let (pattern, mut done) = (pattern(), 0);
    while done < bytes {
        let piece = piece(&pattern, done, bytes - done);
        in_time("the body is taken", stream.write_all(piece)).await.unwrap();
        done += piece.len() as u64;
    }
}

async fn read_body(stream: &mut (impl AsyncRead + Unpin), bytes: u64, seen: &AtomicU64) {
    let (pattern, mut buffer, mut done) = (pattern(), vec![0; PIECE], 0);
    while done < bytes {
        let most = PIECE.min(usize::try_from(bytes - done).unwrap_or(PIECE));
        let count = in_time("the body goes on", stream.read(&mut buffer[..most])).await.unwrap();
        assert!(count > 0, "the end came after {done} bytes");
        assert!(
            buffer[..count] == *piece(&pattern, done, count as u64),
            "changed within {count} bytes after {done}"
        );
        done += count as u64;
        seen.store(done, Ordering::Relaxed);
    }
}

async fn pair(app: &App, protocol: &str) -> Mesh {
    let patient = |pod: Pod| pod.flag("--header-timeout", "1h");
    mesh!()
        .service("web", 8080, Some(protocol))
        .pod(patient(Pod::named("web-0").serves(8080, app.address)))
        .pod(patient(Pod::named("client-0").calls("web:8080")))
        .start()
        .await
}

/// An application that sends back what it reads, as it reads it; over HTTP after a head of its own.
async fn echo(http: bool) -> App {
    App::raw(move |mut wire| async move {
        if http {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {GIBIBYTE}\r\n\r\n"))
                .await;
        }
        let held = wire.take();
        let (mut from, mut to) = wire.into_stream().into_split();
        to.write_all(&held).await.unwrap();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    })
    .await
}

/// Sends a gibibyte, reads it back, and watches the sidecars' memory meanwhile.
async fn gibibyte_there_and_back(mesh: &Mesh, stream: TcpStream) {
    let sidecars = [mesh.sidecar("web-0"), mesh.sidecar("client-0")];
    let before = sidecars.map(|sidecar| sidecar.resident());
    let (mut from, mut to) = stream.into_split();
    let seen = AtomicU64::new(0);
    let reading = read_body(&mut from, GIBIBYTE, &seen);
    let moving = async { tokio::join!(write_body(&mut to, GIBIBYTE), reading) };
    let watching = async {
        let mut timer = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            timer.tick().await;
            for (sidecar, before) in sidecars.iter().zip(before) {
                let (now, after) = (sidecar.resident(), seen.load(Ordering::Relaxed));
                assert!(now < before + GROWTH, "grew from {before} to {now} bytes when {after} were through");
            }
        }
    };
    tokio::select! {
        _ = moving => {}
        () = watching => {}
    }
}

#[tokio::test]
async fn a_gibibyte_of_http_body_goes_both_ways_with_flat_memory() {
    let app = echo(true).await;
    let mesh = pair(&app, "http").await;
    let mut wire = Wire::open(mesh.door("client-0", "web:8080")).await;
    wire.send(format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {GIBIBYTE}\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    gibibyte_there_and_back(&mesh, wire.into_stream()).await;
}

#[tokio::test]
async fn a_gibibyte_of_opaque_bytes_goes_both_ways_with_flat_memory() {
    let app = echo(false).await;
    let mesh = pair(&app, "tcp").await;
    let wire = Wire::open(mesh.door("client-0", "web:8080")).await;
    gibibyte_there_and_back(&mesh, wire.into_stream()).await;
}

#[tokio::test]
async fn a_sender_waits_for_a_reader_that_does_not_read_and_memory_stays_flat() {
    let app = App::raw(async |wire: Wire| {
        let _held = wire;
        std::future::pending::<()>().await;
    })
    .await;
    let mesh = pair(&app, "tcp").await;
    let before = ["web-0", "client-0"].map(|pod| mesh.sidecar(pod).resident());
    let mut stream = Wire::open(mesh.door("client-0", "web:8080")).await.into_stream();
    let mut taken = 0;
    // The kernel's buffers and the sidecars' take some megabytes; then nothing more goes.
    let filling = async {
        let zeroes = vec![0; PIECE];
        while taken < GIBIBYTE {
            taken += stream.write(&zeroes).await.unwrap() as u64;
        }
    };
    let full = tokio::time::timeout(std::time::Duration::from_secs(2), filling).await;
    assert!(full.is_err(), "a gibibyte was taken for a reader that does not read");
    for (pod, before) in ["web-0", "client-0"].into_iter().zip(before) {
        let now = mesh.sidecar(pod).resident();
        assert!(now < before + GROWTH, "{pod} grew from {before} to {now} bytes, {taken} taken");
    }
}

/// A socket at both ends, and two in each sidecar, which inherits the limit.
fn allow_many_sockets() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

#[tokio::test]
async fn two_thousand_slow_connections_keep_nobody_waiting() {
    allow_many_sockets();
    let app = App::raw(async |mut wire: Wire| {
        while let Some(head) = wire.try_until("\r\n\r\n").await {
            if head.starts_with("POST") {
                wire.exactly(10).await;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
        }
    })
    .await;
    let mesh = pair(&app, "http").await;
    let door = mesh.door("client-0", "web:8080");
    let mut slow = Vec::new();
    for number in 0..2_000 {
        let mut wire = Wire::open(door).await;
        // Half are slow within the head, half within the body.
        let begun = match number % 2 {
            0 => "GET / HTTP/1.1\r\nhost: w",
            _ => "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\n12345",
        };
        wire.send(begun).await;
        slow.push(wire);
    }
    for _ in 0..100 {
        let answer = Http::once(door, "/").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    }
    for (number, wire) in slow.iter_mut().enumerate() {
        wire.send(if number % 2 == 0 { "eb\r\n\r\n" } else { "67890" }).await;
    }
    for (number, wire) in slow.iter_mut().enumerate() {
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{number}: {head}");
        assert_eq!(wire.exactly(4).await, b"done");
    }
}
