//! What callers do wrong, and what they are refused.

use rustls_pki_types::ServerName;
use weft_tests::mesh;
use weft_tests::mesh::{App, Pod, Wire, in_time};
use weft_tests::raw::http2::{GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, fields, frame, get};

use super::seen;

/// Source: RFC 9113 §7.
const CANCEL: u32 = 8;
/// Paths are judged: `/open` and what is below it may be asked for.
const PATHS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: open, namespace: test}
spec:
  targetRefs: [{kind: Service, name: web}]
  action: Allow
  rules: [{to: [{paths: [/open*, '*']}]}]
";

pub(crate) async fn heads_that_break_the_rules() -> Vec<&'static str> {
    let app = App::saying("welcome").await;
    let mesh = mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address).flag("--header-timeout", "200ms"))
        .pod(Pod::named("client-0").calls("web:8080"))
        .manifest("paths.yaml", &PATHS.replace(", '*'", ""))
        .start()
        .await;
    let address = std::net::SocketAddr::new(mesh.ip("web-0"), 8080);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let mut produced = Vec::new();
    for (reason, request, status) in [
        ("malformed_request", "GET / HTTP/1.1\r\nhost: a\r\nbad name: x\r\n\r\n".to_owned(), "400"),
        ("malformed_host", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), "400"),
        (
            "malformed_framing",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: gzip, chunked\r\n\r\n"
                .to_owned(),
            "400",
        ),
        ("malformed_path", "GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
        ("headers_too_large", format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431"),
        ("header_timeout", "GET / HTTP/1.1\r\nhost: a\r\n".to_owned(), ""),
        (
            "ambiguous_path",
            "GET /open%2Fdoor HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "denied_by_policy",
            "GET /closed HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "403",
        ),
    ] {
        let mut wire = Wire::open(address).await;
        wire.send(request).await;
        let said = wire.rest().await;
        let begins = if status.is_empty() {
            said.is_empty() || said.starts_with("HTTP/1.1 408")
        } else {
            said.starts_with(&format!("HTTP/1.1 {status} "))
        };
        assert!(begins, "{reason}: {said}");
        produced.push(seen(mesh.sidecar("web-0"), reason).await);
    }
    produced
}

pub(crate) async fn connections_that_break_the_rules() -> Vec<&'static str> {
    let (reach, mut reached) = tokio::sync::mpsc::unbounded_channel();
    let app = App::raw(move |mut wire| {
        let reach = reach.clone();
        async move {
            while wire.try_until("\n").await.is_some() {
                // Nobody listens any more once the request is on its way.
                let _ = reach.send(());
            }
        }
    })
    .await;
    let mesh = mesh!()
        .service("web", 8080, Some("http"))
        .service("silent", 9090, Some("tcp"))
        .pod(Pod::named("web-0").serves(8080, app.address).serves(9090, app.address))
        .pod(Pod::named("silent-0").serves(9090, app.address))
        .pod(
            Pod::named("client-0")
                .calls("web:8080")
                .calls("silent:9090")
                .flag("--tcp-idle-timeout", "200ms")
                .flag("--h2-max-control-frames", "10"),
        )
        .start()
        .await;
    let client = mesh.sidecar("client-0");
    let door = mesh.door("client-0", "web:8080");
    let mut produced = Vec::new();

    let mut caller = Wire::open(door).await;
    caller.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1, "/", &[])].concat()).await;
    reached.recv().await.unwrap();
    caller.send(frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())).await;
    produced.push(seen(client, "cancelled").await);

    let broken = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 4, 2, b"\x82")].concat();
    produced.push(ends_with_goaway(client, door, &broken, "downstream_protocol").await);
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(500);
    let flood = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &pings].concat();
    produced.push(ends_with_goaway(client, door, &flood, "over_limit").await);

    let tunnel = fields(&[(":method", "CONNECT"), (":authority", "db:5432")]);
    let connect = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 4, 1, &tunnel)].concat();
    let mut wire = Wire::open(door).await;
    wire.send(connect).await;
    produced.push(seen(client, "upgrade_refused").await);

    let mut idle = Wire::open(mesh.door("client-0", "silent:9090")).await;
    idle.send("hello\n").await;
    idle.rest().await;
    produced.push(seen(client, "idle_timeout").await);

    without_certificate(std::net::SocketAddr::new(mesh.ip("web-0"), 8080)).await;
    produced.push(seen(mesh.sidecar("web-0"), "downstream_tls").await);
    produced
}

async fn ends_with_goaway(
    client: &mesh::Sidecar,
    door: std::net::SocketAddr,
    bytes: &[u8],
    reason: &'static str,
) -> &'static str {
    let mut wire = Wire::open(door).await;
    let _ = wire.try_send(bytes).await;
    let said = wire.rest().await;
    assert!(
        said.as_bytes().get(3) == Some(&SETTINGS) || said.contains(char::from(GOAWAY)),
        "{reason}: {said:?}"
    );
    seen(client, reason).await
}

/// Greets a sidecar in the mesh's own TLS, and has nothing to prove itself with.
async fn without_certificate(address: std::net::SocketAddr) {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![weft_proxy_core::alpn::HTTP1.to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = ServerName::try_from("web.test").unwrap();
    let shaken = in_time("a handshake", connector.connect(name, stream)).await;
    assert!(shaken.is_err(), "no certificate is trusted by nobody");
}
