//! Against a collector of the real protocol, alive, dead, and talking nonsense.

use super::*;
use crate::access_log::AccessLog;
use crate::metrics::edge::{Direction, EdgeLabels, Party, Protocol, Security};
use crate::record::{Ending, Head, Ledger, Record, Telemetry};
use crate::trace::Sampling;
use crate::trace::context::inject;
use crate::trace::span::Spans;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as ProtoKeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::DropGuard;
use weft_proxy_core::spec::TraceProtocol;
use weft_proxy_core::{Identity, Moment, Name, Reason};

struct Taker(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Taker(sender));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (endpoint, receiver)
}

struct Bench {
    telemetry: Telemetry,
    ledger: Ledger,
    task: tokio::task::JoinHandle<()>,
    collector: watch::Sender<Option<Arc<TraceExport>>>,
    stop: DropGuard,
}

fn exporting(endpoint: String) -> Bench {
    exporting_to(Some(Arc::new(to(&endpoint, TraceProtocol::OtlpGrpc))))
}

fn to(endpoint: &str, protocol: TraceProtocol) -> TraceExport {
    TraceExport {
        endpoint: endpoint.into(),
        protocol,
        headers: vec![("x-key".into(), "k3y".into())],
        ca_bundle: "".into(),
        timeout: None,
    }
}

fn exporting_to(collector: Option<Arc<TraceExport>>) -> Bench {
    let (spans, queue) = Spans::queue();
    let sampling = Arc::new(Sampling::default());
    sampling.set(1_000_000, 0);
    let telemetry = Telemetry {
        decisions: crate::record::ring::Decisions::default(),
        signs_all: Arc::default(),
        counts_traffic: true,
        clock: Clock::start(),
        metrics: Arc::default(),
        log: AccessLog::default(),
        spans,
        sampling,
        taps: Arc::default(),
    };
    let origin = Origin {
        pod: "shop-7d4b9c6f5d-x2x4k".into(),
        namespace: "web".into(),
        zone: "zone-a".into(),
        ..Origin::default()
    };
    let stop = CancellationToken::new();
    let (collector, receiver) = watch::channel(collector);
    let export = Export {
        collector: receiver,
        origin: Arc::new(ArcSwap::from_pointee(origin)),
        metrics: Arc::clone(&telemetry.metrics),
        clock: telemetry.clock.clone(),
        stop: stop.clone(),
    };
    let task = tokio::spawn(run(export, queue));
    Bench { ledger: Ledger::new(&telemetry, 0), telemetry, task, collector, stop: stop.drop_guard() }
}

impl Bench {
    fn open(
        &self,
        direction: Direction,
        protocol: Protocol,
        target: &'static str,
        headers: &HeaderMap,
    ) -> Record {
        let uri = Uri::from_static(target);
        let head = Head { protocol, method: &Method::GET, uri: &uri, version: Version::HTTP_2, headers };
        self.ledger.open(direction, head, Some("10.1.1.1:999".parse().unwrap()), self.ledger.clock().now())
    }

    fn edge(&self, direction: Direction, protocol: Protocol) -> Arc<crate::metrics::edge::Edge> {
        let party = |name: &str| Party {
            workload: Name::from(name),
            namespace: Name::from("web"),
            identity: Identity::parse(&format!("spiffe://cluster.local/ns/web/sa/{name}")).ok(),
        };
        self.ledger.edge(&EdgeLabels {
            direction,
            protocol,
            security: Security::MutualTls,
            source: party("shop"),
            destination: party("catalog"),
            service: Name::from("web/catalog:80"),
            route: Name::from("web/to-catalog"),
        })
    }

    fn now(&self) -> Moment {
        self.ledger.clock().now()
    }

    /// Ends the exporter and gives everything it sent.
    async fn end(
        self,
        mut received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    ) -> Vec<ExportTraceServiceRequest> {
        drop(self.stop);
        within(self.task).await.unwrap();
        let mut requests = Vec::new();
        while let Ok(request) = received.try_recv() {
            requests.push(request);
        }
        requests
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

fn spans(requests: &[ExportTraceServiceRequest]) -> Vec<Span> {
    let resources = requests.iter().flat_map(|request| &request.resource_spans);
    resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
}

fn attribute(attributes: &[ProtoKeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

fn check(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(attribute(&span.attributes, key).as_deref(), Some(*value), "{key} of {span:?}");
    }
}

fn check_resource(requests: &[ExportTraceServiceRequest]) {
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    for (key, value) in [
        ("service.name", "shop"),
        ("service.namespace", "web"),
        ("k8s.pod.name", "shop-7d4b9c6f5d-x2x4k"),
        ("cloud.availability_zone", "zone-a"),
    ] {
        assert_eq!(attribute(&resource.attributes, key).as_deref(), Some(value));
    }
}

/// A request through two sidecars whose first attempt fails.
fn walk(bench: &Bench) {
    let outbound = bench.edge(Direction::Outbound, Protocol::Http);
    let mut client =
        bench.open(Direction::Outbound, Protocol::Http, "http://catalog:8080/items/7", &HeaderMap::new());
    let first = client.attempt(&outbound, "10.0.0.1:80".parse().unwrap(), bench.now());
    assert!(first.is_some());
    client.attempt_over(None, Some(Reason::ConnectRefused), bench.now());
    let second = client.attempt(&outbound, "10.0.0.2:80".parse().unwrap(), bench.now()).unwrap();
    let mut headers = HeaderMap::new();
    inject(&second, &mut headers);

    let mut server = bench.open(Direction::Inbound, Protocol::Http, "/items/7?q=secret", &headers);
    server.edge(&bench.edge(Direction::Inbound, Protocol::Http));
    server.answered(StatusCode::NOT_FOUND, &HeaderMap::new(), bench.now());
    server.close(Ending::Complete, bench.now());
    client.answered(StatusCode::NOT_FOUND, &HeaderMap::new(), bench.now());
    client.close(Ending::Complete, bench.now());
}

#[tokio::test]
async fn one_request_through_two_sidecars_is_one_trace_with_right_parents() {
    let (endpoint, received) = collector().await;
    let bench = exporting(endpoint);
    walk(&bench);
    let requests = bench.end(received).await;
    check_resource(&requests);
    let spans = spans(&requests);
    assert_eq!(spans.len(), 4);
    assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id && span.trace_id.len() == 16));
    assert!(spans.iter().all(|span| span.name == "GET web/to-catalog"), "{spans:?}");
    let by_id = |id: &[u8]| spans.iter().find(|span| span.span_id == id).unwrap();
    let server = spans.iter().find(|span| span.kind == SpanKind::Server as i32).unwrap();
    let taken = by_id(&server.parent_span_id);
    let client = by_id(&taken.parent_span_id);
    assert!(client.parent_span_id.is_empty(), "{client:?}");
    let failed =
        spans.iter().find(|s| s.parent_span_id == client.span_id && s.span_id != taken.span_id).unwrap();

    check(
        server,
        &[
            ("http.request.method", "GET"),
            ("url.path", "/items/7"),
            ("http.response.status_code", "404"),
            ("network.protocol.version", "2"),
            ("weft.direction", "inbound"),
            ("weft.source.identity", "spiffe://cluster.local/ns/web/sa/shop"),
        ],
    );
    assert_eq!(
        server.status.as_ref().map_or(0, |s| s.code),
        SpanStatus::Unset as i32,
        "a 4xx is the caller's"
    );
    check(
        client,
        &[
            ("server.address", "catalog"),
            ("server.port", "8080"),
            ("weft.attempts", "2"),
            ("weft.route", "web/to-catalog"),
            ("weft.destination.identity", "spiffe://cluster.local/ns/web/sa/catalog"),
            ("error.type", "404"),
        ],
    );
    assert_eq!(client.status.as_ref().unwrap().code, SpanStatus::Error as i32);
    assert_eq!(client.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["retry"]);
    check(
        failed,
        &[("weft.attempt", "1"), ("weft.reason", "connect_refused"), ("weft.endpoint", "10.0.0.1:80")],
    );
    check(
        taken,
        &[("weft.attempt", "2"), ("http.request.resend_count", "1"), ("network.peer.address", "10.0.0.2")],
    );
    assert!(client.start_time_unix_nano <= failed.start_time_unix_nano);
    assert!(failed.end_time_unix_nano <= taken.start_time_unix_nano);
    assert!(taken.end_time_unix_nano <= client.end_time_unix_nano);
    assert!(!format!("{spans:?}").contains("secret"), "no query");
}

#[tokio::test]
async fn a_grpc_call_is_named_by_its_method_and_marked_by_its_status() {
    let (endpoint, received) = collector().await;
    let bench = exporting(endpoint);
    let mut record = bench.open(Direction::Inbound, Protocol::Grpc, "/shop.Catalog/List", &HeaderMap::new());
    record.edge(&bench.edge(Direction::Inbound, Protocol::Grpc));
    record.answered(StatusCode::OK, &HeaderMap::new(), bench.now());
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("14"),
    )]);
    record.trailers(&trailers);
    record.close(Ending::Complete, bench.now());
    let spans = spans(&bench.end(received).await);
    assert_eq!(spans[0].name, "shop.Catalog/List");
    check(
        &spans[0],
        &[
            ("rpc.system.name", "grpc"),
            ("rpc.method", "shop.Catalog/List"),
            ("rpc.response.status_code", "UNAVAILABLE"),
            ("error.type", "UNAVAILABLE"),
        ],
    );
    assert_eq!(spans[0].status.as_ref().unwrap().code, SpanStatus::Error as i32);
}

#[tokio::test]
async fn spans_arrive_without_being_asked_for() {
    let (endpoint, mut received) = collector().await;
    let bench = exporting(endpoint);
    bench
        .open(Direction::Inbound, Protocol::Http, "/", &HeaderMap::new())
        .close(Ending::Complete, bench.now());
    let request = within(received.recv()).await.unwrap();
    assert_eq!(spans(&[request]).len(), 1);
}

#[tokio::test]
async fn a_dead_collector_costs_spans_which_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bench = exporting(endpoint);
    for _ in 0..700 {
        bench
            .open(Direction::Inbound, Protocol::Http, "/", &HeaderMap::new())
            .close(Ending::Complete, bench.now());
    }
    let metrics = Arc::clone(&bench.telemetry.metrics);
    drop(bench.stop);
    within(bench.task).await.unwrap();
    assert_eq!(metrics.plain().dropped(Dropped::SpanExport).read(), 700);
    assert_eq!(metrics.plain().spans_exported.read(), 0);
}

#[tokio::test]
async fn a_collector_that_talks_nonsense_costs_spans_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0; 64];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(&[0xff; 4_096]).await;
        }
    });
    let bench = exporting(endpoint);
    bench
        .open(Direction::Inbound, Protocol::Http, "/", &HeaderMap::new())
        .close(Ending::Complete, bench.now());
    let metrics = Arc::clone(&bench.telemetry.metrics);
    drop(bench.stop);
    within(bench.task).await.unwrap();
    assert_eq!(metrics.plain().dropped(Dropped::SpanExport).read(), 1);
}

/// A collector of HTTP: gives each request's head and body, and answers.
async fn listener(answer: &'static str) -> (String, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, answer, sender.clone()));
        }
    });
    (endpoint, receiver)
}

async fn answer_all(
    mut stream: tokio::net::TcpStream,
    answer: &'static str,
    seen: mpsc::UnboundedSender<(String, Vec<u8>)>,
) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let whole = end + 4 + length.parse::<usize>().unwrap();
        if bytes.len() < whole {
            continue;
        }
        let body = bytes.drain(..whole).skip(end + 4).collect();
        seen.send((head, body)).unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn otlp_over_http_is_the_same_message_with_the_policys_fields() {
    let (endpoint, mut received) = listener(TAKEN).await;
    let bench = exporting_to(Some(Arc::new(to(&endpoint, TraceProtocol::OtlpHttp))));
    walk(&bench);
    let metrics = Arc::clone(&bench.telemetry.metrics);
    drop(bench.stop);
    within(bench.task).await.unwrap();
    let (head, body) = received.recv().await.unwrap();
    for expected in ["post /v1/traces http/1.1", "content-type: application/x-protobuf", "x-key: k3y"] {
        assert!(head.contains(expected), "{head}");
    }
    let request = <ExportTraceServiceRequest as prost::Message>::decode(&*body).unwrap();
    check_resource(std::slice::from_ref(&request));
    assert_eq!(spans(&[request]).len(), 4);
    assert_eq!(metrics.plain().spans_exported.read(), 4);
}

#[tokio::test]
async fn zipkin_gets_its_json() {
    let (endpoint, mut received) = listener("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
    let bench = exporting_to(Some(Arc::new(to(&endpoint, TraceProtocol::Zipkin))));
    walk(&bench);
    drop(bench.stop);
    within(bench.task).await.unwrap();
    let (head, body) = received.recv().await.unwrap();
    assert!(head.contains("post /api/v2/spans http/1.1"), "{head}");
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let told = told.as_array().unwrap();
    assert_eq!(told.len(), 4);
    let server = told.iter().find(|span| span["kind"] == "SERVER").unwrap();
    let attempt = told.iter().find(|span| span["id"] == server["parentId"]).unwrap();
    assert_eq!((&attempt["kind"], &attempt["traceId"]), (&"CLIENT".into(), &server["traceId"]));
    assert_eq!(attempt["remoteEndpoint"], serde_json::json!({"ipv4": "10.0.0.2", "port": 80}));
    let client = told.iter().find(|span| span["id"] == attempt["parentId"]).unwrap();
    assert_eq!((client["parentId"].is_null(), &client["tags"]["error"]), (true, &"404".into()));
    assert_eq!(client["annotations"][0]["value"], "retry");
    assert_eq!(
        (&client["name"], &client["localEndpoint"]["serviceName"]),
        (&"GET web/to-catalog".into(), &"shop".into())
    );
    assert!(
        client["timestamp"].as_u64() > Some(1_700_000_000_000_000) && client["duration"].as_u64() >= Some(1)
    );
    assert_eq!(client["tags"]["k8s.pod.name"], "shop-7d4b9c6f5d-x2x4k");
}

fn one(bench: &Bench) {
    bench
        .open(Direction::Inbound, Protocol::Http, "/", &HeaderMap::new())
        .close(Ending::Complete, bench.now());
}

#[tokio::test]
async fn another_collector_is_taken_while_it_runs_and_nothing_is_lost_in_silence() {
    let (first, mut at_first) = listener(TAKEN).await;
    let (second, mut at_second) = collector().await;
    let bench = exporting_to(Some(Arc::new(to(&first, TraceProtocol::OtlpHttp))));
    one(&bench);
    within(at_first.recv()).await.unwrap();
    bench.collector.send_replace(Some(Arc::new(to(&second, TraceProtocol::OtlpGrpc))));
    one(&bench);
    assert_eq!(spans(&[within(at_second.recv()).await.unwrap()]).len(), 1);
    let metrics = Arc::clone(&bench.telemetry.metrics);
    bench.collector.send_replace(None);
    one(&bench);
    drop(bench.stop);
    within(bench.task).await.unwrap();
    assert!(at_first.try_recv().is_err() && at_second.try_recv().is_err());
    assert_eq!(
        (metrics.plain().spans_exported.read(), metrics.plain().dropped(Dropped::SpanExport).read()),
        (2, 1)
    );
}

#[tokio::test]
async fn a_collector_that_was_dead_is_left_for_another_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (alive, mut received) = collector().await;
    let bench = exporting(dead);
    let metrics = Arc::clone(&bench.telemetry.metrics);
    one(&bench);
    within(async {
        while metrics.plain().dropped(Dropped::SpanExport).read() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    bench.collector.send_replace(Some(Arc::new(to(&alive, TraceProtocol::OtlpGrpc))));
    one(&bench);
    assert_eq!(spans(&[within(received.recv()).await.unwrap()]).len(), 1);
}

#[tokio::test]
async fn a_collector_that_refuses_is_told_of_in_numbers() {
    let busy = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 5\r\n\r\nlater";
    let (endpoint, mut received) = listener(busy).await;
    let bench = exporting_to(Some(Arc::new(to(&endpoint, TraceProtocol::Zipkin))));
    one(&bench);
    within(received.recv()).await.unwrap();
    let metrics = Arc::clone(&bench.telemetry.metrics);
    drop(bench.stop);
    within(bench.task).await.unwrap();
    assert_eq!(metrics.plain().dropped(Dropped::SpanExport).read(), 1);
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    for protocol in [TraceProtocol::OtlpGrpc, TraceProtocol::OtlpHttp, TraceProtocol::Zipkin] {
        let timeout = Some(Duration::from_millis(50));
        let bench = exporting_to(Some(Arc::new(TraceExport { timeout, ..to(&endpoint, protocol) })));
        one(&bench);
        let metrics = Arc::clone(&bench.telemetry.metrics);
        drop(bench.stop);
        within(bench.task).await.unwrap();
        assert_eq!(metrics.plain().dropped(Dropped::SpanExport).read(), 1, "{protocol:?}");
    }
    drop(listener);
}

#[test]
fn a_collector_that_cannot_be_used_is_refused_with_advice() {
    for endpoint in ["", "jaeger:4317", "https://jaeger:4317", "http://", "http://a b", "ftp://jaeger"] {
        for protocol in [TraceProtocol::OtlpGrpc, TraceProtocol::OtlpHttp, TraceProtocol::Zipkin] {
            let error = Collector::new(&to(endpoint, protocol), &Arc::default()).unwrap_err();
            assert!(error.to_string().contains("http://jaeger:4317"), "{endpoint}: {error}");
        }
    }
    let odd = TraceExport {
        ca_bundle: "-----BEGIN CERTIFICATE-----".into(),
        ..to("https://a", TraceProtocol::Zipkin)
    };
    assert!(Collector::new(&odd, &Arc::default()).unwrap_err().to_string().contains("roots"));
}
