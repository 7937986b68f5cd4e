//! Routes by `kubectl apply`: what each does to a request, read from the bytes that arrive.

use weft_cluster::scenario::{App, Space};

/// Two versions of a server, a Service for each and one for both, and a client.
fn shop<'m>(space: &Space<'m>) {
    space.run(&[App::new("web"), App::new("web").version("v2"), App::new("client")]).unwrap();
    for version in ["v1", "v2"] {
        space
            .apply(&format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: web-{version}}}, spec: {{
                    selector: {{app: web, version: {version}}},
                    ports: [{{name: http, port: 80, targetPort: 8080, appProtocol: http}}]}}}}"
            ))
            .unwrap();
    }
}

const CLIENT: &str = "deployment/client-v1";

const RULES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /split}}]
    backendRefs: [{name: web-v1, port: 80, weight: 90}, {name: web-v2, port: 80, weight: 10}]
  - matches: [{path: {type: PathPrefix, value: /choose}, headers: [{name: version, value: two}]}]
    backendRefs: [{name: web-v2, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /choose}}]
    backendRefs: [{name: web-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: shop.example, port: 8443, statusCode: 301,
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
  - matches: [{path: {type: PathPrefix, value: /api/v1}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}
    backendRefs: [{name: web-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: X-Set, value: ours}]
        add: [{name: X-Add, value: more}]
        remove: [X-Remove]
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: X-Answer, value: seen}], remove: [X-Pod]}
    backendRefs: [{name: web-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /delay}}]
    timeouts: {request: 300ms}
    backendRefs: [{name: web-v1, port: 80}]
"#;

#[test]
fn a_route_splits_chooses_redirects_rewrites_and_ends_what_takes_too_long() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("routes").unwrap();
    shop(&space);
    space.apply(RULES).unwrap();
    let get = |path: &str, flags: &[&str]| space.get(CLIENT, &format!("http://web{path}"), flags).unwrap();
    // The last rule's effect shows that all of them have arrived.
    space.get_until(CLIENT, "http://web/old/x", &[], |answer| answer.status() == Some(301)).unwrap();

    let told = space.load(CLIENT, &["get", "http://web/split", "--times=200"]).unwrap();
    let of = |version: &str| told.iter().filter(|answer| answer["json"]["version"] == version).count();
    assert_eq!(of("v1") + of("v2"), 200, "{:?}", told.iter().find(|answer| answer["status"] != 200));
    assert!((12..=28).contains(&of("v2")), "a tenth of 200 is not {}", of("v2"));

    assert_eq!(get("/choose", &["-H", "version: two"]).told("version"), "v2");
    assert_eq!(get("/choose", &["-H", "version: twofold"]).told("version"), "v1");
    assert_eq!(get("/choose", &[]).told("version"), "v1");

    let moved = get("/old/cart?item=1", &[]);
    assert_eq!(moved.status(), Some(301));
    assert_eq!(moved.header("location"), Some("https://shop.example:8443/new/cart?item=1"));

    let rewritten = get("/api/v1/cart?item=1", &["-H", "Authorization: mine"]);
    assert_eq!(rewritten.told("path"), "/v1/cart?item=1", "{rewritten:?}");
    assert_eq!(rewritten.received("host"), Some("inner.example"), "{rewritten:?}");
    assert_eq!(rewritten.received("authorization"), Some("mine"), "{rewritten:?}");

    let changed = get("/headers", &["-H", "X-Set: theirs", "-H", "X-Add: one", "-H", "X-Remove: me"]);
    assert_eq!(changed.received("x-set"), Some("ours"), "{changed:?}");
    let added: Vec<_> = (changed.0["json"]["headers"].as_array().unwrap().iter())
        .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case("x-add"))
        .map(|header| header[1].as_str().unwrap())
        .collect();
    assert_eq!(added.join(","), "one,more", "{changed:?}");
    assert_eq!(changed.received("x-remove"), None, "{changed:?}");
    assert_eq!(changed.header("x-answer"), Some("seen"), "{changed:?}");
    assert_eq!(changed.header("x-pod"), None, "{changed:?}");

    assert_eq!(get("/delay/20000", &[]).status(), Some(504));
    assert_eq!(get("/delay/1", &[]).status(), Some(200));
    assert_eq!(get("/elsewhere", &[]).status(), Some(404), "there are rules, and none matches");

    let posted = get("/choose", &["--method=POST", "--body=the same bytes", "-H", "Content-Length: 14"]);
    assert_eq!(posted.told("body"), "the same bytes");

    space.kubectl(&["delete", "httproute", "web"]).unwrap();
    let plain =
        space.get_until(CLIENT, "http://web/old/x", &[], |answer| answer.status() == Some(200)).unwrap();
    assert_eq!(plain.told("path"), "/old/x");
}

#[test]
fn a_route_with_a_backend_that_is_not_there_fails_exactly_its_share() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("missing").unwrap();
    shop(&space);
    space
        .apply(
            r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - backendRefs: [{name: web-v1, port: 80, weight: 3}, {name: nobody, port: 80, weight: 1}]
"#,
        )
        .unwrap();
    space.get_until(CLIENT, "http://web/", &[], |answer| answer.status() == Some(500)).unwrap();
    let told = space.load(CLIENT, &["get", "http://web/", "--times=40"]).unwrap();
    let failed = told.iter().filter(|answer| answer["status"] == 500).count();
    let served =
        told.iter().filter(|answer| answer["status"] == 200 && answer["json"]["version"] == "v1").count();
    assert_eq!((failed, served), (10, 30), "{told:?}");
}
