//! Pods that leave: applications that stop listening at once, sidecars told to go, and callers that know
//! nothing of it yet. Nothing that was asked may be lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Response, Status, Streaming};
use weft_tests::echo::Note;
use weft_tests::echo::echo_client::EchoClient;
use weft_tests::echo::echo_server::{Echo, EchoServer};
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Pod, Standing, Wire, in_time, reply, until, until_within};

/// An application that sends bodies back.
async fn echoing() -> App {
    App::http(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        reply(200, body)
    })
    .await
}

/// Two pods behind one service; nobody listens behind the first.
async fn half_gone(protocol: &str, app: &App) -> Mesh {
    let gone = App::saying("").await;
    let nowhere = gone.address;
    drop(gone);
    mesh!()
        .service("web", 8080, Some(protocol))
        .pod(Pod::named("web-0").serves(8080, nowhere))
        .pod(Pod::named("web-1").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await
}

#[tokio::test]
async fn a_request_that_an_application_did_not_take_goes_to_another_endpoint_body_and_all() {
    let app = echoing().await;
    let mesh = half_gone("http", &app).await;
    let door = mesh.door("client-0", "web:8080");
    for round in 0..40 {
        for (method, body) in [("GET", ""), ("POST", ""), ("POST", "a body"), ("PATCH", "another")] {
            let mut http = Http::open(door).await;
            let request = Request::builder().method(method).uri("/");
            let answer = http.send(request, Bytes::from_static(body.as_bytes())).await.unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (200, body), "{round} {method} {body}");
            assert!(!answer.headers.contains_key("weft-unanswered"), "{:?}", answer.headers);
        }
    }
    let declined =
        mesh.sidecar("web-0").logged("a refusal", |line| line["reason"] == "connect_refused").await;
    assert_eq!(declined["http.status"], 503, "{declined}");
}

#[tokio::test]
async fn when_no_application_takes_a_request_its_caller_is_told_in_its_own_protocol() {
    let gone = App::saying("").await;
    let nowhere = gone.address;
    drop(gone);
    let mesh = mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, nowhere))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await;
    let answer = Http::once(mesh.door("client-0", "web:8080"), "/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["weft-reason"], "connect_refused");
    assert!(!answer.headers.contains_key("weft-unanswered"), "{:?}", answer.headers);
}

#[tokio::test]
async fn an_application_cannot_say_that_it_did_not_take_a_request() {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let app = App::http(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            let mut answer = reply(503, "busy");
            answer.headers_mut().insert("weft-unanswered", "unprocessed".parse().unwrap());
            answer
        }
    })
    .await;
    let mesh = mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await;
    let answer = Http::once(mesh.door("client-0", "web:8080"), "/").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (503, "busy"));
    assert_eq!(count.load(Ordering::SeqCst), 1, "it was asked again");
}

struct Echoes;

type Notes = tokio_stream::Empty<Result<Note, Status>>;

#[tonic::async_trait]
impl Echo for Echoes {
    async fn say(&self, request: tonic::Request<Note>) -> Result<Response<Note>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn gather(&self, _: tonic::Request<Streaming<Note>>) -> Result<Response<Note>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type CountStream = Notes;
    async fn count(&self, _: tonic::Request<Note>) -> Result<Response<Notes>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type ChatStream = Notes;
    async fn chat(&self, _: tonic::Request<Streaming<Note>>) -> Result<Response<Notes>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

#[tokio::test]
async fn a_grpc_call_that_an_application_did_not_take_goes_to_another_endpoint() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(EchoServer::new(Echoes)).serve_with_incoming(incoming));
    let gone = App::saying("").await;
    let nowhere = gone.address;
    drop(gone);
    let mesh = mesh!()
        .service("web", 8080, Some("grpc"))
        .pod(Pod::named("web-0").serves(8080, nowhere))
        .pod(Pod::named("web-1").serves(8080, address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .start()
        .await;
    let door = format!("http://{}", mesh.door("client-0", "web:8080"));
    let channel = Endpoint::from_shared(door).unwrap().connect().await.unwrap();
    let mut client = EchoClient::new(channel);
    let mut answered = 0;
    for round in 0..40 {
        let note = Note { text: format!("number {round}") };
        match in_time("an answer", client.say(note.clone())).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner(), note);
                answered += 1;
            }
            // Its message was still on its way when it was declined: it cannot be sent again, and its caller is told.
            Err(status) => assert_eq!(status.metadata().get("weft-reason").unwrap(), "connect_refused"),
        }
    }
    assert!(answered >= 30, "{answered} of 40 were answered");
    mesh.sidecar("web-0").logged("a refusal", |line| line["reason"] == "connect_refused").await;
}

#[tokio::test]
async fn connections_of_bytes_go_to_another_endpoint_before_a_byte_is_sent() {
    let app = App::raw(async |mut wire: Wire| {
        while wire.try_until("\n").await.is_some() {
            wire.send("heard\n").await;
        }
    })
    .await;
    let mesh = half_gone("tcp", &app).await;
    for round in 0..40 {
        let mut wire = Wire::open(mesh.door("client-0", "web:8080")).await;
        wire.send("hello\n").await;
        assert_eq!(wire.try_until("\n").await.as_deref(), Some("heard\n"), "{round}");
    }
    mesh.sidecar("web-0").logged("a refusal", |line| line["reason"] == "connect_refused").await;
}

/// On a busy machine one slow answer makes callers avoid an endpoint until its cost has decayed: from 5 s to
/// 0.1 ms at 10 s a step of e takes 108 s. Source: the bounds of peak-EWMA in `proxy/core/src/load.rs`.
const FORGOTTEN: Duration = Duration::from_secs(240);

/// Asks without a pause until told to stop; gives how many answers came and which were not as they should.
///
/// Only what may be repeated is asked: the kernel resets connections that wait in the queue of a listener
/// that closes, and of a POST on one of these nobody can tell whether it was read.
async fn load(door: std::net::SocketAddr, stop: Arc<AtomicBool>, reuse: bool) -> (u64, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    let mut kept = None;
    while !stop.load(Ordering::SeqCst) {
        let mut http = match kept.take() {
            Some(http) => http,
            None => Http::open(door).await,
        };
        let body = if good % 2 == 0 { "" } else { "a body" };
        let request = Request::builder().method(if body.is_empty() { "GET" } else { "PUT" }).uri("/");
        match http.send(request, Bytes::from_static(body.as_bytes())).await {
            Ok(answer) if answer.status == 200 && answer.body == body => good += 1,
            Ok(answer) => bad.push(format!("{} {} {:?}", answer.status, answer.body, answer.headers)),
            Err(error) => bad.push(error.to_string()),
        }
        if reuse {
            kept = Some(http);
        }
    }
    (good, bad)
}

#[tokio::test]
async fn a_rolling_replacement_under_steady_load_loses_nothing_although_applications_leave_at_once() {
    let native = |pod: Pod| pod.switch("--native-sidecar");
    let mut apps = Vec::new();
    let mut plan = mesh!().service("web", 8080, Some("http"));
    for number in 0..6 {
        let app = echoing().await;
        let pod = native(Pod::named(&format!("web-{number}")).serves(8080, app.address));
        plan = plan.pod(if number < 3 { pod } else { pod.later() });
        apps.push(Some(app));
    }
    let mut mesh = plan.pod(Pod::named("client-0").calls("web:8080")).start().await;
    let door = mesh.door("client-0", "web:8080");
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..8).map(|caller| tokio::spawn(load(door, stop.clone(), caller % 2 == 0))).collect();
    for old in 0..3 {
        let (old, new) = (format!("web-{old}"), format!("web-{}", old + 3));
        mesh.stand(&new, Standing::Unready);
        mesh.start_sidecar(&new).await;
        mesh.stand(&new, Standing::Ready);
        let served =
            || async { mesh.sidecar(&new).metric("weft_requests_total", &["inbound", "\"200\""]).await };
        until("the new pod has its share", async || (served().await > 10.0).then_some(())).await;
        // The application closes its listener and its connections at once, while everybody still calls it;
        // only then does the word spread, and only when nothing of it is left does its sidecar go.
        let at: usize = old.rsplit('-').next().unwrap().parse().unwrap();
        apps[at] = None;
        let refused =
            || async { mesh.sidecar(&old).metric("weft_refusals_total", &["connect_refused"]).await };
        let met = async || (refused().await > 0.0).then_some(());
        until_within(FORGOTTEN, "somebody met the closed door", met).await;
        mesh.stand(&old, Standing::Unready);
        let mut leaving = mesh.take_sidecar(&old);
        leaving.terminate();
        assert!(leaving.ended().await.success());
    }
    stop.store(true, Ordering::SeqCst);
    let (mut good, mut bad) = (0, Vec::new());
    for caller in callers {
        let (more, lost) = in_time("a caller ends", caller).await.unwrap();
        good += more;
        bad.extend(lost);
    }
    assert!(bad.is_empty(), "{} of {} failed: {:?}", bad.len(), good, &bad[..bad.len().min(5)]);
    assert!(good > 100, "only {good} requests: the test shows nothing");
}

#[tokio::test]
async fn a_native_sidecar_with_nothing_left_to_serve_ends_without_lingering() {
    let slow = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {accessLog: All, drain: {linger: 10m, deadline: 10m}}
";
    let app = App::saying("done").await;
    let mut mesh = mesh!()
        .manifest("mesh.yaml", slow)
        .service("web", 8080, Some("http"))
        .pod(Pod::named("job-0").calls("web:8080").switch("--native-sidecar"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .start()
        .await;
    let mut http = Http::open(mesh.door("job-0", "web:8080")).await;
    assert_eq!(http.get("/").await.unwrap().status, 200);
    let mut sidecar = mesh.take_sidecar("job-0");
    sidecar.terminate();
    // The connection that is still open keeps it no longer than a request would.
    assert!(sidecar.ended().await.success());
}
