//! What is not HTTP, through two sidecars: opaque bytes, servers that speak first, and the application's
//! own TLS.
//!
//! Where a stall would show only as seconds, the sidecars' detection deadline is an hour: a test that
//! depended on it could not pass.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::mesh;
use weft_tests::mesh::{App, Mesh, Pod, Wire, in_time};

/// A client and a server on a port whose protocol is declared or not, with sidecars that would wait an
/// hour before they conclude anything from silence.
async fn pair(app: &App, protocol: Option<&str>) -> Mesh {
    let patient = |pod: Pod| {
        pod.flag("--detect-timeout", "1h").flag("--handshake-timeout", "1h").flag("--http-idle-timeout", "1h")
    };
    mesh!()
        .service("db", 3306, protocol)
        .pod(patient(Pod::named("db-0").serves(3306, app.address)))
        .pod(patient(Pod::named("client-0").calls("db:3306")))
        .start()
        .await
}

async fn client(mesh: &Mesh) -> Wire {
    Wire::open(mesh.door("client-0", "db:3306")).await
}

/// The line that the server's sidecar wrote about the connection.
async fn connection(mesh: &Mesh) -> serde_json::Value {
    mesh.sidecar("db-0").logged("the connection", |line| line["kind"] == "connection").await
}

async fn echo() -> App {
    App::raw(async |mut wire: Wire| {
        while let Some(line) = wire.try_until("\n").await {
            wire.send(line).await;
        }
        wire.send("end").await;
    })
    .await
}

#[tokio::test]
async fn opaque_bytes_are_echoed_over_mutual_tls_and_a_half_close_leaves_the_other_half_open() {
    let app = echo().await;
    let mesh = pair(&app, Some("tcp")).await;
    let mut wire = client(&mesh).await;
    for text in ["\u{0}\u{1}\u{7f}\n", "GET / HTTP/1.1\n", "last\n"] {
        wire.send(text).await;
        assert_eq!(wire.until("\n").await, text);
    }
    wire.finish().await;
    assert_eq!(wire.rest().await, "end");
    let line = connection(&mesh).await;
    assert_eq!(line["security"], "mutual_tls", "{line}");
    assert_eq!(line["src.identity"], "spiffe://cluster.local/ns/test/sa/client", "{line}");
    let sent = "\u{0}\u{1}\u{7f}\nGET / HTTP/1.1\nlast\n".len();
    assert_eq!((&line["bytes.up"], &line["bytes.down"]), (&(sent.into()), &((sent + 3).into())), "{line}");
}

#[tokio::test]
async fn bytes_that_are_no_protocol_at_all_pass_an_undeclared_port() {
    let app = echo().await;
    let mesh = pair(&app, None).await;
    let mut wire = client(&mesh).await;
    wire.send("\u{0}\u{2}binary\n").await;
    assert_eq!(wire.until("\n").await, "\u{0}\u{2}binary\n");
    wire.finish().await;
    assert_eq!(wire.rest().await, "end");
}

#[tokio::test]
async fn a_mysql_greeting_arrives_on_an_undeclared_port_although_the_client_is_silent() {
    let app = App::raw(async |mut wire: Wire| {
        wire.send("\u{a}8.0.36\u{0}greeting\n").await;
        let login = wire.until("\n").await;
        wire.send(format!("OK {login}")).await;
    })
    .await;
    let mesh = pair(&app, None).await;
    let mut wire = client(&mesh).await;
    assert_eq!(wire.until("greeting\n").await, "\u{a}8.0.36\u{0}greeting\n");
    wire.send("root\n").await;
    assert_eq!(wire.rest().await, "OK root\n");
    drop(wire);
    assert_eq!(connection(&mesh).await["security"], "mutual_tls");
}

#[tokio::test]
async fn an_smtp_dialogue_on_an_undeclared_port_is_begun_by_the_server() {
    let app = App::raw(async |mut wire: Wire| {
        wire.send("220 mail.example ESMTP\r\n").await;
        while let Some(line) = wire.try_until("\r\n").await {
            let answer = match line.trim() {
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            wire.send(answer).await;
            if line.trim() == "QUIT" {
                return;
            }
        }
    })
    .await;
    let mesh = pair(&app, None).await;
    let mut wire = client(&mesh).await;
    assert_eq!(wire.until("\r\n").await, "220 mail.example ESMTP\r\n");
    for (said, answer) in
        [("EHLO me\r\n", "250 ok\r\n"), ("NOOP\r\n", "250 ok\r\n"), ("QUIT\r\n", "221 bye\r\n")]
    {
        wire.send(said).await;
        assert_eq!(wire.until("\r\n").await, answer);
    }
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_postgresql_client_asks_for_tls_first_and_goes_on_when_it_is_declined() {
    /// SSLRequest: length 8, code 80877103. Source: PostgreSQL, "Message Formats".
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let app = App::raw(async |mut wire: Wire| {
        assert_eq!(wire.exactly(8).await, SSL_REQUEST);
        wire.send("N").await;
        let startup = wire.until("app\u{0}\u{0}").await;
        assert!(startup.contains("user\u{0}app\u{0}"), "{startup:?}");
        wire.send("R\u{0}\u{0}\u{0}\u{8}\u{0}\u{0}\u{0}\u{0}").await;
    })
    .await;
    let mesh = pair(&app, None).await;
    let mut wire = client(&mesh).await;
    wire.send(SSL_REQUEST).await;
    assert_eq!(wire.exactly(1).await, b"N");
    wire.send("\u{0}\u{0}\u{0}\u{12}\u{0}\u{3}\u{0}\u{0}user\u{0}app\u{0}\u{0}").await;
    assert_eq!(wire.rest().await, "R\u{0}\u{0}\u{0}\u{8}\u{0}\u{0}\u{0}\u{0}");
}

#[tokio::test]
async fn an_http_client_that_hesitates_is_still_served_as_http() {
    let app = App::saying("late").await;
    let mesh = pair(&app, None).await;
    let mut wire = client(&mesh).await;
    // The sidecar has asked the upstream by now: it says so before the client speaks.
    weft_tests::mesh::until("the upstream is asked", async || {
        (mesh.sidecar("db-0").metric("weft_tls_handshakes_total", &[]).await > 0.0).then_some(())
    })
    .await;
    wire.send("GET / HTTP/1.1\r\nhost: db\r\nconnection: close\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("late"), "{answer}");
    let line = mesh.sidecar("client-0").logged("the request", |line| line["kind"] == "request").await;
    assert_eq!(line["protocol"], "http", "{line}");
}

#[tokio::test]
async fn the_applications_own_tls_passes_untouched_inside_the_meshs() {
    let issued = rcgen::generate_simple_self_signed(vec!["db.example".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let app = App::raw(move |wire| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(wire.into_stream()).await.unwrap();
            let mut text = [0; 4];
            stream.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"ping");
            stream.write_all(b"pong").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client_config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for protocol in [None, Some("https")] {
        let mesh = pair(&app, protocol).await;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config.clone()));
        let name = ServerName::try_from("db.example").unwrap();
        let stream = client(&mesh).await.into_stream();
        let mut stream = in_time("the handshake", connector.connect(name, stream)).await.unwrap();
        let seen = stream.get_ref().1.peer_certificates().unwrap().first().unwrap().clone();
        assert_eq!(seen, certificate, "the application's own certificate, end to end");
        stream.write_all(b"ping").await.unwrap();
        let mut answer = Vec::new();
        in_time("an answer", stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"pong");
        drop(stream);
        let line = connection(&mesh).await;
        assert_eq!(line["security"], "mutual_tls", "{line}");
    }
}

/// Nobody listens at tcpmux's port, and no test could.
const NOBODY: &str = "127.0.0.1:1";

#[tokio::test]
async fn a_server_that_is_not_there_refuses_and_the_client_learns_it() {
    let mesh = mesh!()
        .service("db", 3306, Some("tcp"))
        .pod(Pod::named("db-0").serves(3306, NOBODY.parse().unwrap()))
        .pod(Pod::named("client-0").calls("db:3306"))
        .start()
        .await;
    assert_eq!(Wire::ask(mesh.door("client-0", "db:3306"), "anybody?").await, "");
    let line = connection(&mesh).await;
    assert_eq!(line["reason"], "connect_refused", "{line}");
}

/// What a network does to a long first message, and more of it: it comes in many packets, one after the other.
async fn in_pieces(mut from: Wire, to: std::net::SocketAddr) {
    use tokio::io::AsyncWriteExt as _;
    let first = from.exactly(700).await;
    let held = from.take();
    let mut inward = from.into_stream();
    let mut onward = tokio::net::TcpStream::connect(to).await.unwrap();
    onward.set_nodelay(true).unwrap();
    for piece in first.chunks(7).chain(held.chunks(7)) {
        onward.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let _ = tokio::io::copy_bidirectional(&mut inward, &mut onward).await;
}

#[tokio::test]
async fn a_handshake_whose_first_message_comes_in_many_packets_is_still_the_meshs() {
    let app = App::raw(async |mut wire: Wire| {
        while wire.try_until("\n").await.is_some() {
            wire.send("heard\n").await;
        }
    })
    .await;
    let plan = mesh!().service("web", 8080, Some("tcp"));
    let (near, far) = (plan.coming(0), std::net::SocketAddr::new(plan.coming(40), 8080));
    let _network = App::raw_at(std::net::SocketAddr::new(near, 8080), move |wire| in_pieces(wire, far)).await;
    let mesh = plan
        .pod(Pod::named("web-0").flag("--inbound", &format!("{far}={}#8080", app.address)))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await;
    let mut wire = Wire::open(mesh.door("client-0", "web:8080")).await;
    wire.send("hello\n").await;
    assert_eq!(wire.try_until("\n").await.as_deref(), Some("heard\n"));
    drop(wire);
    let line = mesh.sidecar("web-0").logged("the connection", |line| line["kind"] == "connection").await;
    assert_eq!(line["security"], "mutual_tls", "{line}");
}
