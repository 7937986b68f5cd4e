//! The admin server over real sockets.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Default)]
struct Fake {
    ready: AtomicBool,
    drains: AtomicUsize,
}

impl Sidecar for Fake {
    fn ready(&self) -> Result<(), String> {
        self.ready.load(Ordering::SeqCst).then_some(()).ok_or_else(|| "no certificate yet".to_owned())
    }

    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({"generation": 3})
    }

    fn drain(&self) {
        self.drains.fetch_add(1, Ordering::SeqCst);
    }
}

fn admin(sidecar: &Arc<Fake>) -> (Admin, impl tracing::Subscriber) {
    let (log, subscriber) = crate::log::tests::silent();
    let sidecar: Arc<dyn Sidecar> = Arc::<Fake>::clone(sidecar);
    (Admin::new(sidecar, Arc::default(), Clock::start(), log), subscriber)
}

async fn serving(admin: &Admin) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(admin.clone().serve(listener, stop.clone()));
    (address, stop.drop_guard())
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn every_path_answers_what_its_table_says() {
    let sidecar = Arc::new(Fake::default());
    let (admin, _log) = admin(&sidecar);
    let (address, _stop) = serving(&admin).await;
    assert_eq!(ask(address, "GET", "/ready", "").await, (503, "no certificate yet\n".into()));
    sidecar.ready.store(true, Ordering::SeqCst);
    assert_eq!(ask(address, "GET", "/ready", "").await, (200, "ready\n".into()));
    assert_eq!(ask(address, "GET", "/live", "").await.0, 200);
    assert_eq!(ask(address, "GET", "/config", "").await, (200, "{\"generation\":3}".into()));
    assert_eq!(ask(address, "GET", "/edges", "").await, (200, "[]".into()));
    let (status, page) = ask(address, "GET", "/metrics", "").await;
    assert!(status == 200 && page.contains("weft_build_info{"), "{page}");
    assert_eq!(ask(address, "GET", "/nothing", "").await.0, 404);
    assert_eq!(ask(address, "GET", "/drain", "").await.0, 405);
    assert_eq!(sidecar.drains.load(Ordering::SeqCst), 0);
    assert_eq!(ask(address, "POST", "/drain", "").await.0, 202);
    assert_eq!(sidecar.drains.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_logs_filter_changes_live_and_a_bad_one_is_refused() {
    let (admin, _log) = admin(&Arc::default());
    let (address, _stop) = serving(&admin).await;
    assert_eq!(ask(address, "PUT", "/log", "warn,weft_proxy=debug").await.0, 200);
    assert!(ask(address, "GET", "/log", "").await.1.contains("weft_proxy=debug"));
    let (status, why) = ask(address, "PUT", "/log", "room=loudly").await;
    assert!(status == 400 && why.contains("room=loudly"), "{why}");
    assert!(ask(address, "GET", "/log", "").await.1.contains("weft_proxy=debug"));
    assert_eq!(ask(address, "PUT", "/log", &"x".repeat(5_000)).await.0, 413);
}

#[tokio::test]
async fn strangers_see_counters_and_readiness_and_nothing_else() {
    let sidecar = Arc::new(Fake::default());
    let (admin, _log) = admin(&sidecar);
    for (peer, method, path, expected) in [
        ("10.0.0.9:999", "POST", "/drain", 403),
        ("10.0.0.9:999", "PUT", "/log", 403),
        ("10.0.0.9:999", "GET", "/metrics", 200),
        ("[fd00::9]:999", "GET", "/live", 200),
        ("10.0.0.9:999", "GET", "/ready", 503),
        ("10.0.0.9:999", "GET", "/config", 403),
        ("10.0.0.9:999", "GET", "/edges", 403),
        ("10.0.0.9:999", "GET", "/log", 403),
        ("10.0.0.9:999", "GET", "/nothing", 403),
        ("[::1]:999", "GET", "/config", 200),
        ("[::1]:999", "POST", "/drain", 202),
        ("[::ffff:127.0.0.1]:999", "POST", "/drain", 202),
        ("[::ffff:10.0.0.9]:999", "POST", "/drain", 403),
    ] {
        let peer = Peer(peer.parse().unwrap());
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .extension(peer)
            .body(Body::from("info"))
            .unwrap();
        let answer = admin.router().call(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{peer:?} {method} {path}");
    }
    assert_eq!(sidecar.drains.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted_and_the_rest_served() {
    let (admin, _log) = admin(&Arc::default());
    let (address, _stop) = serving(&admin).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut beyond = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let closed =
        tokio::time::timeout(Duration::from_secs(30), beyond.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty(), "{closed:?}");
    assert_eq!(admin.0.metrics.plain().limit("admin_connections").read(), 1);
    held.truncate(1);
    let (status, _) = loop {
        // A place is free once the server has seen the closed ones.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
            break (answer.split(' ').nth(1).unwrap().to_owned(), ());
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(status, "200");
}
