//! Explaining by real sidecars: what they say of a request that nobody sent is what becomes of one that is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tonic::Code;
use weft_proto::v1;
use weft_proto::v1::explain_request::Destination;
use weft_proto::v1::finding::Found;
use weft_proto::v1::question::What;
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Plan, Pod, Visitor, reply, until};

/// A rule for what is slow, and a policy that denies `/vault`.
const RULES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: test}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
    - matches: [{path: {value: /slow}}]
      timeouts: {request: 9s}
      backendRefs: [{name: web, port: 8080}]
    - matches: [{path: {value: /vault}}, {path: {value: /open}}]
      backendRefs: [{name: web, port: 8080}]
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: vault, namespace: test}
spec:
  targetRefs: [{kind: Service, name: web}]
  action: Deny
  rules: [{name: closed, to: [{paths: [/vault]}]}]
";

fn plan(app: &App) -> Plan {
    mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .observer()
        .manifest("rules.yaml", RULES)
}

/// A question to the sidecar of a pod.
fn question(pod: &str, asked: v1::ExplainRequest) -> v1::Question {
    let subject = v1::Subject {
        kind: "pod".to_owned(),
        name: pod.to_owned(),
        namespace: "test".to_owned(),
        also: Vec::new(),
    };
    let namespace = "test".to_owned();
    v1::Question { namespace, subject: Some(subject), relayed: false, what: Some(What::Explain(asked)) }
}

/// The walk of a pod's sidecar, once it has one.
async fn walk(visitor: &Visitor, pod: &str, asked: v1::ExplainRequest) -> v1::Walk {
    until("a walk", async || {
        let found = visitor.ask(question(pod, asked.clone())).await.unwrap().all().await;
        found.into_iter().find_map(|finding| match finding.found {
            Some(Found::Walk(walk)) => Some(walk),
            _ => None,
        })
    })
    .await
}

/// What both sides' sidecars say of a GET.
async fn explained(visitor: &Visitor, path: &str) -> (v1::Walk, Option<v1::Walk>) {
    let asked = v1::ExplainRequest {
        side: v1::ExplainSide::Outbound.into(),
        destination: Some(Destination::ServicePort("test/web:8080".to_owned())),
        target: path.to_owned(),
        authority: "web".to_owned(),
        ..v1::ExplainRequest::default()
    };
    let there = walk(visitor, "client-0", asked).await;
    let Some(onward) = there.onward.first() else { return (there, None) };
    assert_eq!(onward.endpoints[0].workload, "test/web-0");
    let mut sent = onward.sent.clone().unwrap();
    assert_eq!(sent.peer_identity, "spiffe://cluster.local/ns/test/sa/client");
    sent.destination = Some(Destination::Port(8080));
    let here = walk(visitor, "web-0", sent).await;
    (there, Some(here))
}

async fn get(mesh: &Mesh, path: &str) -> u16 {
    Http::once(mesh.door("client-0", "web:8080"), path).await.unwrap().status
}

#[tokio::test]
async fn what_sidecars_say_of_a_request_is_what_becomes_of_it() {
    let app = App::http(|_| async { reply(200, "told") }).await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    for path in ["/slow/1", "/open", "/vault", "/elsewhere"] {
        let (there, here) = explained(&visitor, path).await;
        let last = here.unwrap_or(there).outcome.unwrap();
        let status = if last.end() == v1::WalkEnd::Forward { 200 } else { last.status };
        assert_eq!(u32::from(get(&mesh, path).await), status, "{path}: {last:?}");
    }
    let (slow, _) = explained(&visitor, "/slow").await;
    let timeout = slow.steps.iter().find(|step| step.what == "request timeout").unwrap();
    assert_eq!((timeout.why.as_str(), timeout.field.as_str()), ("9s", "spec.rules[0].timeouts.request"));
    let (_, vault) = explained(&visitor, "/vault").await;
    let vault = vault.unwrap();
    let authorize = vault.steps.iter().find(|step| step.room == "authorize").unwrap();
    let by = authorize.origin.as_ref().unwrap();
    assert_eq!((by.name.as_str(), authorize.field.as_str()), ("vault", "spec.rules[name=closed]"));
}

#[tokio::test]
async fn a_sidecar_shows_how_its_balancer_stands() {
    let app = App::http(|_| async { reply(503, "down") }).await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    get(&mesh, "/open").await;
    let (there, _) = explained(&visitor, "/open").await;
    let balance = there.steps.iter().find(|step| step.room == "balance").unwrap();
    assert!(balance.why.contains("as the sidecar sees it now"), "{balance:?}");
}

#[tokio::test]
async fn who_may_not_look_is_not_told_and_a_question_about_nobody_is_refused() {
    let app = App::http(|_| async { reply(200, "told") }).await;
    let mesh = plan(&app).start().await;
    let asked =
        || v1::ExplainRequest { side: v1::ExplainSide::Outbound.into(), ..v1::ExplainRequest::default() };
    let stranger = mesh.visit("client-0").await;
    let refused = stranger.ask(question("web-0", asked())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let visitor = mesh.visit("observer-0").await;
    let nobody = v1::Question { subject: None, ..question("web-0", asked()) };
    assert_eq!(visitor.ask(nobody).await.unwrap_err().code(), Code::InvalidArgument);
    let senseless = visitor.ask(question("web-0", asked())).await.unwrap().all().await;
    let told = senseless.iter().any(|finding| match &finding.found {
        Some(Found::Silent(silent)) => silent.why.contains("service port or an address"),
        _ => false,
    });
    assert!(told, "a question without a destination is refused in words: {senseless:?}");
}
