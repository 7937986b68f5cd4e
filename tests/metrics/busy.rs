//! A mesh in which everything happens that is counted: requests that go well, fail, are retried, refused
//! and turned away; gRPC; bytes; callers without a sidecar; a dead endpoint and a circuit that opens.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Pod, Wire, reply, until};

use crate::calls;

/// The mesh with its applications.
pub(crate) struct Busy {
    pub(crate) mesh: Mesh,
    saved: AtomicU64,
    _apps: Vec<App>,
}

/// `web` denies one caller; a dead endpoint of it is ejected at once. All of `broken` fails, so its circuit
/// opens and `spare` answers. Nobody answers for spans, so that they are dropped.
const POLICIES: &str = "\
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-strangers, namespace: test}
spec:
  targetRefs: [{kind: Service, name: web}]
  action: Deny
  rules: [{name: locked-out, from: [{serviceAccounts: [test/stranger]}]}]
---
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web, namespace: test}
spec: {targetRefs: [{kind: Service, name: web}], outlier: {consecutiveFailures: 1, baseEjection: 5m}}
---
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: broken, namespace: test}
spec:
  targetRefs: [{kind: Service, name: broken}]
  outlier: {consecutiveFailures: 1, baseEjection: 5m, maxEjectedPercent: 100}
  fallback: {name: spare, port: 8080}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: test}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
    - name: slow
      matches: [{path: {type: PathPrefix, value: /slow}}]
      timeouts: {request: 100ms}
      backendRefs: [{name: web, port: 8080}]
    - name: all
      backendRefs: [{name: web, port: 8080}]
";

/// A manifest that is saved anew now and then.
fn extra(number: u64) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: extra, namespace: test}}\n\
         spec: {{clusterIP: 127.0.0.9, ports: [{{port: {}}}]}}\n",
        9_000 + number % 1_000
    )
}

/// Every request is a trace.
const MESH: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec:
  tracing: {samplingPercent: 100}
";

/// Whatever is asked, the span goes to where nobody listens.
const NOWHERE: &str = "http://localhost:9";

const SIDECARS: [&str; 7] = ["web-0", "api-0", "db-0", "broken-0", "spare-0", "client-0", "stranger-0"];

impl Busy {
    /// Starts it; `flags` are those of the caller's sidecar.
    pub(crate) async fn start(flags: &[(&str, &str)]) -> Self {
        let web = App::http(async |request: Request<Incoming>| {
            if request.uri().path() == "/slow" {
                std::future::pending::<()>().await;
            }
            reply(200, "welcome")
        })
        .await;
        let broken = App::http(async |_| reply(503, "broken")).await;
        let spare = App::saying("spare").await;
        let db = App::raw(async |mut wire: Wire| {
            while let Some(line) = wire.try_until("\n").await {
                wire.send(line).await;
            }
        })
        .await;
        let api = calls::grpc().await;
        let client = Pod::named("client-0").flag("--otlp", NOWHERE);
        let client = flags.iter().fold(client, |pod, (flag, value)| pod.flag(flag, value));
        let client =
            ["web:8080", "api:50051", "db:3306", "broken:8080"].iter().fold(client, |p, s| p.calls(s));
        let mut mesh = mesh!()
            .service("web", 8080, Some("http"))
            .service("api", 50051, Some("grpc"))
            .service("db", 3306, Some("tcp"))
            .service("broken", 8080, Some("http"))
            .service("spare", 8080, None)
            .pod(Pod::named("web-0").serves(8080, web.address).calls("spare:8080").calls("db:3306"))
            // It answers in the place of a sidecar, and closes at once.
            .pod(Pod::named("web-1").serves(8080, web.address).not_started())
            .pod(Pod::named("api-0").serves(50051, api))
            .pod(Pod::named("db-0").serves(3306, db.address))
            .pod(Pod::named("broken-0").serves(8080, broken.address))
            .pod(Pod::named("spare-0").serves(8080, spare.address))
            .pod(Pod::named("spare-1").serves(8080, spare.address))
            .pod(client)
            .pod(Pod::named("stranger-0").calls("web:8080"))
            .manifest("mesh.yaml", MESH)
            .manifest("policies.yaml", POLICIES)
            .start()
            .await;
        let impostor = App::raw_at(SocketAddr::new(mesh.ip("web-1"), 8080), async |_| {}).await;
        // Its stream ends.
        drop(mesh.take_sidecar("spare-1"));
        Self { mesh, saved: AtomicU64::default(), _apps: vec![web, broken, spare, db, impostor] }
    }

    /// The pods whose sidecars run.
    pub(crate) fn sidecars(&self) -> impl Iterator<Item = &'static str> {
        SIDECARS.into_iter()
    }

    /// An address of the mesh's own block that nothing else uses.
    pub(crate) fn free(&self) -> IpAddr {
        match self.mesh.ip("web-0") {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [a, b, c, 250].into()
            }
            IpAddr::V6(_) => panic!("a mesh is on IPv4"),
        }
    }

    /// One round of what goes on all the time.
    pub(crate) async fn round(&self) {
        let door = |service| self.mesh.door("client-0", service);
        let mut web = Http::open(door("web:8080")).await;
        for body in ["", "a question", &"x".repeat(5_000)] {
            let asked = web.send(Request::post("/"), Bytes::from(body.to_owned())).await.unwrap();
            assert_eq!(asked.status, 200, "{asked:?}");
        }
        assert_eq!(Http::once(door("web:8080"), "/slow").await.unwrap().status, 504);
        let number = self.saved.fetch_add(1, Ordering::Relaxed);
        self.mesh.save("extra.yaml", &extra(number));
        // A circuit that is open is answered for by the fallback.
        Http::once(door("broken:8080"), "/").await.unwrap();
        let denied = Http::once(self.mesh.door("stranger-0", "web:8080"), "/").await.unwrap();
        assert_eq!(denied.status, 403, "{denied:?}");
        let plain = SocketAddr::new(self.mesh.ip("web-0"), 8080);
        assert_eq!(Http::once(plain, "/").await.unwrap().status, 200);
        assert!(calls::say(door("api:50051"), "hello").await);
        assert!(!calls::say(door("api:50051"), "fail").await);
        for pod in ["client-0", "web-0"] {
            let mut db = Wire::open(self.mesh.door(pod, "db:3306")).await;
            db.send("select\n").await;
            assert_eq!(db.until("\n").await, "select\n");
        }
        assert_eq!(Http::once(self.mesh.door("web-0", "spare:8080"), "/").await.unwrap().status, 200);
    }

    /// Rounds until all of it was counted.
    pub(crate) async fn everything(&self) {
        let client = self.mesh.sidecar("client-0");
        let head = format!("GET / HTTP/1.1\r\nhost: web\r\nx-large: {}\r\n\r\n", "x".repeat(100 << 10));
        Wire::ask(self.mesh.door("client-0", "web:8080"), &head).await;
        until("all of it", async || {
            self.round().await;
            for (name, labels) in [
                ("weft_ejections_total", "test/web:8080"),
                ("weft_retries_total", "test/web:8080"),
                ("weft_circuit_open", "test/broken:8080"),
                ("weft_fallbacks_total", "test/broken:8080"),
                ("weft_tls_failures_total", "outbound"),
                ("weft_tcp_connections_closed_total", "test/db:3306"),
                ("weft_limits_hit_total", "header_bytes"),
                ("weft_dns_lookups_total", "purpose=\"collector\",outcome=\"found\""),
                ("weft_telemetry_dropped_total", "kind=\"span\""),
            ] {
                if client.metric(name, &[labels]).await < 1.0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}
