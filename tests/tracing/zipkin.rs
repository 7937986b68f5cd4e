//! A real Zipkin takes traces in its own JSON.

use weft_cluster::{part, skip};
use weft_tests::collector::Zipkin;

use super::{Chain, policy};

#[tokio::test]
async fn zipkin_shows_the_same_trace() {
    let java = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("java"))
        .find(|java| java.is_file());
    let Some(java) = java else { return skip::say("there is no `java` in PATH") };
    let jar = match part::ZIPKIN.folder() {
        Ok(folder) => folder.join("zipkin.jar"),
        Err(error) => return skip::say(&format!("{error:#}")),
    };
    let zipkin = Zipkin::start(&java, &jar).await;
    let tracing = format!("export: {{endpoint: '{}', protocol: Zipkin}}", zipkin.endpoint());
    let chain = Chain::start(true, &policy(&tracing)).await;
    let (id, status) = chain.traced("/goods").await;
    assert_eq!(status, 200);
    let trace = zipkin.trace(&id, |trace| trace.spans.len() == 6).await;
    let back = trace.find("server", |span| span.service == "back-0");
    let attempt = trace.parent(back);
    let call = trace.parent(attempt);
    let front = trace.parent(call);
    assert_eq!((back.tag("span.kind"), attempt.tag("span.kind")), ("server", "client"));
    assert_eq!((call.service.as_str(), front.service.as_str()), ("front-0", "front-0"));
    assert_eq!((call.tag("weft.destination.service"), call.tag("url.path")), ("test/back:8080", "/goods"));
    assert_eq!(back.tag("weft.source.identity"), "spiffe://cluster.local/ns/test/sa/front");
    let edges = zipkin.ask(&format!("/api/v2/dependencies?endTs={}", now())).await;
    for (parent, child) in [("client-0", "front-0"), ("front-0", "back-0")] {
        let there =
            edges.as_array().unwrap().iter().any(|edge| edge["parent"] == parent && edge["child"] == child);
        assert!(there, "{parent} to {child}: {edges}");
    }
}

fn now() -> u128 {
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    soon.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}
