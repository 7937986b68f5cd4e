//! What a TelemetryPolicy says of traces is in force at once, without a restart.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use weft_tests::collector::{Certified, Jaeger};
use weft_tests::mesh::{App, Http, reply, until};

use super::{Chain, jaeger, policy};

fn spans(of: &Jaeger) -> String {
    format!("export: {{endpoint: '{}'}}", of.grpc())
}

#[tokio::test]
async fn a_first_visit_finds_a_trace_and_a_flood_adds_few() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let chain = Chain::start(true, &policy(&spans(&jaeger))).await;
    assert_eq!(chain.ask("/", &[]).await.0, 200);
    let trace = jaeger.trace_of("back-0", |trace| trace.spans.len() == 6).await;
    assert_eq!(trace.spans[0].tag("weft.trace.kept"), "rate", "{trace:#?}");
    let started = std::time::Instant::now();
    let mut http = Http::open(chain.mesh.door("client-0", "front:8080")).await;
    for _ in 0..300 {
        assert_eq!(http.get("/").await.unwrap().status, 200);
    }
    let most = usize::try_from(started.elapsed().as_secs()).unwrap() + 3;
    // A trace that is kept later says that those before have arrived.
    let (id, _) = chain.traced("/last").await;
    jaeger.trace(&id, |trace| trace.spans.len() == 6).await;
    let kept = jaeger.traces_of("client-0").await.len() - 1;
    assert!((1..=most).contains(&kept), "{kept} of 301 in {most} s");
}

#[tokio::test]
async fn collector_and_sampling_change_while_sidecars_run() {
    let Some(program) = jaeger() else { return };
    let (first, second) = (Jaeger::start(&program).await, Jaeger::start(&program).await);
    let chain = Chain::start(true, &policy(&spans(&first))).await;
    let (id, _) = chain.traced("/").await;
    first.trace(&id, |trace| trace.spans.len() == 6).await;
    // Another collector, by another protocol.
    let other = format!("export: {{endpoint: '{}', protocol: OtlpHttp}}, samplingPercent: 0", second.http());
    chain.mesh.save("telemetry.yaml", &policy(&other));
    until("the second collector is told", async || {
        let (id, _) = chain.traced("/").await;
        // What comes while the change spreads may go to either.
        tokio::time::timeout(Duration::from_secs(3), second.trace(&id, |trace| trace.spans.len() == 6))
            .await
            .ok()
    })
    .await;
    // Nobody asks for these, and the share is none.
    let before = second.traces_of("client-0").await.len();
    for _ in 0..20 {
        assert_eq!(chain.ask("/", &[]).await.0, 200);
    }
    let (id, _) = chain.traced("/last").await;
    second.trace(&id, |trace| trace.spans.len() == 6).await;
    assert_eq!(second.traces_of("client-0").await.len(), before + 1);
    // Everything is kept from here on.
    chain.mesh.save("telemetry.yaml", &policy(&other.replace("samplingPercent: 0", "samplingPercent: 100")));
    until("requests are kept without being asked for", async || {
        assert_eq!(chain.ask("/", &[]).await.0, 200);
        let of = |trace: &weft_tests::collector::Trace| {
            trace.spans.len() == 6 && trace.spans[0].tag("weft.trace.kept") == "share"
        };
        second.traces_of("client-0").await.into_iter().find(of)
    })
    .await;
    // And nothing once there is no collector: no field of a trace reaches anybody.
    chain.mesh.delete("telemetry.yaml");
    until("nothing is told any more", async || {
        let lines = chain.mesh.sidecar("back-0").log().len();
        assert_eq!(chain.ask("/", &[]).await.0, 200);
        let line = until("a line", async || chain.mesh.sidecar("back-0").log().get(lines).cloned()).await;
        line["trace.id"].is_null().then_some(())
    })
    .await;
    let dropped = chain.mesh.sidecar("front-0").metric("weft_telemetry_dropped_total", &["span"]).await;
    assert!(dropped < 10.0, "{dropped} at most of the moment of the last change");
}

#[tokio::test]
async fn an_error_is_told_although_its_trace_is_not_kept() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let back =
        App::http(|request| async move { reply(if request.uri().path() == "/bad" { 500 } else { 200 }, "") });
    let none = format!("{}, samplingPercent: 0", spans(&jaeger));
    let chain = Chain::over(back.await, true, &policy(&none), |plan| plan).await;
    assert_eq!(chain.ask("/good", &[]).await.0, 200);
    assert_eq!(chain.ask("/bad", &[]).await.0, 500);
    for pod in ["client-0", "front-0", "back-0"] {
        let trace = jaeger.trace_of(pod, |_| true).await;
        let span = trace.find("error", |span| span.service == pod);
        assert_eq!(
            (span.tag("weft.trace.kept"), span.failed(), span.tag("url.path")),
            ("error", true, "/bad"),
            "{span:#?}"
        );
    }
    assert_eq!(jaeger.traces_of("back-0").await.len(), 1, "what went well is not told");
}

#[tokio::test]
async fn attributes_come_from_header_fields() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let named = "attributes: [{name: app.tenant, header: X-Tenant}], samplingPercent: 100";
    let chain = Chain::start(true, &policy(&format!("{}, {named}", spans(&jaeger)))).await;
    assert_eq!(chain.ask("/", &[("x-tenant", "acme")]).await.0, 200);
    let trace = jaeger.trace_of("client-0", |trace| trace.spans.len() == 6).await;
    let first = trace.find("first", |span| span.parent.is_empty());
    assert_eq!(first.tag("app.tenant"), "acme", "{first:#?}");
}

#[tokio::test]
async fn calls_of_an_application_that_forwards_nothing_join_the_one_request_in_flight() {
    let Some(program) = jaeger() else { return };
    let jaeger = Jaeger::start(&program).await;
    let apart = format!("{}, samplingPercent: 100", spans(&jaeger));
    let chain = Chain::start(false, &policy(&apart)).await;
    let (id, _) = chain.traced("/").await;
    let broken = jaeger.trace(&id, |trace| trace.spans.len() >= 3).await;
    assert!(broken.spans.iter().all(|span| span.service != "back-0"), "{broken:#?}");
    chain.mesh.save("telemetry.yaml", &policy(&format!("{apart}, joinSingleFlight: true")));
    let trace = until("calls are joined", async || {
        let (id, _) = chain.traced("/").await;
        tokio::time::timeout(Duration::from_secs(3), jaeger.trace(&id, |trace| trace.spans.len() == 6))
            .await
            .ok()
    })
    .await;
    let call = trace.find("guess", |span| !span.tag("weft.trace.guessed").is_empty());
    assert_eq!((call.tag("weft.trace.guessed"), call.service.as_str()), ("true", "front-0"), "{call:#?}");
    let parent = trace.parent(call);
    assert_eq!((parent.service.as_str(), parent.tag("span.kind")), ("front-0", "server"));
    assert_eq!(trace.find("last", |span| span.service == "back-0").tag("weft.trace.kept"), "caller");
}

#[tokio::test]
async fn a_collector_by_https_is_verified_by_the_policys_roots() {
    let Some(program) = jaeger() else { return };
    let root = authority("the collectors' root");
    let folder = std::env::temp_dir().join(format!("weft-collector-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let jaeger = Jaeger::start_with(&program, |ip| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![ip.to_string()]).unwrap().signed_by(&key, &root).unwrap();
        let (certificate, at) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, leaf.pem()).unwrap();
        std::fs::write(&at, key.serialize_pem()).unwrap();
        Some(Certified { certificate, key: at })
    })
    .await;
    let secure = |endpoint: &str, protocol: &str, roots: &str| {
        let pem = serde_json::to_string(roots).unwrap();
        policy(&format!("export: {{endpoint: '{endpoint}', protocol: {protocol}, caBundle: {pem}}}"))
    };
    let chain = Chain::start(true, &secure(&jaeger.grpc(), "OtlpGrpc", &root.pem())).await;
    let (id, _) = chain.traced("/").await;
    jaeger.trace(&id, |trace| trace.spans.len() == 6).await;
    chain.mesh.save("telemetry.yaml", &secure(&jaeger.http(), "OtlpHttp", &root.pem()));
    until("by HTTP too", async || {
        let (id, _) = chain.traced("/").await;
        tokio::time::timeout(Duration::from_secs(3), jaeger.trace(&id, |trace| trace.spans.len() == 6))
            .await
            .ok()
    })
    .await;
    // Another root's word is not taken: spans are dropped, requests go on.
    chain.mesh.save("telemetry.yaml", &secure(&jaeger.grpc(), "OtlpGrpc", &authority("another").pem()));
    until("nothing is told to a stranger", async || {
        assert_eq!(chain.traced("/").await.1, 200);
        let labels = ["span", "export"];
        let dropped = chain.mesh.sidecar("back-0").metric("weft_telemetry_dropped_total", &labels).await;
        (dropped > 0.0).then_some(())
    })
    .await;
    let _ = std::fs::remove_dir_all(folder);
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}
