//! Who may speak with whom: authorization, identities and certificates, between real sidecars.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Endpoint;
use weft_tests::echo::Note;
use weft_tests::echo::echo_client::EchoClient;
use weft_tests::echo::echo_server::{Echo, EchoServer};
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Plan, Pod, Sidecar, Wire, in_time, reply, until};

/// Denies the pods of service account `client` whatever they ask of `web`.
const DENY: &str = "\
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-clients, namespace: test}
spec:
  targetRefs: [{kind: Service, name: web}]
  action: Deny
  rules: [{name: locked-out, from: [{serviceAccounts: [test/client]}]}]
";

/// Only mutual TLS reaches `web`.
const STRICT: &str = "\
apiVersion: weft.dev/v1alpha1
kind: TlsPolicy
metadata: {name: strict, namespace: test}
spec:
  targetRefs: [{kind: Workload, selector: {app: web}}]
  mode: Strict
";

fn pair(app: &App, protocol: &str) -> Plan {
    mesh!()
        .service("web", 8080, Some(protocol))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
}

/// An application that counts its connections.
async fn counting() -> (App, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let app = App::raw(move |mut wire| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while wire.try_until("\n").await.is_some() {
                wire.send("reached\n").await;
            }
        }
    });
    (app.await, count)
}

fn has_reason(line: &Value) -> bool {
    line["reason"].is_string()
}

#[tokio::test]
async fn a_denied_peer_gets_403_naming_the_rule_in_the_log_and_nobody_else_is_hurt() {
    let app = App::saying("welcome").await;
    let mesh = pair(&app, "http")
        .pod(Pod::named("friend-0").calls("web:8080"))
        .manifest("deny.yaml", DENY)
        .start()
        .await;
    let denied = Http::once(mesh.door("client-0", "web:8080"), "/secret").await.unwrap();
    assert_eq!(denied.status, 403);
    let line = mesh.sidecar("web-0").logged("the refusal", has_reason).await;
    assert_eq!(line["reason"], "denied_by_policy", "{line}");
    assert_eq!(line["policy"], "test/no-clients#locked-out", "{line}");
    assert_eq!(line["src.identity"], "spiffe://cluster.local/ns/test/sa/client", "{line}");
    let welcome = Http::once(mesh.door("friend-0", "web:8080"), "/secret").await.unwrap();
    assert_eq!((welcome.status, welcome.body.as_str()), (200, "welcome"));
    mesh.delete("deny.yaml");
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    until("the policy is gone", async || (http.get("/").await.unwrap().status == 200).then_some(())).await;
}

#[tokio::test]
async fn who_is_on_no_list_is_denied_in_the_name_of_the_lists() {
    let list = |name: &str, account: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: test}}\n\
             spec: {{targetRefs: [{{kind: Service, name: web}}], action: Allow, rules: [{{from: [{{serviceAccounts: [test/{account}]}}]}}]}}\n"
        )
    };
    let lists = [list("friends", "friend"), list("family", "sister")].concat();
    for (protocol, kind) in [("http", "request"), ("tcp", "connection")] {
        let app = App::saying("welcome").await;
        let plan = pair(&app, protocol).pod(Pod::named("friend-0").calls("web:8080"));
        let mesh = plan.manifest("lists.yaml", &lists).start().await;
        let welcome = Http::once(mesh.door("friend-0", "web:8080"), "/").await.unwrap();
        assert_eq!((welcome.status, welcome.body.as_str()), (200, "welcome"), "{protocol}");
        let denied = Wire::ask(
            mesh.door("client-0", "web:8080"),
            "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(
            !denied.contains("welcome") && !denied.contains("friends"),
            "callers learn no names: {denied}"
        );
        let web = mesh.sidecar("web-0");
        let line = web.logged("the refusal", has_reason).await;
        assert_eq!((&line["kind"], &line["reason"]), (&kind.into(), &"denied_by_policy".into()), "{line}");
        assert_eq!(line["policy"], "test/family, test/friends", "{line}");
        let of = ["policy=\"test/family, test/friends\",rule=\"\",verdict=\"deny\""];
        assert_eq!(web.metric("weft_policy_verdicts_total", &of).await, 1.0, "{protocol}");
    }
}

#[tokio::test]
async fn a_denied_grpc_call_ends_with_permission_denied() {
    let (app, count) = counting().await;
    let mesh = pair(&app, "grpc").manifest("deny.yaml", DENY).start().await;
    let door = format!("http://{}", mesh.door("client-0", "web:8080"));
    let channel = Endpoint::from_shared(door).unwrap().connect().await.unwrap();
    let status = in_time("an answer", EchoClient::new(channel).say(Note::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert_eq!(count.load(Ordering::SeqCst), 0, "the application was reached");
    let line = mesh.sidecar("web-0").logged("the refusal", has_reason).await;
    assert_eq!((&line["grpc.status"], &line["policy"]), (&7.into(), &"test/no-clients#locked-out".into()));
}

#[tokio::test]
async fn a_denied_tcp_connection_is_reset_before_the_application_sees_a_byte() {
    let (app, count) = counting().await;
    let mesh = pair(&app, "tcp").manifest("deny.yaml", DENY).start().await;
    assert_eq!(Wire::ask(mesh.door("client-0", "web:8080"), "let me in\n").await, "");
    let line = mesh.sidecar("web-0").logged("the refusal", has_reason).await;
    assert_eq!(line["kind"], "connection", "{line}");
    assert_eq!(
        (&line["reason"], &line["policy"]),
        (&"denied_by_policy".into(), &"test/no-clients#locked-out".into())
    );
    assert_eq!(count.load(Ordering::SeqCst), 0, "the application was reached");
}

#[tokio::test]
async fn an_open_tcp_connection_ends_when_policy_newly_denies_it() {
    let (app, count) = counting().await;
    let mesh = pair(&app, "tcp").start().await;
    let mut wire = Wire::open(mesh.door("client-0", "web:8080")).await;
    wire.send("still allowed\n").await;
    until("the application is reached", async || (count.load(Ordering::SeqCst) > 0).then_some(())).await;
    mesh.save("deny.yaml", DENY);
    wire.rest().await;
    let line = mesh.sidecar("web-0").logged("the refusal", has_reason).await;
    assert_eq!(line["reason"], "denied_by_policy", "{line}");
    assert_eq!(line["policy"], "test/no-clients#locked-out", "{line}");
}

#[tokio::test]
async fn an_open_stream_of_http_ends_when_policy_newly_denies_it_upgraded_or_not() {
    let app = App::raw(async |mut wire: Wire| {
        let head = wire.head().await;
        wire.send(match head.contains("upgrade") {
            true => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: words\r\n\r\nopen\n",
            false => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nopen\n\r\n",
        })
        .await;
        wire.rest().await;
    })
    .await;
    for ask in ["", "connection: upgrade\r\nupgrade: words\r\n"] {
        let mesh = pair(&app, "http").start().await;
        let mut wire = Wire::open(mesh.door("client-0", "web:8080")).await;
        wire.send(format!("GET /stream HTTP/1.1\r\nhost: web\r\n{ask}\r\n")).await;
        wire.until("open\n").await;
        mesh.save("deny.yaml", DENY);
        wire.rest().await;
        let line = mesh.sidecar("web-0").logged("the refusal", has_reason).await;
        assert_eq!(line["reason"], "denied_by_policy", "{ask}: {line}");
        assert_eq!(line["policy"], "test/no-clients#locked-out", "{ask}: {line}");
        assert_eq!(mesh.sidecar("web-0").metric("weft_limits_hit_total", &["stall_timeout"]).await, 0.0);
    }
}

/// A service whose streams stay open.
struct Open;

type Notes = tokio_stream::Pending<Result<Note, tonic::Status>>;

#[tonic::async_trait]
impl Echo for Open {
    async fn say(&self, request: tonic::Request<Note>) -> Result<tonic::Response<Note>, tonic::Status> {
        Ok(tonic::Response::new(request.into_inner()))
    }

    async fn gather(
        &self,
        _: tonic::Request<tonic::Streaming<Note>>,
    ) -> Result<tonic::Response<Note>, tonic::Status> {
        std::future::pending().await
    }

    type CountStream = Notes;
    async fn count(&self, _: tonic::Request<Note>) -> Result<tonic::Response<Notes>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }

    type ChatStream = Notes;
    async fn chat(
        &self,
        _: tonic::Request<tonic::Streaming<Note>>,
    ) -> Result<tonic::Response<Notes>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }
}

#[tokio::test]
async fn an_open_grpc_stream_ends_when_policy_newly_denies_it_and_the_connection_stays() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(EchoServer::new(Open));
    tokio::spawn(server.serve_with_incoming(incoming));
    let mesh = mesh!()
        .service("web", 8080, Some("grpc"))
        .pod(Pod::named("web-0").serves(8080, address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await;
    let door = format!("http://{}", mesh.door("client-0", "web:8080"));
    let mut client = EchoClient::new(Endpoint::from_shared(door).unwrap().connect().await.unwrap());
    let mut stream = in_time("a stream", client.count(Note::default())).await.unwrap().into_inner();
    mesh.save("deny.yaml", DENY);
    let ended = in_time("the stream ends", stream.message()).await;
    assert!(ended.is_err(), "{ended:?}");
    let line = mesh.sidecar("web-0").logged("the refusal", has_reason).await;
    assert_eq!(line["reason"], "denied_by_policy", "{line}");
    mesh.delete("deny.yaml");
    until("the policy is gone", async || client.say(Note::default()).await.is_ok().then_some(())).await;
}

#[tokio::test]
async fn strict_mutual_tls_refuses_plaintext_that_permissive_takes() {
    for (protocol, ask) in [("http", "GET / HTTP/1.1\r\nhost: web\r\n\r\n"), ("tcp", "hello\n")] {
        let (app, count) = counting().await;
        let mesh = pair(&app, protocol).start().await;
        let address = std::net::SocketAddr::new(mesh.ip("web-0"), 8080);
        let mut plain = Wire::open(address).await;
        plain.send(ask).await;
        until("the application is reached", async || (count.load(Ordering::SeqCst) > 0).then_some(())).await;
        mesh.save("strict.yaml", STRICT);
        let line = until("plaintext is refused", async || {
            let wire = Wire::try_open(address).await;
            if let Some(mut wire) = wire {
                let _ = wire.try_send(ask).await && wire.try_finish().await;
                wire.rest().await;
            }
            mesh.sidecar("web-0").log().into_iter().find(|line| line["reason"] == "mtls_required")
        })
        .await;
        assert_eq!(line["blame"], "policy", "{line}");
        assert_eq!(line["policy"], "test/strict", "{line}");
        let reached = count.load(Ordering::SeqCst);
        let said = Wire::ask(address, ask).await;
        assert!(!said.contains("reached") && !said.starts_with("HTTP/1.1 200"), "{said}");
        assert_eq!(count.load(Ordering::SeqCst), reached, "{protocol}: plaintext reached the application");
        // A peer with the mesh's TLS still comes in.
        let mut wire = Wire::open(mesh.door("client-0", "web:8080")).await;
        wire.send(ask).await;
        until("mutual TLS is taken", async || (count.load(Ordering::SeqCst) > reached).then_some(())).await;
    }
}

#[tokio::test]
async fn another_pods_certificate_behind_the_address_is_refused() {
    for protocol in ["http", "tcp"] {
        let (app, count) = counting().await;
        let plan = mesh!().service("web", 8080, Some(protocol));
        let stolen = std::net::SocketAddr::new(plan.coming(0), 8080);
        // The thief has an identity of the mesh, and sits where the service's pod is said to be.
        let thief = Pod::named("thief-0").flag("--inbound", &format!("{stolen}={}", app.address));
        let mesh = plan
            .pod(Pod::named("web-0").serves(8080, stolen).not_started())
            .pod(thief)
            .pod(Pod::named("client-0").calls("web:8080"))
            .start()
            .await;
        let request = "GET /secret HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        let answer = Wire::ask(mesh.door("client-0", "web:8080"), request).await;
        let expected = if protocol == "http" { "HTTP/1.1 503 " } else { "" };
        assert!(answer.starts_with(expected) && !answer.contains("reached"), "{protocol}: {answer}");
        let line = mesh.sidecar("client-0").logged("the refusal", has_reason).await;
        assert_eq!(line["reason"], "wrong_identity", "{line}");
        assert_eq!(count.load(Ordering::SeqCst), 0, "the thief's application was reached");
    }
}

/// Facts of a sidecar's certificate.
async fn certificate(sidecar: &Sidecar) -> Value {
    let config: Value = serde_json::from_str(&sidecar.ask("/config").await).unwrap();
    config["certificate"].clone()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn exchange(wire: &mut Wire) {
    wire.send("still there?\n").await;
    assert_eq!(wire.until("\n").await, "reached\n");
}

/// Whether a new connection reaches the application.
async fn is_reached(mesh: &Mesh) -> bool {
    let Some(mut wire) = Wire::try_open(mesh.door("client-0", "web:8080")).await else { return false };
    wire.try_send("hello\n").await && wire.try_until("\n").await.is_some()
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_a_renewed_one_taken_while_a_long_stream_lives() {
    let (app, _) = counting().await;
    let mut mesh = pair(&app, "tcp").control_plane("--certificate-life", "10s").start().await;
    let mut long = Wire::open(mesh.door("client-0", "web:8080")).await;
    exchange(&mut long).await;
    for pod in ["web-0", "client-0"] {
        until("a renewal", async || {
            (certificate(mesh.sidecar(pod)).await["taken"].as_u64().unwrap() >= 2).then_some(())
        })
        .await;
    }
    exchange(&mut long).await;
    assert!(is_reached(&mesh).await, "the renewed certificates are not taken");

    mesh.kill_control_plane();
    let mut last = 0;
    for pod in ["web-0", "client-0"] {
        last = last.max(certificate(mesh.sidecar(pod)).await["not_after"].as_u64().unwrap());
    }
    until("the certificates expire", async || (unix_now() > last).then_some(())).await;
    // Resumption must not outlive the certificate either, so one refusal is not enough.
    for attempt in 0..3 {
        assert!(!is_reached(&mesh).await, "attempt {attempt}: an expired certificate was taken");
    }
    exchange(&mut long).await;

    mesh.start_control_plane().await;
    until("new certificates are taken", async || is_reached(&mesh).await.then_some(())).await;
    exchange(&mut long).await;
}

/// A route that writes its version into the request twice and into the answer.
fn route(version: u64) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: web, namespace: test}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: web}}]\n  rules:\n  - name: v{version}\n    filters:\n    \
         - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-one, value: v{version}}}, {{name: x-two, value: v{version}}}]}}}}\n    \
         - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-three, value: v{version}}}]}}}}\n    \
         backendRefs: [{{name: web, port: 8080}}]\n"
    )
}

#[tokio::test]
async fn two_versions_never_mix_within_one_request() {
    // The answer's fields are of the version that routed the request, although newer ones come while
    // the application takes its time: it answers when the next version is in force.
    let (next, seen) = tokio::sync::watch::channel(0_u64);
    let app = App::http(move |request: http::Request<Incoming>| {
        let mut seen = seen.clone();
        async move {
            let field = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
            let slow = request.uri().path() == "/slow";
            if slow {
                seen.mark_unchanged();
                seen.changed().await.unwrap();
            }
            reply(200, Bytes::from(format!("{} {}", field("x-one"), field("x-two"))))
        }
    })
    .await;
    let mesh = pair(&app, "http").manifest("route.yaml", &route(0)).start().await;
    let door = mesh.door("client-0", "web:8080");
    let mut http = Http::open(door).await;
    let mut slow: Vec<tokio::task::JoinHandle<(String, String)>> = Vec::new();
    let ask = move || async move {
        let answer = Http::once(door, "/slow").await.unwrap();
        (answer.body, answer.headers["x-three"].to_str().unwrap().to_owned())
    };
    for version in 1..=20 {
        slow.push(tokio::spawn(ask()));
        mesh.save("route.yaml", &route(version));
        let wanted = format!("v{version} v{version}");
        until("the next version", async || {
            let answer = http.get("/").await.unwrap();
            assert_eq!(answer.status, 200);
            let three = answer.headers["x-three"].to_str().unwrap().to_owned();
            assert_eq!(answer.body, format!("{three} {three}"), "two versions in one request");
            (answer.body == wanted).then_some(())
        })
        .await;
        next.send(version).unwrap();
    }
    next.send(99).unwrap();
    let mut overtaken = 0;
    for (begun, answer) in slow.into_iter().enumerate() {
        // The last may have come too late to be released by the version after it.
        let release = until_released(&next, answer);
        let (body, three) = in_time("a slow answer", release).await;
        assert_eq!(body, format!("{three} {three}"), "two versions in one request");
        overtaken += u32::from(three == format!("v{begun}"));
    }
    assert!(overtaken > 0, "no request was overtaken by a newer version: the test shows nothing");
}

/// Waits for a slow answer, letting go of whoever still waits for a version.
async fn until_released<T>(
    next: &tokio::sync::watch::Sender<u64>,
    mut answer: tokio::task::JoinHandle<T>,
) -> T {
    let mut timer = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            answer = &mut answer => return answer.unwrap(),
            _ = timer.tick() => next.send_modify(|version| *version += 1),
        }
    }
}
