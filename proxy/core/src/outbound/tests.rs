//! Requests and the backends that routes choose for them, by the standard's precedence.

use super::*;
use crate::chance::Chance;
use crate::spec::{Filter, GrpcMatch, KeyMatch, Match, PathMatch, PathRewrite, RouteKind, ValueMatch};
use http::{HeaderName, Method};
use proptest::prelude::*;

mod edits;
mod matching;
mod shares;

fn prefix(path: &str) -> Match {
    Match { path: Some(PathMatch::Prefix(path.to_owned())), ..Match::default() }
}

fn exact(path: &str) -> Match {
    Match { path: Some(PathMatch::Exact(path.to_owned())), ..Match::default() }
}

fn pattern(path: &str) -> Match {
    Match { path: Some(PathMatch::Regex(path.to_owned())), ..Match::default() }
}

fn grpc(service: &str, method: &str, regex: bool) -> Match {
    let grpc = GrpcMatch { service: service.to_owned(), method: method.to_owned(), regex };
    Match { grpc: Some(grpc), ..Match::default() }
}

impl Match {
    fn header(mut self, name: &str, value: &str) -> Self {
        let value = ValueMatch::Exact(value.to_owned());
        self.headers.push(KeyMatch { name: name.to_owned(), value });
        self
    }

    fn header_like(mut self, name: &str, value: &str) -> Self {
        let value = ValueMatch::Regex(value.to_owned());
        self.headers.push(KeyMatch { name: name.to_owned(), value });
        self
    }

    fn parameter(mut self, name: &str, value: &str) -> Self {
        let value = ValueMatch::Exact(value.to_owned());
        self.query.push(KeyMatch { name: name.to_owned(), value });
        self
    }

    fn parameter_like(mut self, name: &str, value: &str) -> Self {
        let value = ValueMatch::Regex(value.to_owned());
        self.query.push(KeyMatch { name: name.to_owned(), value });
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }
}

/// A rule that sends what matches to the service port of this name.
fn rule(to: &str, matches: Vec<Match>) -> spec::Rule {
    spec::Rule { matches, backends: vec![share(to, 1)], ..spec::Rule::default() }
}

fn share(to: &str, weight: u32) -> spec::WeightedBackend {
    spec::WeightedBackend { backend: Ok(to.into()), weight, filters: Vec::new() }
}

fn invalid_share(weight: u32) -> spec::WeightedBackend {
    spec::WeightedBackend { backend: Err("no such Service".to_owned()), weight, filters: Vec::new() }
}

fn route(name: &str, rules: Vec<spec::Rule>) -> spec::Route {
    let origin = spec::Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: name.into() };
    let number = |(index, rule)| spec::Rule { index: index as u32, ..rule };
    spec::Route { origin, rules: rules.into_iter().enumerate().map(number).collect() }
}

fn spec_of(kind: RouteKind, routes: Vec<spec::Route>) -> spec::Outbound {
    spec::Outbound {
        service: "shop/echo".into(),
        port: 8080,
        protocol: spec::Protocol::Http1,
        protocol_by: spec::ProtocolBy::default(),
        kind,
        routes,
        default_backend: Some("default".into()),
        request_timeout: None,
    }
}

fn http(rules: Vec<spec::Rule>) -> Outbound {
    Outbound::compile(&spec_of(RouteKind::Http, vec![route("r", rules)])).unwrap()
}

fn invalid(rules: Vec<spec::Rule>) -> Invalid {
    Outbound::compile(&spec_of(RouteKind::Http, vec![route("r", rules)])).unwrap_err()
}

/// `METHOD target`, with fields; the `host` field is the authority.
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Request {
    fn new(line: &str, fields: &[(&str, &str)]) -> Self {
        let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers.entry("host").or_insert(HeaderValue::from_static("echo"));
        Self { method: method.parse().unwrap(), uri: target.parse().unwrap(), headers }
    }

    fn head(&self) -> Head<'_> {
        Head::of(&self.method, &self.uri, &self.headers)
    }
}

fn decide(outbound: &Outbound, line: &str, fields: &[(&str, &str)]) -> Decision {
    outbound.route(&Request::new(line, fields).head(), &mut Turns::new(outbound))
}

/// The backend's name, or the status of the reply.
fn goes(outbound: &Outbound, line: &str, fields: &[(&str, &str)]) -> String {
    match decide(outbound, line, fields) {
        Decision::Forward(plan) => outbound.backend(plan).unwrap().to_string(),
        Decision::Reply(reply) => reply.status.as_u16().to_string(),
    }
}

fn plan(outbound: &Outbound, line: &str) -> Plan {
    match decide(outbound, line, &[]) {
        Decision::Forward(plan) => plan,
        Decision::Reply(reply) => panic!("{reply:?}"),
    }
}

fn reply(outbound: &Outbound, line: &str, fields: &[(&str, &str)]) -> Reply {
    match decide(outbound, line, fields) {
        Decision::Reply(reply) => reply,
        Decision::Forward(plan) => panic!("{plan:?}"),
    }
}

#[test]
fn without_routes_all_goes_to_the_default_backend() {
    let outbound = Outbound::compile(&spec_of(RouteKind::None, vec![])).unwrap();
    assert_eq!(goes(&outbound, "/any", &[]), "default");
    assert_eq!(outbound.label(None), &Label { route: "".into(), rule: "".into() });
    let unnamed = spec::Outbound { default_backend: None, ..spec_of(RouteKind::None, vec![]) };
    assert_eq!(goes(&Outbound::compile(&unnamed).unwrap(), "/", &[]), "shop/echo:8080");
}

#[test]
fn with_routes_what_none_matches_is_answered() {
    let rules = || vec![rule("a", vec![exact("/a")])];
    let refused = reply(&http(rules()), "/b", &[]);
    assert_eq!((refused.status.as_u16(), refused.reason), (404, Reason::NoRoute));
    let empty = Outbound::compile(&spec_of(RouteKind::Http, vec![])).unwrap();
    assert_eq!(goes(&empty, "/", &[]), "404");
    let grpc = Outbound::compile(&spec_of(RouteKind::Grpc, vec![route("g", vec![])])).unwrap();
    assert_eq!(reply(&grpc, "POST /a.B/c", &[]).grpc(), GrpcCode::Unimplemented);
}

#[test]
fn opaque_bytes_take_the_default_backend_past_all_routes() {
    let outbound = http(vec![rule("a", vec![prefix("/")])]);
    let plan = outbound.opaque(&mut Turns::new(&outbound));
    assert_eq!(outbound.backend(plan), Some(&"default".into()));
}

#[test]
fn backends_are_listed_once() {
    let mut both = rule("a", vec![prefix("/x")]);
    both.backends.push(share("b", 1));
    let outbound = http(vec![rule("a", vec![prefix("/")]), both]);
    assert_eq!(outbound.backends, ["a".into(), "b".into(), "default".into()]);
}

#[test]
fn deadlines_come_from_the_rule_then_from_the_outbound() {
    let s = Duration::from_secs;
    let rows = [
        (None, None, None, (None, None)),
        (Some(s(9)), None, None, (Some(s(9)), None)),
        (Some(s(9)), Some(s(2)), Some(s(1)), (Some(s(2)), Some(s(1)))),
        (Some(s(9)), Some(s(0)), Some(s(0)), (None, None)),
    ];
    for (outer, request, attempt, expected) in rows {
        let timed = spec::Rule {
            request_timeout: request,
            backend_request_timeout: attempt,
            ..rule("a", vec![prefix("/")])
        };
        let spec = spec_of(RouteKind::Http, vec![route("r", vec![timed])]);
        let outbound = Outbound::compile(&spec::Outbound { request_timeout: outer, ..spec }).unwrap();
        let timeouts = outbound.timeouts(plan(&outbound, "/"));
        assert_eq!((timeouts.request, timeouts.attempt), expected);
        assert_eq!(outbound.timeouts(outbound.opaque(&mut Turns::new(&outbound))).request, outer);
    }
}

#[test]
fn rules_are_labelled_by_route_and_name_or_index() {
    let named = spec::Rule { name: "canary".into(), ..rule("b", vec![exact("/named")]) };
    let outbound = http(vec![rule("a", vec![prefix("/")]), named]);
    let label = |line| outbound.label(plan(&outbound, line).rule).clone();
    assert_eq!(label("/x"), Label { route: "shop/r".into(), rule: "0".into() });
    assert_eq!(label("/named"), Label { route: "shop/r".into(), rule: "canary".into() });
    assert_eq!(outbound.labels().count(), 2);
}

#[test]
fn a_plan_of_another_outbound_does_nothing() {
    let outbound = http(vec![rule("a", vec![prefix("/")])]);
    let foreign = Plan { rule: Some(9), backend: 9, share: 9 };
    let mut request = Request::new("/", &[]);
    assert_eq!(outbound.apply_request(foreign, &mut request.uri, &mut request.headers), Ok(()));
    outbound.apply_response(foreign, &mut request.headers);
    assert_eq!(outbound.timeouts(foreign), Timeouts::default());
    assert_eq!(outbound.backend(foreign), None);
    let other = http(vec![]);
    assert!(matches!(
        outbound.route(&request.head(), &mut Turns::new(&other)),
        Decision::Forward(_) | Decision::Reply(_)
    ));
}

proptest! {
    #[test]
    fn any_request_is_decided(path in "/[ -~]{0,24}", query in "[ -~]{0,16}", value in "[ -~]{0,12}") {
        let outbound = http(vec![
            rule("a", vec![prefix("/a/b"), exact("/c")]),
            rule("b", vec![pattern("/x[0-9]+"), prefix("/").parameter_like("k", "v.*").header_like("h", "a|b")]),
        ]);
        let mut headers = HeaderMap::new();
        headers.insert("h", value.parse().unwrap());
        let head = Head { method: &Method::GET, path: &path, query: Some(&query), authority: &value, headers: &headers };
        outbound.route(&head, &mut Turns::new(&outbound));
    }
}
