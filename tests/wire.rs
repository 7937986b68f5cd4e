//! The wire, seen from outside: two pods in network namespaces of their own, captured by
//! `weft-proxy init`, and a third namespace between them that forwards their packets and reads them.
//!
//! ```text
//!   client 10.88.1.2 ═══ 10.88.1.1 between 10.88.2.1 ═══ 10.88.2.2 server
//!          sidecar          control plane, tap,             sidecar
//!          application      collector of traces             application
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "wire/collector.rs"]
mod collector;
#[path = "wire/tap.rs"]
mod tap;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;

use collector::Collector;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;
use tap::Tap;
use weft_tests::in_netns;
use weft_tests::mesh::{DEADLINE, until};
use weft_tests::netns::crew::{Crew, capture};
use weft_tests::netns::{Namespace, has_other_users, join};

const MANIFESTS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {accessLog: All, tracing: {samplingPercent: 100}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: test}
spec: {clusterIP: 10.96.0.10, selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server-0, namespace: test, labels: {app: server}, annotations: {weft.dev/sidecar: injected}}
spec: {serviceAccountName: server, containers: [{name: app, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.88.2.2, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client-0, namespace: test, labels: {app: client}, annotations: {weft.dev/sidecar: injected}}
spec: {serviceAccountName: client, containers: [{name: app}]}
status: {podIP: 10.88.1.2, phase: Running, conditions: [{type: Ready, status: 'True'}]}
";
const TOKENS: &str = "\
- {token: join-token-of-client-0, workload: test/client-0}
- {token: join-token-of-server-0, workload: test/server-0}
";
/// What must not be seen on the wire.
const SECRET: &str = "nobody-between-may-read-this";

/// The namespaces, and what runs in them.
struct Place {
    // Its processes end before their namespaces do.
    crew: Crew,
    client: Namespace,
    between: Namespace,
    server: Namespace,
}

impl Place {
    fn new() -> Self {
        let (client, between, server) =
            (Namespace::new().unwrap(), Namespace::new().unwrap(), Namespace::new().unwrap());
        join(&client.end("eth0", &["10.88.1.2/24"]), &between.end("a", &["10.88.1.1/24"])).unwrap();
        join(&server.end("eth0", &["10.88.2.2/24"]), &between.end("b", &["10.88.2.1/24"])).unwrap();
        client.route("0.0.0.0/0", "10.88.1.1").unwrap();
        server.route("0.0.0.0/0", "10.88.2.1").unwrap();
        between.set_parameter("net.ipv4.ip_forward", "1").unwrap();
        let crew = Crew::new(env!("CARGO_BIN_EXE_weft-mesh-part"), MANIFESTS, TOKENS);
        Self { crew, client, between, server }
    }

    async fn start_control_plane(&mut self) {
        self.crew.start_control_plane(&self.between, "0.0.0.0:15010").await;
    }

    async fn start_sidecar(&mut self, pod: &str, gateway: &str) {
        let namespace = if pod == "client-0" { &self.client } else { &self.server };
        let flags = [
            "proxy".to_owned(),
            format!("--workload=test/{pod}"),
            format!("--control-plane={gateway}:15010"),
            format!("--trust-anchors={}", self.crew.path("anchors.pem")),
            format!("--join-token=join-token-of-{pod}"),
            "--transparent-outbound=0.0.0.0:15001".to_owned(),
            "--transparent-inbound=0.0.0.0:15006".to_owned(),
            "--admin=127.0.0.1:15020".to_owned(),
            format!("--access-log-file={}", self.crew.path(&format!("{pod}.access.log"))),
            format!("--otlp=http://{gateway}:4317"),
            "--workers=1".to_owned(),
        ];
        self.crew.start(namespace, pod, &flags).await;
        capture(namespace, "10.96.0.0/16");
    }

    /// What a sidecar logged about its first request, once it has.
    async fn logged(&self, pod: &str) -> Value {
        self.crew.logged(pod, "a request is logged", |_| true).await
    }
}

/// An application that tells what it reads.
fn application(namespace: &Namespace) -> mpsc::Receiver<String> {
    let listener = namespace.run(|| TcpListener::bind("10.88.2.2:8080").unwrap());
    let (told, hear) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, told) = (stream.unwrap(), told.clone());
            std::thread::spawn(move || {
                let (mut read, mut buffer) = (String::new(), [0; 4096]);
                while !read.contains("\r\n\r\n") {
                    let count = stream.read(&mut buffer).unwrap();
                    if count == 0 {
                        return;
                    }
                    read.push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
                told.send(read).unwrap();
                let body = format!("the answer: {SECRET}\n");
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            });
        }
    });
    hear
}

/// A plain request, as any application makes it.
fn ask(namespace: &Namespace, address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    namespace.run(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "GET /{SECRET} HTTP/1.1\r\nHost: server\r\nX-Secret: {SECRET}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

/// The same by curl; `None`: there is none.
fn curl(namespace: &Namespace, address: &str) -> Option<String> {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--header",
        &format!("X-Secret: {SECRET}"),
    ]);
    command.arg(format!("http://{address}/{SECRET}"));
    let output = namespace.run(|| command.output()).ok()?;
    assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The first TLS record of a stream is a handshake message of this kind, and in it is the extension
/// `supported_versions` as asked. Source: RFC 8446 §4.1.2, §4.1.3, §4.2.1, §5.1.
fn begins_with_hello(stream: &[u8], kind: u8, versions: &[u8]) -> bool {
    stream.first() == Some(&22) && stream.get(5) == Some(&kind) && contains(stream, versions)
}

fn run(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

#[test]
fn a_plain_request_is_tls_1_3_on_the_wire_plain_at_the_server_and_one_trace() {
    in_netns!(|| run(async {
        let mut place = Place::new();
        let collecting = place.between.run(|| TcpListener::bind("0.0.0.0:4317").unwrap());
        let collector = Collector::on(collecting);
        let hear = application(&place.server);
        place.start_control_plane().await;
        place.start_sidecar("client-0", "10.88.1.1").await;
        place.start_sidecar("server-0", "10.88.2.1").await;
        let tap = Tap::on(&place.between);

        let answer = ask(&place.client, "10.96.0.10:80");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(SECRET), "{answer}");
        let request = hear.recv_timeout(DEADLINE).unwrap();
        assert!(request.starts_with(&format!("GET /{SECRET} HTTP/1.1\r\nHost: server\r\n")), "{request}");
        match curl(&place.client, "10.96.0.10:80") {
            Some(answer) => assert_eq!(answer, format!("the answer: {SECRET}\n")),
            None => eprintln!("there is no curl; the test's own client alone has asked"),
        }

        wire_shows_tls_1_3_and_no_secret(&tap);
        for pod in ["client-0", "server-0"] {
            let line = place.logged(pod).await;
            assert_eq!(line["security"], "mutual_tls", "{pod}: {line}");
        }
        let line = place.logged("server-0").await;
        assert_eq!(line["src.identity"], "spiffe://cluster.local/ns/test/sa/client", "{line}");
        one_trace_holds_both_sides(&collector).await;
    }));
}

fn wire_shows_tls_1_3_and_no_secret(tap: &Tap) {
    let (up, down) = tap.streams(8080);
    assert!(!up.is_empty() && !down.is_empty(), "nothing was seen on the wire");
    for stream in up.iter().chain(&down) {
        assert!(!contains(stream, SECRET.as_bytes()), "the secret is on the wire");
        assert!(!contains(stream, b"HTTP/1.1"), "plain HTTP is on the wire");
    }
    // One version is offered and taken: 1.3; the group of the key is X25519MLKEM768 (0x11ec).
    for stream in &up {
        assert!(begins_with_hello(stream, 1, &[0, 43, 0, 3, 2, 3, 4]), "no ClientHello of TLS 1.3 only");
    }
    for stream in &down {
        assert!(begins_with_hello(stream, 2, &[0, 43, 0, 2, 3, 4]), "no ServerHello of TLS 1.3");
        assert!(contains(stream, &[0x11, 0xec]), "no key of X25519MLKEM768");
    }
    let (up, down) = tap.streams(80);
    assert!(up.is_empty() && down.is_empty(), "a packet to the cluster address left the pod");
}

async fn one_trace_holds_both_sides(collector: &Collector) {
    until("spans of both sidecars that belong together", async || {
        let spans = collector.spans();
        let server = spans.iter().find(|span| span.kind == SpanKind::Server as i32)?;
        // An attempt's span is the parent of what the other side saw of it.
        let parent = spans.iter().find(|span| span.span_id == server.parent_span_id)?;
        let same = parent.trace_id == server.trace_id && parent.kind == SpanKind::Client as i32;
        assert!(same, "{parent:?}\n{server:?}");
        Some(())
    })
    .await;
}

#[test]
fn a_call_by_the_pods_own_address_is_mutual_tls_too() {
    in_netns!(|| run(async {
        let mut place = Place::new();
        let _collecting = place.between.run(|| TcpListener::bind("0.0.0.0:4317").unwrap());
        let hear = application(&place.server);
        place.start_control_plane().await;
        place.start_sidecar("client-0", "10.88.1.1").await;
        place.start_sidecar("server-0", "10.88.2.1").await;
        // Where sidecars are told by where they go, pods' addresses are theirs alone: the application's
        // own calls to them are not captured, and there is nothing to see.
        if !has_other_users() {
            return;
        }
        let tap = Tap::on(&place.between);
        let answer = ask(&place.client, "10.88.2.2:8080");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(SECRET), "{answer}");
        hear.recv_timeout(DEADLINE).unwrap();
        wire_shows_tls_1_3_and_no_secret(&tap);
        assert_eq!(
            place.logged("server-0").await["src.identity"],
            "spiffe://cluster.local/ns/test/sa/client"
        );
    }));
}

#[test]
fn without_sidecars_the_tap_reads_the_secret() {
    in_netns!(|| run(async {
        let place = Place::new();
        let hear = application(&place.server);
        let tap = Tap::on(&place.between);
        let answer = ask(&place.client, "10.88.2.2:8080");
        assert!(answer.contains(SECRET), "{answer}");
        hear.recv_timeout(DEADLINE).unwrap();
        until("the tap has read it", async || {
            let (up, down) = tap.streams(8080);
            let reads =
                |streams: Vec<Vec<u8>>| streams.iter().any(|stream| contains(stream, SECRET.as_bytes()));
            (reads(up) && reads(down)).then_some(())
        })
        .await;
    }));
}
