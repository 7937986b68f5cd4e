//! The access log as its readers have it: what a TelemetryPolicy changes at once, what never gets in, one
//! name for a request on both sides, and recipes that name no field which is not there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use weft_proxy::access_log::fields;
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Plan, Pod, reply, until};

fn pair(app: &App) -> Plan {
    mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
}

fn policy(app: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TelemetryPolicy\nmetadata: {{name: {app}, namespace: test}}\n\
         spec:\n  targetRefs: [{{kind: Workload, selector: {{app: {app}}}}}]\n{spec}"
    )
}

async fn get(mesh: &Mesh, path: &str, fields: &[(&str, &str)]) -> weft_tests::mesh::Answer {
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    let head = fields.iter().fold(Request::get(path), |head, (name, value)| head.header(*name, *value));
    http.send(head, Bytes::new()).await.unwrap()
}

#[tokio::test]
async fn a_policy_changes_the_names_and_what_of_a_head_is_written_at_once_and_never_a_credential() {
    let app = App::saying("welcome").await;
    let mesh = pair(&app).start().await;
    let asked = [("x-tenant", "blue"), ("cookie", "s3cret"), ("authorization", "s3cret")];
    get(&mesh, "/plain?page=2&token=s3cret", &asked).await;
    let client = mesh.sidecar("client-0");
    let plain = client.logged("a line", |line| line["http.path"] == "/plain").await;
    assert!(plain.get("http.query").is_none() && plain.get("header.tenant").is_none(), "{plain}");
    let told = "  responseHeaders: true\n  accessLog: {format: Ecs, query: [page], headers: [{name: tenant, header: x-tenant}]}\n";
    mesh.save("telemetry.yaml", &policy("client", told));
    let (answer, line) = until("the policy is in force", async || {
        let answer = get(&mesh, "/asked?page=2&token=s3cret", &asked).await;
        let name = answer.headers.get("weft-request-id")?.to_str().unwrap().to_owned();
        let line = client.logged("its line", |line| line["http.request.id"] == name.as_str()).await;
        // A request that began before the policy came is written under its names, with what was kept of it.
        (!line["url.query"].is_null()).then_some((answer, line))
    })
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        (&line["url.query"], &line["labels.tenant"]),
        (&"page=2&token=*".into(), &"blue".into()),
        "{line}"
    );
    assert_eq!((&line["url.path"], &line["event.outcome"]), (&"/asked".into(), &"success".into()), "{line}");
    assert!(line["own_ms"].is_null() && line["weft.own_ms"].is_number(), "{line}");
    for sidecar in [client, mesh.sidecar("web-0")] {
        let all: Vec<Value> = sidecar.log();
        assert!(!serde_json::to_string(&all).unwrap().contains("s3cret"), "{all:?}");
    }
}

#[tokio::test]
async fn which_requests_are_written_follows_the_narrowest_policy_and_the_pods_own_word_first() {
    let app = App::http(|request| async move {
        let status = if request.uri().path() == "/broken" { 500 } else { 200 };
        reply(status, "so it is")
    })
    .await;
    let own = Pod::named("loud-0").calls("web:8080").flag("--access-log", "all");
    let mesh = pair(&app)
        .pod(own)
        .manifest(
            "telemetry.yaml",
            "apiVersion: weft.dev/v1alpha1\nkind: TelemetryPolicy\nmetadata: {name: all, namespace: test}\n\
             spec: {targetRefs: [{kind: Namespace}], accessLog: {mode: Errors}}\n",
        )
        .manifest("web.yaml", &policy("web", "  accessLog: {mode: Off}\n"))
        .start()
        .await;
    for path in ["/fine", "/broken"] {
        for pod in ["client-0", "loud-0"] {
            Http::once(mesh.door(pod, "web:8080"), path).await.unwrap();
        }
    }
    let paths = |pod: &str| -> Vec<String> {
        mesh.sidecar(pod).log().iter().map(|line| line["http.path"].as_str().unwrap().to_owned()).collect()
    };
    mesh.sidecar("loud-0").logged("the last", |line| line["http.path"] == "/broken").await;
    mesh.sidecar("client-0").logged("the error", |line| line["http.path"] == "/broken").await;
    assert_eq!(paths("loud-0"), ["/fine", "/broken"]);
    assert_eq!(paths("client-0"), ["/broken"]);
    assert_eq!(paths("web-0"), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_has_one_name_on_both_sides_and_its_caller_may_give_it() {
    let app = App::http(|request| async move {
        let name = request.headers().get("x-request-id").map(|name| name.to_str().unwrap().to_owned());
        reply(200, name.unwrap_or_default())
    })
    .await;
    let mesh = pair(&app).start().await;
    let made = get(&mesh, "/made", &[]).await.body;
    assert_eq!(made.len(), 32, "{made}");
    assert_eq!(get(&mesh, "/given", &[("x-request-id", "order-17")]).await.body, "order-17");
    for pod in ["client-0", "web-0"] {
        for (path, name) in [("/made", made.as_str()), ("/given", "order-17")] {
            let line = mesh.sidecar(pod).logged("a line", |line| line["http.path"] == path).await;
            assert_eq!(line["request.id"], name, "{line}");
        }
    }
}

/// Words in double quotes, without the quotes of a JSON path.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(|word| word.trim_matches('\\').to_owned())
}

#[test]
fn the_recipes_name_fields_that_are_there() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../observability/logs/");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}{name}")).unwrap();
    let weft: BTreeSet<&str> = fields::ALL.iter().map(|field| field.weft).collect();
    let mut ecs: BTreeSet<String> = fields::ALL.iter().map(|field| field.ecs.to_owned()).collect();
    for of in ["source", "destination"] {
        ecs.extend([format!("{of}.ip"), format!("{of}.port")]);
    }
    let template: Value = serde_json::from_str(&read("elasticsearch-template.json")).unwrap();
    for name in template["template"]["mappings"]["properties"].as_object().unwrap().keys() {
        assert!(ecs.contains(name), "the index template maps {name}");
    }
    let alloy = read("loki.alloy").replace("\\\"", "");
    let (_, expressions) = alloy.split_once("expressions = {").unwrap();
    let named: Vec<String> = quoted(expressions.split_once('}').unwrap().0).skip(1).step_by(2).collect();
    assert_eq!(named.len(), 7);
    for name in named {
        assert!(weft.contains(name.as_str()), "the recipe for Loki reads {name}");
    }
    let logstash = read("logstash.conf");
    let nested: Vec<String> = quoted(&logstash)
        .filter(|word| word.starts_with('[') && word.ends_with(']'))
        .map(|word| word.trim_matches(['[', ']']).replace("][", "."))
        .collect();
    assert_eq!(nested.len(), 4);
    for name in nested {
        assert!(ecs.contains(&name), "the recipe for Logstash converts {name}");
    }
    let filebeat = read("filebeat.yml");
    assert!(filebeat.contains("weft.kind") && ecs.contains("weft.kind"));
    for text in [&logstash, &read("loki.alloy")] {
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "braces:\n{text}");
    }
}
