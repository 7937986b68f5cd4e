//! A request's whole walk as applications see it: plaintext client, two sidecars with mutual TLS between
//! them, plaintext server, and what HTTP promises intact on the way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "walk/grpc.rs"]
mod grpc;

use std::process::Command;

use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Pod, Wire};

/// A client pod and an application's pod, each with its sidecar.
async fn pair(app: &App, protocol: Option<&str>) -> Mesh {
    mesh!()
        .service("web", 8080, protocol)
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await
}

async fn client(mesh: &Mesh) -> Wire {
    Wire::open(mesh.door("client-0", "web:8080")).await
}

/// An application that tells the test what it read up to `mark`, and answers with `answer`.
async fn teller(
    mark: &'static str,
    answer: &'static str,
) -> (App, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (told, hear) = tokio::sync::mpsc::unbounded_channel();
    let app = App::raw(move |mut wire| {
        let told = told.clone();
        async move {
            while let Some(request) = wire.try_until(mark).await {
                told.send(request).unwrap();
                wire.send(answer).await;
            }
        }
    });
    (app.await, hear)
}

#[tokio::test]
async fn a_request_crosses_two_sidecars_over_mutual_tls_with_its_header_case_kept() {
    let answer =
        "HTTP/1.1 200 OK\r\nX-AnSwEr: Yes\r\ncontent-LENGTH: 5\r\nX-Twice: a\r\nX-Twice: b\r\n\r\nhello";
    let (app, mut hear) = teller("\r\n\r\n", answer).await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("GET /a%20b?q=1 HTTP/1.1\r\nHoSt: web\r\nX-MiXeD: Case\r\nx-lower: 1\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n")
        .await;
    let head = wire.head().await;
    for line in [
        "HTTP/1.1 200 OK\r\n",
        "\r\nX-AnSwEr: Yes\r\n",
        "\r\ncontent-LENGTH: 5\r\n",
        "\r\nX-Twice: a\r\n",
        "\r\nX-Twice: b\r\n",
    ] {
        assert!(head.contains(line), "{line:?} in {head:?}");
    }
    assert_eq!(wire.exactly(5).await, b"hello");
    let request = hear.recv().await.unwrap();
    assert!(request.starts_with("GET /a%20b?q=1 HTTP/1.1\r\n"), "{request}");
    for line in [
        "\r\nHoSt: web\r\n",
        "\r\nX-MiXeD: Case\r\n",
        "\r\nx-lower: 1\r\n",
        "\r\nX-Twice: 1\r\n",
        "\r\nX-Twice: 2\r\n",
    ] {
        assert!(request.contains(line), "{line:?} in {request:?}");
    }
    let line = mesh.sidecar("web-0").logged("the request", |line| line["direction"] == "inbound").await;
    assert_eq!(line["security"], "mutual_tls");
    assert_eq!(line["src.identity"], "spiffe://cluster.local/ns/test/sa/client");
}

#[tokio::test]
async fn a_chunked_body_arrives_piece_by_piece_while_it_is_still_being_sent() {
    let app = App::raw(async |mut wire: Wire| {
        let head = wire.head().await;
        assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        // Each piece is answered before the next is sent: nothing on the way may hold a body back.
        for _ in 0..3 {
            let size = wire.until("\r\n").await;
            let piece = wire.until("\r\n").await;
            wire.send(format!("{size}{piece}")).await;
        }
        wire.until("0\r\n\r\n").await;
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("POST /up HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert!(wire.head().await.to_lowercase().contains("transfer-encoding: chunked"));
    for piece in ["one", "twotwo", "three"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        wire.send(&chunk).await;
        assert_eq!(wire.until(&format!("{piece}\r\n")).await.to_lowercase(), chunk);
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_body_with_a_length_keeps_its_length_both_ways() {
    let app = App::raw(async |mut wire: Wire| {
        let head = wire.head().await.to_lowercase();
        assert!(head.contains("content-length: 100000\r\n") && !head.contains("transfer-encoding"), "{head}");
        let body = wire.exactly(100_000).await;
        wire.send("HTTP/1.1 201 Created\r\nContent-Length: 100000\r\n\r\n").await;
        wire.send(body).await;
        wire.head().await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    wire.send("PUT /up HTTP/1.1\r\nhost: web\r\ncontent-length: 100000\r\n\r\n").await;
    wire.send(&body).await;
    let head = wire.head().await;
    assert!(
        head.starts_with("HTTP/1.1 201 Created\r\n") && head.contains("Content-Length: 100000\r\n"),
        "{head}"
    );
    assert!(wire.exactly(100_000).await == body, "the body came back changed");
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_body_that_ends_with_the_connection() {
    let (app, mut hear) =
        teller("\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n")
            .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("GET /old HTTP/1.0\r\nHost: web\r\n\r\n").await;
    let answer = wire.rest().await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
    assert_eq!(body, "old");
    assert!(hear.recv().await.unwrap().starts_with("GET /old HTTP/1."));
}

#[tokio::test]
async fn trailers_cross_in_both_directions() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nTrailer: X-Down\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n";
    let app = App::raw(async |mut wire: Wire| {
        wire.until("2\r\nhi\r\n0\r\n").await;
        assert_eq!(wire.until("\r\n\r\n").await.to_lowercase(), "x-up: 1\r\n\r\n");
        wire.send(ANSWER).await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send(
        "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\ntrailer: X-Up\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n",
    )
    .await;
    wire.head().await;
    let body = wire.until("0\r\n").await;
    assert_eq!(body, "2\r\nok\r\n0\r\n");
    assert_eq!(wire.until("\r\n\r\n").await.to_lowercase(), "x-down: 2\r\n\r\n");
}

#[tokio::test]
async fn the_servers_own_100_continue_lets_the_body_flow() {
    let app = App::raw(async |mut wire: Wire| {
        let head = wire.head().await;
        assert!(head.to_lowercase().contains("expect: 100-continue"), "{head}");
        wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(wire.exactly(4).await, b"body");
        wire.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        wire.rest().await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("body").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn a_server_that_declines_an_expectation_is_heard_before_any_body() {
    let app = App::raw(async |mut wire: Wire| {
        wire.head().await;
        wire.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
}

#[tokio::test]
async fn early_hints_come_through_before_the_answer() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    let (go, wait) = tokio::sync::watch::channel(false);
    let app = App::raw(move |mut wire| {
        let mut wait = wait.clone();
        async move {
            wire.head().await;
            wire.send(early).await;
            wait.wait_for(|go| *go).await.unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            wire.rest().await;
        }
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let hints = wire.head().await;
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    assert!(hints.to_lowercase().contains("link: </style.css>; rel=preload"), "{hints}");
    go.send(true).unwrap();
    assert!(wire.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_websocket_speaks_both_ways_after_the_upgrade_and_closes_from_either_side() {
    let app = App::raw(async |mut wire: Wire| {
        let head = wire.head().await.to_lowercase();
        for field in
            ["upgrade: websocket", "connection: upgrade", "sec-websocket-key: dghlihnhbxbszsbub25jzq=="]
        {
            assert!(head.contains(field), "{field} in {head}");
        }
        // The server speaks in the same packet as it agrees.
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}first",
        )
        .await;
        while let Some(text) = wire.try_until("\n").await {
            wire.send(format!("echo {text}")).await;
        }
        wire.send("bye").await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send(
        "GET /chat HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert_eq!(wire.until("first").await, "\u{1}first");
    for text in ["a\n", "b\u{0}b\n"] {
        wire.send(text).await;
        assert_eq!(wire.until("\n").await, format!("echo {text}"));
    }
    wire.finish().await;
    assert_eq!(wire.rest().await, "bye");
}

#[tokio::test]
async fn a_connect_tunnel_carries_bytes() {
    let app = App::raw(async |mut wire: Wire| {
        let head = wire.head().await;
        assert!(head.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"), "{head}");
        wire.send("HTTP/1.1 200 Connection established\r\n\r\n").await;
        let text = wire.until("\n").await;
        wire.send(format!("got {text}")).await;
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let mut wire = client(&mesh).await;
    wire.send("CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    wire.send("\u{16}\u{3}\u{1}\n").await;
    assert_eq!(wire.rest().await, "got \u{16}\u{3}\u{1}\n");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let app = App::saying("again").await;
    // Undeclared: what is HTTP is found by its first bytes.
    let mesh = pair(&app, None).await;
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    for _ in 0..50 {
        let answer = http.get("/").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "again"));
    }
    let line = mesh.sidecar("client-0").logged("a request", |line| line["kind"] == "request").await;
    assert_eq!(line["http.version"], "1.1");
}

#[tokio::test]
async fn curl_gets_and_puts_through_two_sidecars() {
    if Command::new("curl").arg("--version").output().is_err() {
        return weft_tests::netns::skip("curl_gets_and_puts_through_two_sidecars", "there is no curl");
    }
    let app = App::http(async |request: http::Request<hyper::body::Incoming>| {
        use http_body_util::BodyExt as _;
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        mesh::reply(200, format!("{method} {}", body.len()))
    })
    .await;
    let mesh = pair(&app, Some("http")).await;
    let url = format!("http://{}/x", mesh.door("client-0", "web:8080"));
    let file = mesh.folder().join("upload");
    std::fs::write(&file, vec![7; 3_000_000]).unwrap();
    let upload = file.display().to_string();
    for (flags, expected) in [
        (vec!["--http1.1"], "GET 0"),
        (vec!["--http1.1", "--upload-file", &upload], "PUT 3000000"),
        (vec!["--http1.0"], "GET 0"),
        (vec!["--http2-prior-knowledge"], "GET 0"),
        (vec!["--http2-prior-knowledge", "--upload-file", &upload], "PUT 3000000"),
    ] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]).args(&flags).arg(&url);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, expected, "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
