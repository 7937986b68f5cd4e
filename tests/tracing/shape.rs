//! What one request leaves in Jaeger: spans, parents, names, attributes, errors.

use std::time::Duration;

use http_body_util::BodyExt as _;
use weft_tests::collector::{Jaeger, Span, Trace};
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Pod, Wire, reply, until};

use super::{Chain, jaeger, policy, policy_of};

fn to(jaeger: &Jaeger) -> String {
    policy(&format!("export: {{endpoint: '{}'}}, samplingPercent: 100", jaeger.grpc()))
}

/// The goods go by `test/by-path`, a route of rules.
const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: by-path, namespace: test}
spec:
  parentRefs: [{kind: Service, group: '', name: back, port: 8080}]
  rules:
    - name: goods
      backendRefs: [{name: back, port: 8080}]
";

#[tokio::test]
async fn one_request_through_three_pods_is_one_trace_with_right_parents() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let back = App::saying("goods").await;
    let chain = Chain::over(back, true, &to(&jaeger), |plan| plan.manifest("route.yaml", ROUTE)).await;
    let (id, status) = chain.traced("/goods/7?secret=1").await;
    assert_eq!(status, 200);
    let trace = jaeger.trace(&id, |trace| trace.spans.len() == 6).await;
    let server = |service: &str| {
        trace.find("server span", |span| span.service == service && span.tag("span.kind") == "server")
    };
    // From the last to the first, each a child of the one before.
    let back = server("back-0");
    let attempt = trace.parent(back);
    let call = trace.parent(attempt);
    let front = trace.parent(call);
    let first = trace.parent(front);
    let client = trace.parent(first);
    assert_eq!(front.id, server("front-0").id);
    assert_eq!(client.parent, "00f067aa0ba902b7", "the application's own span");
    let services: Vec<&str> =
        [client, first, front, call, attempt, back].iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, ["client-0", "client-0", "front-0", "front-0", "front-0", "back-0"]);
    for span in [client, first, call, attempt] {
        assert_eq!(span.tag("span.kind"), "client", "{span:?}");
    }
    for (child, parent) in [(first, client), (front, first), (call, front), (attempt, call), (back, attempt)]
    {
        // A server may hear later than its client that all was delivered, so ends have no order.
        let within = child.start + SLACK >= parent.start && child.start <= ends(parent) + SLACK;
        assert!(within, "{child:?} in {parent:?}");
    }
    assert_eq!((call.name.as_str(), attempt.name.as_str()), ("GET test/by-path", "GET test/by-path"));
    assert_eq!((client.name.as_str(), front.name.as_str()), ("GET test/front:8080", "GET test/front:8080"));
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/goods/7"),
        ("weft.route", "test/by-path"),
        ("weft.rule", "goods"),
        ("weft.backend", "test/back:8080"),
        ("weft.destination.service", "test/back:8080"),
        ("weft.source.identity", "spiffe://cluster.local/ns/test/sa/front"),
        ("weft.destination.identity", "spiffe://cluster.local/ns/test/sa/back"),
        ("weft.security", "mutual_tls"),
        ("weft.attempts", "1"),
        ("weft.trace.kept", "caller"),
        ("k8s.pod.name", "front-0"),
        ("k8s.namespace.name", "test"),
        ("service.namespace", "test"),
    ] {
        assert_eq!(call.tag(name), value, "{name} of {call:#?}");
    }
    assert_eq!(attempt.tag("weft.attempt"), "1");
    assert_eq!(back.tag("weft.source.identity"), "spiffe://cluster.local/ns/test/sa/front");
    assert!(trace.spans.iter().all(|span| !span.failed()), "{trace:#?}");
    assert!(!format!("{trace:?}").contains("secret"), "a query is never told");
    let services = jaeger.ask("/api/services").await;
    for pod in ["client-0", "front-0", "back-0"] {
        assert!(services.as_array().unwrap().iter().any(|name| name == pod), "{services}");
    }
    let operations = jaeger.ask("/api/operations?service=front-0").await;
    let named = |name: &str, kind: &str| {
        operations.as_array().unwrap().iter().any(|it| it["name"] == name && it["spanKind"] == kind)
    };
    assert!(named("GET test/by-path", "client") && named("GET test/front:8080", "server"), "{operations}");
    let edges = jaeger.dependencies().await;
    for (parent, child) in [("client-0", "front-0"), ("front-0", "back-0")] {
        assert!(edges.contains(&(parent.to_owned(), child.to_owned())), "{edges:?}");
    }
}

fn ends(span: &Span) -> u64 {
    span.start + span.duration
}

/// Microseconds by which two processes' clocks may differ.
const SLACK: u64 = 5_000;

#[tokio::test]
async fn an_attempt_that_failed_is_a_span_beside_the_one_that_did_not() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let app = App::saying("goods").await;
    // Nobody listens behind the second endpoint's sidecar.
    let gone = App::saying("").await.address;
    let mesh = mesh!()
        .service("back", 8080, Some("http"))
        .pod(Pod::named("back-0").serves(8080, app.address))
        .pod(Pod::named("back-1").serves(8080, gone))
        .pod(Pod::named("client-0").calls("back:8080"))
        .manifest("telemetry.yaml", &to(&jaeger))
        .start()
        .await;
    let mut http = Http::open(mesh.door("client-0", "back:8080")).await;
    until("a request was tried again", async || {
        assert_eq!(http.get("/").await.unwrap().status, 200);
        let retries = mesh.sidecar("client-0").metric("weft_retries_total", &[]).await;
        (retries > 0.0).then_some(())
    })
    .await;
    let is_it = |span: &Span| span.events.iter().any(|event| event == "retry");
    let trace = jaeger.trace_of("client-0", |trace| trace.spans.iter().any(is_it)).await;
    let request = trace.find("request", is_it);
    let tries: Vec<_> =
        trace.children(request).into_iter().filter(|span| !span.tag("weft.attempt").is_empty()).collect();
    assert_eq!(tries.len(), 2, "{trace:#?}");
    let (first, second) = (tries[0], tries[1]);
    assert_eq!((first.tag("weft.attempt"), first.failed()), ("1", true));
    assert_eq!(first.tag("weft.reason"), "connect_refused", "{first:#?}");
    assert_eq!(first.tag("error.type"), "connect_refused");
    assert_eq!((second.tag("weft.attempt"), second.tag("http.request.resend_count")), ("2", "1"));
    assert_ne!(first.tag("weft.endpoint"), second.tag("weft.endpoint"));
    assert!(!second.failed() && !request.failed(), "{trace:#?}");
    assert_eq!((request.tag("weft.attempts"), request.tag("http.response.status_code")), ("2", "200"));
}

#[tokio::test]
async fn a_refusal_names_its_policy_and_a_4xx_is_the_clients_error_alone() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let deny = "\
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-front, namespace: test}
spec:
  targetRefs: [{kind: Service, name: back}]
  action: Deny
  rules: [{name: locked-out, from: [{serviceAccounts: [test/front]}]}]
";
    let back = App::saying("goods").await;
    let chain = Chain::over(back, true, &to(&jaeger), |plan| plan.manifest("deny.yaml", deny)).await;
    let (id, status) = chain.traced("/").await;
    assert_eq!(status, 403);
    let trace = jaeger.trace(&id, |trace| trace.spans.len() == 6).await;
    let back = trace.find("refusal", |span| span.service == "back-0");
    for (name, value) in [
        ("weft.policy", "test/no-front#locked-out"),
        ("weft.reason", "denied_by_policy"),
        ("weft.blame", "policy"),
        ("weft.flags", "UAEX"),
        ("http.response.status_code", "403"),
    ] {
        assert_eq!(back.tag(name), value, "{name} of {back:#?}");
    }
    assert!(!back.failed(), "a 4xx is no error of the server's: {back:#?}");
    let attempt = trace.parent(back);
    assert_eq!((attempt.failed(), attempt.tag("error.type")), (true, "403"), "{attempt:#?}");
}

#[tokio::test]
async fn a_deadline_that_passes_is_an_error_and_an_event() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: hurry, namespace: test}
spec:
  parentRefs: [{kind: Service, group: '', name: back, port: 8080}]
  rules: [{timeouts: {request: 2s}, backendRefs: [{name: back, port: 8080}]}]
";
    let back = App::http(|_| std::future::pending()).await;
    let chain = Chain::over(back, true, &to(&jaeger), |plan| plan.manifest("route.yaml", route)).await;
    let (id, status) = chain.traced("/").await;
    assert_eq!(status, 504);
    // The back's sidecar gives up what its caller gave up, so it tells of it too.
    let trace = jaeger.trace(&id, |trace| trace.spans.len() == 6).await;
    let call = trace
        .find("call", |span| span.tag("weft.route") == "test/hurry" && !span.tag("weft.attempts").is_empty());
    assert_eq!((call.failed(), call.tag("weft.reason")), (true, "request_timeout"), "{call:#?}");
    assert!(call.events.iter().any(|event| event == "timeout"), "{call:#?}");
    let front = trace.parent(call);
    assert!(front.failed(), "the application's 504 is an error of its own: {front:#?}");
}

#[tokio::test]
async fn an_ejection_and_what_follows_from_it_are_events_of_the_request_that_saw_them() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let outlier = "\
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: back, namespace: test}
spec:
  targetRefs: [{kind: Service, name: back}]
  outlier: {consecutiveFailures: 2, baseEjection: 60s, maxEjectedPercent: 100}
  fallback: {name: spare, port: 8080}
";
    let (broken, spare) = (App::http(|_| async { reply(503, "") }).await, App::saying("spare").await);
    let mesh = mesh!()
        .service("back", 8080, Some("http"))
        .service("spare", 8080, Some("http"))
        .pod(Pod::named("back-0").serves(8080, broken.address))
        .pod(Pod::named("spare-0").serves(8080, spare.address))
        .pod(Pod::named("client-0").calls("back:8080"))
        .manifest("outlier.yaml", outlier)
        .manifest("telemetry.yaml", &to(&jaeger))
        .start()
        .await;
    until("the fallback answers", async || {
        let answer = Http::once(mesh.door("client-0", "back:8080"), "/").await.unwrap();
        (answer.body == "spare").then_some(())
    })
    .await;
    for event in ["ejection", "fallback"] {
        let saw = |span: &Span| span.events.iter().any(|it| it == event);
        let fell_back = event == "fallback";
        let server = if fell_back { "spare-0" } else { "back-0" };
        let served = |span: &Span| span.service == server;
        let whole = |trace: &Trace| trace.spans.iter().any(saw) && trace.spans.iter().any(served);
        let trace = jaeger.trace_of("client-0", whole).await;
        let span = trace.find(event, saw);
        assert_eq!(span.failed(), !fell_back, "{span:#?}");
    }
}

#[tokio::test]
async fn relayed_bytes_have_spans_too() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let app = App::raw(|mut wire| async move {
        let _ = wire.try_until("\n").await;
        wire.send("row\n").await;
    });
    let app = app.await;
    let mesh = mesh!()
        .service("db", 5432, Some("tcp"))
        .pod(Pod::named("db-0").serves(5432, app.address))
        .pod(Pod::named("client-0").calls("db:5432"))
        .manifest("telemetry.yaml", &to(&jaeger))
        .start()
        .await;
    assert_eq!(Wire::ask(mesh.door("client-0", "db:5432"), "select\n").await, "row\n");
    for (service, kind, direction) in [("client-0", "client", "outbound"), ("db-0", "server", "inbound")] {
        let trace = jaeger.trace_of(service, |_| true).await;
        let span = trace.find("connection", |span| span.service == service);
        assert_eq!((span.name.as_str(), span.tag("span.kind")), ("tcp test/db:5432", kind), "{span:#?}");
        assert_eq!((span.tag("weft.bytes.up"), span.tag("weft.bytes.down")), ("7", "4"), "{span:#?}");
        assert_eq!((span.tag("weft.direction"), span.tag("network.transport")), (direction, "tcp"));
    }
}

#[tokio::test]
async fn b3_fields_are_read_and_passed_on() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let seen = App::http(|request| async move {
        let text =
            |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        reply(200, format!("{} {}", text("b3"), text("traceparent")))
    });
    let chain = Chain::over(seen.await, true, &to(&jaeger), |plan| plan).await;
    let id = super::trace_id();
    let mut http = Http::open(chain.mesh.door("client-0", "front:8080")).await;
    let request = http::Request::get("/").header("b3", format!("{id}-00f067aa0ba902b7-1"));
    let answer = http.send(request, bytes::Bytes::new()).await.unwrap();
    let mut told = answer.body.split(' ');
    let (b3, w3c) = (told.next().unwrap(), told.next().unwrap());
    assert!(b3.starts_with(&id) && w3c.starts_with(&format!("00-{id}-")), "{}", answer.body);
    let trace = jaeger.trace(&id, |trace| trace.spans.len() == 6).await;
    let last = trace.find("server", |span| span.service == "back-0");
    assert!(w3c.contains(&last.id), "the application's calls are children of {}: {w3c}", last.id);
}

#[tokio::test]
async fn a_workload_with_a_policy_of_its_own_is_traced_though_its_callers_are_not() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let tracing = format!("export: {{endpoint: '{}'}}, samplingPercent: 100", jaeger.grpc());
    let only = policy_of("back", "test", "kind: Workload, selector: {app: back}", &tracing);
    let chain = Chain::start(true, &only).await;
    assert_eq!(chain.ask("/", &[]).await.0, 200);
    let trace = jaeger.trace_of("back-0", |_| true).await;
    assert_eq!((trace.spans.len(), trace.spans[0].tag("weft.trace.kept")), (1, "share"), "{trace:#?}");
    assert_eq!(jaeger.ask("/api/services").await, serde_json::json!(["back-0"]));
}

#[tokio::test]
async fn grpc_calls_are_named_by_their_method() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    // A server that knows no method: what counts is how the call is told.
    let app = App::raw(|wire| async move {
        let service =
            hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let _ = request.into_body().collect().await;
                http::Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "14")
                    .body(http_body_util::Empty::<bytes::Bytes>::new())
            });
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(wire.into_stream());
        let _ = hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await;
    })
    .await;
    let mesh = mesh!()
        .service("shop", 8080, Some("kubernetes.io/h2c"))
        .pod(Pod::named("shop-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("shop:8080"))
        .manifest("telemetry.yaml", &to(&jaeger))
        .start()
        .await;
    let endpoint = format!("http://{}", mesh.door("client-0", "shop:8080"));
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().timeout(Duration::from_secs(20));
    let mut client = weft_tests::echo::echo_client::EchoClient::new(channel.connect().await.unwrap());
    let refused = client.say(weft_tests::echo::Note::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let trace = jaeger.trace_of("shop-0", |trace| trace.spans.len() >= 3).await;
    let server = trace.find("server", |span| span.service == "shop-0");
    assert!(trace.spans.iter().all(|span| span.name == "weft.test.Echo/Say"), "{trace:#?}");
    for (name, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.response.status_code", "UNAVAILABLE"),
        ("error.type", "UNAVAILABLE"),
    ] {
        assert_eq!(server.tag(name), value, "{server:#?}");
    }
    assert!(server.failed());
}
