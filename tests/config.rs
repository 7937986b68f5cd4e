//! Configuration that changes, breaks, goes away and comes back under traffic, and what the mesh does
//! about endpoints that come, go and fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::task::JoinSet;
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Plan, Pod, Standing, Wire, in_time, reply, until};

/// A route from `web` to one of the two.
fn route(backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: test}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: web}}]\n  \
         rules: [{{name: all, backendRefs: [{{name: {backend}, port: 8080}}]}}]\n"
    )
}

/// `web`, whose route says whether `old` or `new` answers.
fn two(old: &App, new: &App) -> Plan {
    mesh!()
        .service("web", 8080, Some("http"))
        .service("old", 8080, Some("http"))
        .service("new", 8080, Some("http"))
        .pod(Pod::named("old-0").serves(8080, old.address))
        .pod(Pod::named("new-0").serves(8080, new.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .manifest("route.yaml", &route("old"))
}

/// Requests that go on until they are told to stop; every one must be answered with 200.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
}

impl Load {
    /// Half of the clients keep their connection, half take one for each request.
    fn start(door: SocketAddr, clients: usize) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (stop, made) = (stop.clone(), made.clone());
            tasks.spawn(async move {
                let mut kept = Http::open(door).await;
                while !stop.load(Ordering::SeqCst) {
                    if client % 2 == 1 {
                        kept = Http::open(door).await;
                    }
                    let answer =
                        kept.get("/").await.unwrap_or_else(|error| panic!("a request was cut: {error}"));
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { tasks, stop, made }
    }

    /// Waits until so many more requests were made.
    async fn more(&mut self, count: u64) {
        let goal = self.made.load(Ordering::SeqCst) + count;
        until("more requests", async || {
            // Whoever failed says so at once.
            self.tasks.try_join_next().map(Result::unwrap);
            (self.made.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }

    /// Stops, and gives how many requests were made; all went well.
    async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(client) = in_time("a client", self.tasks.join_next()).await {
            client.unwrap();
        }
        self.made.load(Ordering::SeqCst)
    }
}

/// Waits until the answers come from where they should.
async fn answers(door: SocketAddr, text: &str) {
    let mut http = Http::open(door).await;
    until(&format!("{text} answers"), async || {
        let answer = http.get("/").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        (answer.body == text).then_some(())
    })
    .await;
}

/// The end of a chunked body.
const END: &str = "0\r\n\r\n";

/// An application that answers with a stream which the test feeds.
async fn slow() -> (App, tokio::sync::broadcast::Sender<&'static str>) {
    let (feed, _) = tokio::sync::broadcast::channel(8);
    let given = feed.clone();
    let app = App::raw(move |mut wire| {
        let mut pieces = given.subscribe();
        async move {
            let head = wire.head().await;
            if !head.starts_with("GET /slow ") {
                return wire
                    .send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nold")
                    .await;
            }
            wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while let Ok(piece) = pieces.recv().await {
                wire.send(piece).await;
                if piece == END {
                    return;
                }
            }
        }
    });
    (app.await, feed)
}

#[tokio::test]
async fn an_edit_changes_routing_without_one_failed_or_cut_request() {
    let ((old, feed), new) = (slow().await, App::saying("new").await);
    let mesh = two(&old, &new).start().await;
    let door = mesh.door("client-0", "web:8080");
    let mut long = Wire::open(door).await;
    long.send("GET /slow HTTP/1.1\r\nhost: web\r\n\r\n").await;
    long.head().await;
    let mut load = Load::start(door, 4);
    for _ in 0..5 {
        load.more(20).await;
        mesh.save("route.yaml", &route("new"));
        answers(door, "new").await;
        load.more(20).await;
        mesh.save("route.yaml", &route("old"));
        answers(door, "old").await;
    }
    // What began under the first version ends as it began.
    feed.send("4\r\nlong\r\n").unwrap();
    assert_eq!(long.until("long\r\n").await, "4\r\nlong\r\n");
    feed.send(END).unwrap();
    assert_eq!(long.until("\r\n\r\n").await, "0\r\n\r\n");
    assert!(load.stop().await >= 200);
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_says_where_and_why() {
    let (old, new) = (App::saying("old").await, App::saying("new").await);
    let mesh = two(&old, &new).start().await;
    let door = mesh.door("client-0", "web:8080");
    let load = Load::start(door, 2);
    let broken = route("new").replace("rules: [{name", "rules: [{{name");
    mesh.save("route.yaml", &broken);
    let problem = until("the control plane complains", async || {
        let status: Value = serde_json::from_str(&mesh.ask_control_plane("/status").await).unwrap();
        status["problems"].get(0).cloned()
    })
    .await;
    assert_eq!(problem["file"], "route.yaml", "{problem}");
    assert_eq!(problem["line"], 6, "{problem}");
    assert_ne!(problem["reason"], "", "{problem}");
    answers(door, "old").await;
    mesh.save("route.yaml", &route("new"));
    answers(door, "new").await;
    load.stop().await;
}

#[tokio::test]
async fn the_control_plane_dies_restarts_with_an_empty_memory_and_comes_back() {
    let (old, new) = (App::saying("old").await, App::saying("new").await);
    let mut mesh = two(&old, &new).start().await;
    let door = mesh.door("client-0", "web:8080");
    let mut load = Load::start(door, 4);
    load.more(20).await;
    mesh.kill_control_plane();
    load.more(100).await;
    // What is edited while it is away is there when it is back.
    mesh.save("route.yaml", &route("new"));
    load.more(20).await;
    mesh.start_control_plane().await;
    answers(door, "new").await;
    mesh.save("route.yaml", &route("old"));
    answers(door, "old").await;
    load.stop().await;
}

#[tokio::test]
async fn a_control_plane_that_lost_even_its_root_key_takes_the_mesh_over_again() {
    let (old, new) = (App::saying("old").await, App::saying("new").await);
    let mut mesh = two(&old, &new).start().await;
    let door = mesh.door("client-0", "web:8080");
    let mut kept = Http::open(door).await;
    assert_eq!(kept.get("/").await.unwrap().body, "old");
    mesh.kill_control_plane();
    std::fs::remove_dir_all(mesh.folder().join("state")).unwrap();
    mesh.start_control_plane().await;
    // All certificates are of a root that nobody vouches for any more: each sidecar joins anew.
    mesh.save("route.yaml", &route("new"));
    until("new answers", async || {
        let answer = Http::once(door, "/").await.ok()?;
        (answer.body == "new").then_some(())
    })
    .await;
    assert_eq!(kept.get("/").await.unwrap().body, "new");
}

#[tokio::test]
async fn a_sidecar_that_restarts_long_after_the_root_was_replaced_trusts_the_roots_it_heard_of_last() {
    let (old, new) = (App::saying("old").await, App::saying("new").await);
    let mut mesh = two(&old, &new).start().await;
    let anchors = mesh.folder().join("trust-anchors.pem");
    let first = std::fs::read(&anchors).unwrap();
    mesh.kill_control_plane();
    std::fs::remove_dir_all(mesh.folder().join("state")).unwrap();
    mesh.start_control_plane().await;
    mesh.save("route.yaml", &route("new"));
    answers_until(&mesh, "new").await;
    let state = mesh.folder().join("client-0.state/last-good");
    let last = std::fs::read(&anchors).unwrap();
    let root = CertificateDer::from_pem_slice(&last).unwrap();
    until("the new root is on disk", async || {
        let kept = std::fs::read(&state).ok()?;
        kept.windows(root.len()).any(|window| window == &*root).then_some(())
    })
    .await;

    // Its settings stay those of the day it was made.
    std::fs::write(&anchors, first).unwrap();
    drop(mesh.take_sidecar("client-0"));
    mesh.start_sidecar("client-0").await;
    mesh.save("route.yaml", &route("old"));
    answers_until(&mesh, "old").await;

    // A file that is broken is no reason not to start; and without it, it is a stranger here.
    drop(mesh.take_sidecar("client-0"));
    std::fs::write(&state, "broken").unwrap();
    mesh.spawn_sidecar("client-0");
    until("it says why it does not start", async || {
        let said = mesh.sidecar("client-0").tail();
        (said.contains("it is ignored and written anew") && said.contains("invalid peer certificate"))
            .then_some(())
    })
    .await;
    std::fs::write(&anchors, last).unwrap();
    mesh.ready("client-0").await;
    answers_until(&mesh, "old").await;
}

/// Waits until a new connection is answered so.
async fn answers_until(mesh: &Mesh, said: &str) {
    let door = mesh.door("client-0", "web:8080");
    until(&format!("{said:?} answers"), async || {
        let answer = Http::once(door, "/").await.ok()?;
        (answer.body == said).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_starts_from_its_last_good_configuration_while_no_control_plane_answers() {
    let plan = mesh!().service("web", 8080, Some("http"));
    let address = SocketAddr::new(plan.coming(0), 8080);
    // Outside the mesh: keys are never on disk, so without a control plane there is no mutual TLS.
    let _app = App::raw_at(address, async |mut wire: Wire| {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nplain").await;
    })
    .await;
    let mut mesh = plan
        .pod(Pod::named("web-0").serves(8080, address).without_sidecar())
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await;
    answers(mesh.door("client-0", "web:8080"), "plain").await;
    let state = mesh.folder().join("client-0.state");
    until("the service is on disk", async || {
        let files = std::fs::read_dir(&state).ok()?.filter_map(|file| std::fs::read(file.ok()?.path()).ok());
        files.into_iter().any(|bytes| String::from_utf8_lossy(&bytes).contains("test/web:8080")).then_some(())
    })
    .await;
    drop(mesh.take_sidecar("client-0"));
    mesh.kill_control_plane();
    mesh.start_sidecar("client-0").await;
    answers(mesh.door("client-0", "web:8080"), "plain").await;
}

#[tokio::test]
async fn a_request_that_cannot_connect_goes_to_another_endpoint_and_the_dead_one_is_ejected() {
    // Without it the dead endpoint is not asked often enough to be ejected: its cost rises at once.
    const POLICY: &str = "\
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web, namespace: test}
spec: {targetRefs: [{kind: Service, name: web}], outlier: {consecutiveFailures: 1}}
";
    let app = App::saying("alive").await;
    let mesh = mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("web-1").serves(8080, app.address).not_started())
        .pod(Pod::named("client-0").calls("web:8080"))
        .manifest("policy.yaml", POLICY)
        .start()
        .await;
    let door = mesh.door("client-0", "web:8080");
    let sidecar = mesh.sidecar("client-0");
    until("the dead endpoint is ejected", async || {
        let answer = Http::once(door, "/").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "alive"));
        (sidecar.metric("weft_ejections_total", &[]).await > 0.0).then_some(())
    })
    .await;
    let line = sidecar.logged("a retried request", |line| line["attempts"] == 2).await;
    assert_eq!(line["http.status"], 200, "{line}");
}

#[tokio::test]
async fn failing_endpoints_are_ejected_the_fallback_answers_and_they_come_back_when_they_are_well() {
    const POLICY: &str = "\
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web, namespace: test}
spec:
  targetRefs: [{kind: Service, name: web}]
  outlier: {consecutiveFailures: 3, baseEjection: 1s, maxEjectedPercent: 100}
  fallback: {name: spare, port: 8080}
";
    let broken = Arc::new(AtomicBool::new(true));
    let seen = broken.clone();
    let app = App::http(move |_| {
        let status = if seen.load(Ordering::SeqCst) { 503 } else { 200 };
        async move { reply(status, "web") }
    })
    .await;
    let spare = App::saying("spare").await;
    let mesh = mesh!()
        .service("web", 8080, Some("http"))
        .service("spare", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("spare-0").serves(8080, spare.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .manifest("policy.yaml", POLICY)
        .start()
        .await;
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    until("the fallback answers", async || {
        let answer = http.get("/").await.unwrap();
        assert!(matches!((answer.status, answer.body.as_str()), (503, "web") | (200, "spare")), "{answer:?}");
        (answer.body == "spare").then_some(())
    })
    .await;
    broken.store(false, Ordering::SeqCst);
    until("web is back", async || {
        let answer = http.get("/").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.body == "web").then_some(())
    })
    .await;
}

/// Replaces one pod by another as a cluster does: the new one is an endpoint when it is ready, the old
/// one is none from the moment it is told to go.
async fn replace(mesh: &mut Mesh, old: &str, new: &str) {
    mesh.stand(new, Standing::Unready);
    mesh.start_sidecar(new).await;
    mesh.stand(new, Standing::Ready);
    let mut leaving = mesh.take_sidecar(old);
    mesh.stand(old, Standing::Unready);
    leaving.terminate();
    let status = leaving.ended().await;
    assert!(status.success(), "{old}: {status}\n{}", leaving.tail());
    mesh.stand(old, Standing::Absent);
}

#[tokio::test]
async fn ten_thousand_requests_pass_a_rolling_replacement_of_all_endpoints_with_none_failed() {
    let apps = [App::saying("ok").await, App::saying("ok").await, App::saying("ok").await];
    let mut plan = mesh!().service("web", 8080, Some("http")).pod(Pod::named("client-0").calls("web:8080"));
    for (number, app) in apps.iter().enumerate() {
        plan = plan.pod(Pod::named(&format!("web-{number}")).serves(8080, app.address));
    }
    for (number, app) in apps.iter().enumerate() {
        plan = plan.pod(Pod::named(&format!("web-{}", number + 3)).serves(8080, app.address).later());
    }
    let mut mesh = plan.start().await;
    let mut load = Load::start(mesh.door("client-0", "web:8080"), 16);
    for number in 0..3 {
        load.more(1_000).await;
        replace(&mut mesh, &format!("web-{number}"), &format!("web-{}", number + 3)).await;
    }
    while load.made.load(Ordering::SeqCst) < 10_000 {
        load.more(500).await;
    }
    let made = load.stop().await;
    assert!(made >= 10_000, "{made}");
    for number in 3..6 {
        let served = mesh.sidecar(&format!("web-{number}")).log().len();
        assert!(served > 0, "web-{number} served nothing");
    }
}
