//! Looking at a mesh of real processes: edges that add up, requests as they end, and who may see them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use tonic::Code;
use weft_proto::v1;
use weft_proto::v1::finding::Found;
use weft_proto::v1::observe_client::ObserveClient;
use weft_proto::v1::question::What;
use weft_proto::v1::testimony::Told;
use weft_tests::mesh;
use weft_tests::mesh::{App, Findings, Http, Mesh, Plan, Pod, Visitor, in_time, reply, until};

/// Denies `/vault` of `web` to the clients.
const DENY: &str = "\
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: vault, namespace: test}
spec:
  targetRefs: [{kind: Service, name: web}]
  action: Deny
  rules: [{name: closed, to: [{paths: [/vault]}]}]
";

/// Statuses as their paths say.
async fn app() -> App {
    App::http(|request| async move {
        let asked = request.uri().path().rsplit('/').next().unwrap_or_default();
        let status = asked.parse().ok().filter(|status| (200..600).contains(status));
        reply(status.unwrap_or(200), "told")
    })
    .await
}

fn plan(app: &App) -> Plan {
    mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080"))
        .observer()
        .manifest("deny.yaml", DENY)
}

async fn get(mesh: &Mesh, path: &str) -> u16 {
    Http::once(mesh.door("client-0", "web:8080"), path).await.unwrap().status
}

fn stat() -> What {
    What::Stat(v1::StatQuestion::default())
}

fn edge<'a>(edges: &'a v1::Edges, source: &str, destination: &str) -> Option<&'a v1::EdgeView> {
    let is = |party: &Option<v1::Party>, name: &str| party.as_ref().is_some_and(|party| party.name == name);
    edges.edges.iter().find(|edge| is(&edge.source, source) && is(&edge.destination, destination))
}

fn totals(sight: Option<&v1::Sight>) -> v1::Signals {
    sight.and_then(|sight| sight.total.clone()).unwrap_or_default()
}

#[tokio::test]
async fn edges_add_up_with_what_was_sent_as_both_ends_see_it() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    for (path, times) in [("/200", 20), ("/404", 5), ("/503", 3), ("/vault", 2)] {
        for _ in 0..times {
            get(&mesh, path).await;
        }
    }
    let visitor = mesh.visit("observer-0").await;
    // The last record closes a moment after its answer.
    let found = until("all requests to be counted", async || {
        let (edges, silent) = visitor.look(stat()).await.edges().await;
        assert!(silent.is_empty(), "{silent:?}");
        let found = edge(&edges, "client-0", "web-0")?.clone();
        let counted = |sight: &Option<v1::Sight>| totals(sight.as_ref()).requests;
        (counted(&found.client) == 30 && counted(&found.server) == 30).then_some(found)
    })
    .await;
    let (client, server) = (found.client.as_ref().unwrap(), found.server.as_ref().unwrap());
    for sight in [client, server] {
        let total = totals(Some(sight));
        assert_eq!(total.classes, [0, 0, 20, 0, 7, 3], "{sight:?}");
        assert_eq!((total.failures, sight.sidecars, sight.security.as_str()), (3, 1, "mutual_tls"));
        let recent = sight.recent.as_ref().unwrap();
        assert!(recent.requests <= total.requests, "{sight:?}");
        assert_eq!(sight.p50_ms.is_some(), recent.requests > 0, "{sight:?}");
        assert_eq!(sight.first_byte_p50_ms.is_some(), recent.requests > 0, "{sight:?}");
    }
    assert_eq!(totals(Some(server)).refused, 2, "the policy refuses at the server");
    assert_eq!(totals(Some(client)).refused, 0, "the client's sidecar passed an answer on");
    assert_eq!(totals(Some(server)).bytes_down, 28 * 4, "what the application said");
    assert!(totals(Some(client)).bytes_down > 28 * 4, "and the words of two refusals");
    assert_eq!(found.services, ["test/web:8080"]);
    let identity = |party: &Option<v1::Party>| party.as_ref().unwrap().identity.clone();
    assert_eq!(identity(&found.source), "spiffe://cluster.local/ns/test/sa/client");
    assert_eq!(identity(&found.destination), "spiffe://cluster.local/ns/test/sa/web");
    assert!(server.rate >= 0.0 && client.p99_ms >= client.p50_ms, "{found:?}");
}

#[tokio::test]
async fn edges_are_narrowed_and_grouped_as_asked() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    get(&mesh, "/200").await;
    let visitor = mesh.visit("observer-0").await;
    let subject = |kind: &str, name: &str| v1::Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..v1::Subject::default()
    };
    let ask = async |subject: v1::Subject, by: &str, namespace: &str| {
        let stat = v1::StatQuestion { by: by.to_owned(), ..v1::StatQuestion::default() };
        let question = v1::Question {
            namespace: namespace.to_owned(),
            subject: Some(v1::Subject { namespace: "test".to_owned(), ..subject }),
            what: Some(What::Stat(stat)),
            ..v1::Question::default()
        };
        visitor.ask(question).await.unwrap().edges().await.0
    };
    let edges = ask(subject("service", "web"), "service", "test").await;
    assert!(edge(&edges, "client-0", "web").is_some(), "{edges:?}");
    let edges = ask(subject("pod", "client-0"), "pod", "test").await;
    assert!(edge(&edges, "client-0", "web-0").is_some_and(|edge| edge.server.is_none()), "{edges:?}");
    assert!(ask(subject("workload", "nobody"), "", "test").await.edges.is_empty());
    assert!(ask(subject("", ""), "", "elsewhere").await.edges.is_empty(), "no sidecar of it is asked");
    assert!(!ask(subject("", ""), "", "").await.edges.is_empty(), "all namespaces");
}

/// Sends until both sidecars tell of it: they have opened their taps.
async fn warm(mesh: &Mesh, findings: &mut Findings, sidecars: usize) {
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < sidecars {
        get(mesh, "/items/warm").await;
        let next = tokio::time::timeout(std::time::Duration::from_millis(200), findings.decisions()).await;
        seen.extend(next.map(|(workload, _)| workload));
    }
}

/// What a tap shows until both sidecars have told of the last request.
async fn until_last(findings: &mut Findings) -> BTreeMap<String, Vec<v1::Decision>> {
    let mut told: BTreeMap<String, Vec<v1::Decision>> = BTreeMap::new();
    let last = |list: &Vec<v1::Decision>| list.iter().any(|decision| decision.path == "/items/last");
    while told.len() < 2 || !told.values().all(last) {
        let (workload, decisions) = findings.decisions().await;
        assert_eq!(decisions.missing, 0);
        told.entry(workload).or_default().extend(decisions.list);
    }
    told
}

#[tokio::test]
async fn a_tap_shows_the_requests_that_match_and_no_secret() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    let tap = v1::TapQuestion {
        path: "/items/".to_owned(),
        method: "GET".to_owned(),
        headers: vec!["x-canary".to_owned(), "authorization".to_owned()],
        max_rate: 1_000,
        ..v1::TapQuestion::default()
    };
    let mut findings = visitor.look(What::Tap(tap)).await;
    warm(&mesh, &mut findings, 2).await;
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    let request = |method: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("x-canary", "1")
            .header("x-other", "2")
            .header("authorization", "Bearer hunter2")
    };
    for (method, path) in [
        ("GET", "/items/1?token=secret"),
        ("GET", "/other/2"),
        ("POST", "/items/3"),
        ("GET", "/items/404"),
        ("GET", "/items/last"),
    ] {
        http.send(request(method, path), Bytes::new()).await.unwrap();
    }
    let told = until_last(&mut findings).await;
    for (workload, list) in &told {
        let shown: Vec<&v1::Decision> = list.iter().filter(|one| one.path != "/items/warm").collect();
        let paths: Vec<&str> = shown.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["/items/1", "/items/404", "/items/last"], "{workload}");
        assert_eq!(shown[1].status, 404);
        for one in shown {
            let lines: Vec<(&str, &str)> =
                one.headers.iter().map(|line| (line.name.as_str(), line.value.as_str())).collect();
            assert_eq!(lines, [("x-canary", "1"), ("authorization", "(secret, 14 bytes)")]);
            assert!(!format!("{one:?}").contains("hunter2") && !format!("{one:?}").contains("token"));
            assert_eq!(one.security, "mutual_tls");
            assert!(one.duration_micros > 0 && one.at_micros > 1_600_000_000_000_000 && !one.id.is_empty());
        }
    }
    let side = |workload: &str| told[workload][0].direction.clone();
    assert_eq!((side("test/client-0"), side("test/web-0")), ("outbound".to_owned(), "inbound".to_owned()));
}

#[tokio::test]
async fn refusals_alone_are_shown_with_what_refused_and_recalled_by_their_name() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    let tap = v1::TapQuestion { refused: true, ..v1::TapQuestion::default() };
    let mut findings = visitor.look(What::Tap(tap)).await;
    let first = until("a refusal to be shown", async || {
        get(&mesh, "/200").await;
        get(&mesh, "/vault").await;
        let next = tokio::time::timeout(std::time::Duration::from_millis(200), findings.decisions()).await;
        next.ok().map(|(workload, decisions)| (workload, decisions.list[0].clone()))
    })
    .await;
    let (workload, refused) = first;
    assert_eq!(workload, "test/web-0");
    assert_eq!((refused.reason.as_str(), refused.status), ("denied_by_policy", 403));
    assert_eq!(refused.policy, "test/vault#closed");

    let recall = |id: &str| What::Recall(v1::RecallQuestion { request_id: id.to_owned() });
    let found = visitor.look(recall(&refused.id)).await.all().await;
    let decisions: Vec<(&str, &v1::Decision)> = found
        .iter()
        .filter_map(|finding| match &finding.found {
            Some(Found::Decisions(decisions)) => Some((finding.workload.as_str(), decisions)),
            _ => None,
        })
        .flat_map(|(workload, decisions)| decisions.list.iter().map(move |one| (workload, one)))
        .collect();
    let (workload, recalled) = decisions.iter().find(|(_, one)| !one.reason.is_empty()).unwrap();
    assert_eq!((*workload, recalled.policy.as_str()), ("test/web-0", "test/vault#closed"));
    let nothing = visitor.look(recall("nobody-was-called-so")).await.all().await;
    let any =
        nothing.iter().any(|one| matches!(&one.found, Some(Found::Decisions(told)) if !told.list.is_empty()));
    assert!(!any, "{nothing:?}");
}

#[tokio::test]
async fn a_taps_rate_is_kept_and_what_is_missing_is_counted() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    let tap = v1::TapQuestion { direction: "outbound".to_owned(), max_rate: 2, ..v1::TapQuestion::default() };
    let mut findings = visitor.look(What::Tap(tap)).await;
    warm(&mesh, &mut findings, 1).await;
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    let (mut shown, mut missing, mut sent) = (0, 0, 0);
    while missing < 20 {
        http.get("/200").await.unwrap();
        sent += 1;
        let next = tokio::time::timeout(std::time::Duration::from_millis(1), findings.decisions()).await;
        if let Ok((_, decisions)) = next {
            shown += decisions.list.len();
            missing += decisions.missing;
        }
        assert!(sent < 5_000, "{shown} of {sent} were shown, {missing} are missing");
    }
    assert!(shown < sent / 2, "{shown} of {sent}");
}

#[tokio::test]
async fn a_tap_ends_with_who_asked_and_with_its_time() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    // More, one after another, than a sidecar has at once.
    for round in 0..8 {
        let mut findings = visitor.look(What::Tap(v1::TapQuestion::default())).await;
        warm(&mesh, &mut findings, 2).await;
        drop(findings);
        let what = format!("the tap of round {round} to end at the sidecar");
        until(&what, async || {
            let log = mesh.sidecar("web-0").tail();
            (log.matches("no longer tapped").count() >= log.matches("is tapped").count()).then_some(())
        })
        .await;
    }
    let short = v1::TapQuestion { lifetime_millis: 300, ..v1::TapQuestion::default() };
    let mut findings = visitor.look(What::Tap(short)).await;
    in_time("a tap to end by itself", async { while findings.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn who_may_not_look_is_told_so_and_sees_nothing() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let question = || v1::Question { what: Some(stat()), ..v1::Question::default() };
    // A sidecar's own identity is nobody special.
    let stranger = mesh.visit("client-0").await;
    let refused = stranger.ask(question()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("--observer spiffe://cluster.local/ns/test/sa/client"), "{refused}");

    let answer = |ticket: &str| {
        let arrival = Told::Arrival(v1::Arrival { ticket: ticket.to_owned() });
        tokio_stream::iter([v1::Testimony { told: Some(arrival) }])
    };
    let mut client = ObserveClient::new(stranger.channel.clone());
    let refused = client.answer(answer("00112233445566778899aabbccddeeff")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let refused = client.answer(tokio_stream::iter([v1::Testimony::default()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    let observer = mesh.visit("observer-0").await;
    let nonsense = v1::Question::default();
    assert_eq!(observer.ask(nonsense).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(observer.ask(question()).await.is_ok());
}

#[tokio::test]
async fn a_sidecar_that_stands_still_is_named_and_the_others_are_heard() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    get(&mesh, "/200").await;
    let visitor = mesh.visit("observer-0").await;
    mesh.sidecar("web-0").freeze(true);
    let (edges, silent) = visitor.look(stat()).await.edges().await;
    mesh.sidecar("web-0").freeze(false);
    let names: Vec<&str> = silent.iter().map(|silent| silent.who.as_str()).collect();
    assert_eq!(names, ["test/web-0"], "{silent:?}");
    assert!(
        edge(&edges, "client-0", "web-0").is_some_and(|edge| edge.client.is_some() && edge.server.is_none())
    );
    until("it to be heard again", async || {
        visitor.look(stat()).await.edges().await.1.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_asks_and_does_not_read_harms_nobody() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    let tap = || What::Tap(v1::TapQuestion { max_rate: 1_000, ..v1::TapQuestion::default() });
    let deaf: Vec<Findings> = vec![visitor.look(tap()).await, visitor.look(tap()).await];
    let mut http = Http::open(mesh.door("client-0", "web:8080")).await;
    for _ in 0..2_000 {
        assert_eq!(http.get("/200").await.unwrap().status, 200);
    }
    let other: Visitor = mesh.visit("observer-0").await;
    let (edges, silent) = other.look(stat()).await.edges().await;
    assert!(silent.is_empty(), "{silent:?}");
    assert!(edge(&edges, "client-0", "web-0").is_some());
    drop(deaf);
}

#[tokio::test]
async fn a_request_that_nobody_sent_is_walked_by_the_sidecar_itself() {
    let app = app().await;
    let mesh = plan(&app).start().await;
    let visitor = mesh.visit("observer-0").await;
    let walk = async |pod: &str, asked: v1::ExplainRequest| {
        let subject = v1::Subject { kind: "pod".to_owned(), name: pod.to_owned(), ..v1::Subject::default() };
        let question = v1::Question {
            namespace: "test".to_owned(),
            subject: Some(subject),
            what: Some(What::Explain(asked)),
            ..v1::Question::default()
        };
        let found = visitor.ask(question).await.unwrap().all().await;
        let walk = |finding: &v1::Finding| match &finding.found {
            Some(Found::Walk(walk)) => Some(walk.clone()),
            _ => None,
        };
        found.iter().find_map(walk).unwrap_or_else(|| panic!("no walk in {found:?}"))
    };
    let asked = v1::ExplainRequest {
        side: v1::ExplainSide::Outbound.into(),
        destination: Some(v1::explain_request::Destination::ServicePort("test/web:8080".to_owned())),
        method: "GET".to_owned(),
        target: "/vault".to_owned(),
        authority: "web".to_owned(),
        ..v1::ExplainRequest::default()
    };
    let outbound = walk("client-0", asked.clone()).await;
    assert_eq!(outbound.workload, "test/client-0");
    assert_eq!(outbound.onward[0].endpoints[0].workload, "test/web-0");
    let inbound = v1::ExplainRequest {
        side: v1::ExplainSide::Inbound.into(),
        destination: Some(v1::explain_request::Destination::Port(8080)),
        peer_identity: "spiffe://cluster.local/ns/test/sa/client".to_owned(),
        ..asked
    };
    let inbound = walk("web-0", inbound).await;
    assert_eq!(inbound.outcome.unwrap().reason, "denied_by_policy");
}
