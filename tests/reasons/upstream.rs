//! What configuration says, and what endpoints do.

use std::net::SocketAddr;

use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Pod, Wire, reply, until};

use super::seen;

fn route(name: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: test}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: {name}, port: 80}}]\n  rules: [{rule}]\n"
    )
}

fn traffic(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: test}}\n\
         spec: {{targetRefs: [{{kind: Service, name: {name}}}], {spec}}}\n"
    )
}

pub(crate) async fn what_configuration_says() -> Vec<&'static str> {
    let names = ["narrow", "dangling", "mirrored", "moved", "nobody"];
    let routes = [
        route("narrow", "{matches: [{path: {value: /only}}], backendRefs: [{name: nobody, port: 80}]}"),
        route("dangling", "{backendRefs: [{name: nowhere, port: 80}]}"),
        route("mirrored", "{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}], backendRefs: [{name: nobody, port: 80}]}"),
        route("moved", "{filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere}}]}"),
    ]
    .concat();
    let mut client = Pod::named("client-0").calls("ghost:80").flag("--lookup-timeout", "200ms");
    let mut plan = mesh!().manifest("routes.yaml", &routes);
    for name in names {
        plan = plan.service(name, 80, Some("http"));
        client = client.calls(&format!("{name}:80"));
    }
    let mesh = plan.pod(client).start().await;
    let mut produced = Vec::new();
    for (service, reason, status) in [
        ("narrow", "no_route", 404),
        ("dangling", "invalid_backend", 500),
        ("mirrored", "invalid_filter", 500),
        ("moved", "config_reply", 302),
        ("nobody", "no_endpoint", 503),
    ] {
        let answer = Http::once(mesh.door("client-0", &format!("{service}:80")), "/").await.unwrap();
        assert_eq!((answer.status, answer.headers["weft-reason"].to_str().unwrap()), (status, reason));
        let line = mesh
            .sidecar("client-0")
            .logged(reason, |line| line["request.id"] == answer.headers["weft-request-id"].to_str().unwrap())
            .await;
        assert_eq!(line["reason"], reason, "the answer's id is the log's: {line}");
        produced.push(seen(mesh.sidecar("client-0"), reason).await);
    }
    let said = Wire::ask(mesh.door("client-0", "ghost:80"), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(said, "", "what is not known to be HTTP is reset");
    produced.push(seen(mesh.sidecar("client-0"), "config_timeout").await);
    produced
}

/// An application that does one thing to every connection once it has read a head.
async fn app(does: &'static [u8]) -> App {
    App::raw(move |mut wire| async move {
        if wire.try_until("\r\n\r\n").await.is_some() && !does.is_empty() {
            let _ = wire.try_send(does).await;
        }
    })
    .await
}

/// Services whose endpoints misbehave, each in the way that its name says.
const MISBEHAVING: [&str; 10] =
    ["slow", "late", "failing", "closing", "babbling", "absent", "deaf", "noisy", "stolen", "narrow"];

/// Applications that misbehave by themselves, behind sidecars that do not.
struct Applications {
    slow: App,
    failing: App,
    closing: App,
    babbling: App,
}

impl Applications {
    async fn start() -> Self {
        Self {
            // Until its caller leaves.
            slow: App::raw(|mut wire| async move { drop(wire.rest().await) }).await,
            failing: App::http(|_| async { reply(500, "no") }).await,
            closing: app(b"").await,
            babbling: app(b"what?\r\n\r\n").await,
        }
    }

    fn pods(&self) -> [(&'static str, SocketAddr); 6] {
        [
            ("slow-0", self.slow.address),
            ("late-0", self.slow.address),
            ("failing-0", self.failing.address),
            ("closing-0", self.closing.address),
            ("babbling-0", self.babbling.address),
            ("narrow-0", self.slow.address),
        ]
    }
}

/// What stands where a sidecar is said to be: one that says nothing, and one that says something else.
async fn impostors(deaf: SocketAddr, noisy: SocketAddr) -> [App; 2] {
    [
        App::raw_at(deaf, |mut wire| async move { drop(wire.rest().await) }).await,
        App::raw_at(noisy, |mut wire| async move {
            let _ = wire.try_send("I am no sidecar at all, whatever you heard\r\n").await;
            wire.rest().await;
        })
        .await,
    ]
}

/// Deadlines within which a loaded machine still shakes hands, where the handshake is not what is meant to fail.
fn limits() -> String {
    [
        route("slow", "{timeouts: {request: 2s}, backendRefs: [{name: slow, port: 80}]}"),
        route("late", "{timeouts: {backendRequest: 100ms}, backendRefs: [{name: late, port: 80}]}"),
        traffic("failing", "outlier: {consecutiveFailures: 1, maxEjectedPercent: 100, baseEjection: 300s}"),
        traffic("deaf", "connectTimeout: 200ms"),
        traffic("narrow", "connectTimeout: 2s, limits: {maxConnections: 1, maxPendingRequests: 1}"),
    ]
    .concat()
}

pub(crate) async fn what_endpoints_do() -> Vec<&'static str> {
    let apps = Applications::start().await;
    let mut plan = mesh!().manifest("policies.yaml", &limits());
    let mut client = Pod::named("client-0");
    for name in MISBEHAVING {
        plan = plan.service(name, 80, Some("http"));
        client = client.calls(&format!("{name}:80"));
    }
    let [deaf, noisy, stolen] = [0, 1, 2].map(|ahead| SocketAddr::new(plan.coming(ahead), 80));
    let _impostors = impostors(deaf, noisy).await;
    for (name, address) in [("deaf-0", deaf), ("noisy-0", noisy), ("stolen-0", stolen), ("absent-0", stolen)]
    {
        plan = plan.pod(Pod::named(name).serves(80, address).not_started());
    }
    plan = plan.pod(Pod::named("thief-0").flag("--inbound", &format!("{stolen}={}", apps.failing.address)));
    for (name, address) in apps.pods() {
        plan = plan.pod(Pod::named(name).serves(80, address));
    }
    let mesh = plan.pod(client).start().await;
    let mut produced = Vec::new();
    for (service, logged_by, reason, status) in [
        ("slow", "client-0", "request_timeout", 504),
        ("late", "client-0", "attempt_timeout", 504),
        ("closing", "closing-0", "upstream_reset", 502),
        ("babbling", "babbling-0", "upstream_protocol", 502),
        ("absent", "client-0", "connect_refused", 503),
        ("deaf", "client-0", "connect_timeout", 503),
        ("noisy", "client-0", "tls_failure", 503),
        ("stolen", "client-0", "wrong_identity", 503),
    ] {
        let answer = Http::once(mesh.door("client-0", &format!("{service}:80")), "/").await.unwrap();
        let said = answer.headers["weft-reason"].to_str().unwrap();
        assert_eq!((answer.status, said), (status, reason), "{service}");
        produced.push(seen(mesh.sidecar(logged_by), reason).await);
    }
    // What the caller's sidecar gave up, the other gives up as well, though the application says nothing.
    assert_eq!(seen(mesh.sidecar("slow-0"), "cancelled").await, "cancelled");
    until("the circuit is open", async || {
        let answer = Http::once(mesh.door("client-0", "failing:80"), "/").await.unwrap();
        (answer.headers.get("weft-reason")? == "circuit_open").then_some(())
    })
    .await;
    produced.push(seen(mesh.sidecar("client-0"), "circuit_open").await);
    produced.extend(crowded(&mesh).await);
    produced
}

/// One connection is allowed and one request may wait for it: the first is served, the second waits in vain,
/// the third has no place to wait.
async fn crowded(mesh: &mesh::Mesh) -> Vec<&'static str> {
    let door = mesh.door("client-0", "narrow:80");
    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut caller = Wire::open(door).await;
        caller.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        callers.push(caller);
    }
    let client = mesh.sidecar("client-0");
    let produced = vec![seen(client, "pending_overflow").await, seen(client, "connection_overflow").await];
    drop(callers);
    produced
}
