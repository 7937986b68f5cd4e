//! What filters do to requests and answers.

use super::*;
use http::header;

fn modifier(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> spec::HeaderModifier {
    let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| (name(n), v.parse().unwrap())).collect();
    spec::HeaderModifier {
        set: pairs(set),
        add: pairs(add),
        remove: remove.iter().map(|n| name(n)).collect(),
    }
}

fn on_rule(filters: Vec<Filter>) -> Outbound {
    http(vec![spec::Rule { filters, ..rule("a", vec![prefix("/")]) }])
}

fn on_backend(filters: Vec<Filter>) -> Outbound {
    let backends = vec![spec::WeightedBackend { filters, ..share("a", 1) }];
    http(vec![spec::Rule { backends, ..rule("a", vec![prefix("/")]) }])
}

/// The request as it is forwarded.
fn applied(outbound: &Outbound, line: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = Request::new(line, fields);
    let Decision::Forward(plan) = decide(outbound, line, fields) else { panic!("{line}") };
    outbound.apply_request(plan, &mut request.uri, &mut request.headers).unwrap();
    request
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Source: the suite's MeshHTTPRouteRequestHeaderModifier and its sibling on backendRefs.
#[test]
fn request_headers_are_set_added_and_removed_on_rules_and_on_backends() {
    let rows: [(Pairs<'_>, Pairs<'_>, &[&str], Pairs<'_>, Pairs<'_>); 7] = [
        (&[("x-set", "s")], &[], &[], &[("some", "o")], &[("some", "o"), ("x-set", "s")]),
        (&[("x-set", "new")], &[], &[], &[("X-Set", "old")], &[("x-set", "new")]),
        (&[], &[("x-add", "a")], &[], &[("some", "o")], &[("some", "o"), ("x-add", "a")]),
        (&[], &[("x-add", "2")], &[], &[("x-add", "1")], &[("x-add", "1"), ("x-add", "2")]),
        (&[], &[], &["x-remove"], &[("x-remove", "v")], &[]),
        (
            &[("s1", "1"), ("s2", "2")],
            &[("a1", "3"), ("a2", "4")],
            &["r1", "r2"],
            &[("s2", "0"), ("a1", "0"), ("r1", "x"), ("r2", "y"), ("z", "z")],
            &[("s1", "1"), ("s2", "2"), ("a1", "0"), ("a1", "3"), ("a2", "4"), ("z", "z")],
        ),
        (
            &[("X-Set", "S")],
            &[("X-Add", "A")],
            &["X-Remove"],
            &[("x-SET", "o"), ("x-REMOVE", "o")],
            &[("x-set", "S"), ("x-add", "A")],
        ),
    ];
    for (set, add, remove, sent, expected) in rows {
        let filter = || vec![Filter::RequestHeaders(modifier(set, add, remove))];
        for outbound in [on_rule(filter()), on_backend(filter())] {
            let request = applied(&outbound, "/", sent);
            assert_eq!(request.headers, Request::new("/", expected).headers, "{sent:?}");
            assert!(outbound.edits_request(plan(&outbound, "/")));
        }
    }
}

#[test]
fn filters_of_the_rule_come_before_those_of_the_backend() {
    let add = |value| vec![Filter::RequestHeaders(modifier(&[], &[("x", value)], &[]))];
    let backends = vec![spec::WeightedBackend { filters: add("backend"), ..share("a", 1) }];
    let outbound = http(vec![spec::Rule { filters: add("rule"), backends, ..rule("a", vec![prefix("/")]) }]);
    assert_eq!(values(&applied(&outbound, "/", &[("x", "sent")]).headers, "x"), ["sent", "rule", "backend"]);
}

#[test]
fn response_headers_are_changed_on_the_way_back_only() {
    let filter = || vec![Filter::ResponseHeaders(modifier(&[("x", "1")], &[("y", "2")], &["z"]))];
    for outbound in [on_rule(filter()), on_backend(filter())] {
        let plan = plan(&outbound, "/");
        let mut answer = Request::new("/", &[("x", "0"), ("y", "0"), ("z", "0")]).headers;
        outbound.apply_response(plan, &mut answer);
        assert_eq!(values(&answer, "x"), ["1"]);
        assert_eq!(values(&answer, "y"), ["0", "2"]);
        assert!(!answer.contains_key("z"));
        assert!(!outbound.edits_request(plan));
        assert!(!applied(&outbound, "/", &[]).headers.contains_key("x"));
    }
}

#[test]
fn fields_that_frame_a_message_cannot_be_modified() {
    for name in ["content-length", "Transfer-Encoding", "connection", "weft-attempt", "te"] {
        let all = [
            modifier(&[(name, "1")], &[], &[]),
            modifier(&[], &[(name, "1")], &[]),
            modifier(&[], &[], &[name]),
        ];
        for bad in all {
            let filters = vec![Filter::RequestHeaders(bad)];
            let error = invalid(vec![spec::Rule { filters, ..rule("a", vec![]) }]);
            assert_eq!(error.place, "HTTPRoute shop/r, rules[0], filters[0], headerModifier");
        }
    }
}

fn rewrite(hostname: Option<&str>, path: Option<PathRewrite>) -> Vec<Filter> {
    vec![Filter::Rewrite(spec::Rewrite { hostname: hostname.map(str::to_owned), path })]
}

fn full(path: &str) -> Option<PathRewrite> {
    Some(PathRewrite::Full(path.to_owned()))
}

#[test]
fn the_host_is_rewritten_wherever_it_stands() {
    let host = || rewrite(Some("other.shop"), None);
    let set_host = vec![Filter::RequestHeaders(modifier(&[("host", "other.shop")], &[], &[]))];
    for outbound in [on_rule(host()), on_backend(host()), on_rule(set_host)] {
        let one = applied(&outbound, "/a?b", &[]);
        assert_eq!(one.uri, "/a?b");
        assert_eq!(values(&one.headers, "host"), ["other.shop"]);
        let two = applied(&outbound, "http://echo:8080/a?b", &[("host", "echo:8080")]);
        assert_eq!(two.uri, "http://other.shop/a?b");
        assert_eq!(values(&two.headers, "host"), ["other.shop"]);
    }
}

#[test]
fn the_whole_path_is_replaced_and_the_query_stays() {
    for outbound in [on_rule(rewrite(None, full("/one/two"))), on_backend(rewrite(None, full("/one/two")))] {
        assert_eq!(applied(&outbound, "/a/b?c=d&e", &[]).uri, "/one/two?c=d&e");
        assert_eq!(applied(&outbound, "http://h/a", &[("host", "h")]).uri, "http://h/one/two");
    }
}

/// Sent, matched prefix, replacement, result.
///
/// Source: Gateway API, the table at HTTPPathModifier.replacePrefixMatch.
const PREFIXES: [(&str, &str, &str, &str); 19] = [
    ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
    ("/foo", "/foo", "/xyz", "/xyz"),
    ("/foo/", "/foo", "/xyz", "/xyz/"),
    ("/foo/bar", "/foo", "", "/bar"),
    ("/foo/", "/foo", "", "/"),
    ("/foo", "/foo", "", "/"),
    ("/foo/", "/foo", "/", "/"),
    ("/foo", "/foo", "/", "/"),
    // beyond the table
    ("/bar", "/", "/xyz", "/xyz/bar"),
    ("/", "/", "/xyz", "/xyz/"),
    ("/foo/bar/", "/foo", "/xyz", "/xyz/bar/"),
    ("/foo/bar?q=/foo", "/foo", "/xyz", "/xyz/bar?q=/foo"),
    ("/foo//bar", "/foo", "/xyz", "/xyz/bar"),
    ("/%66oo/b%20r", "/foo", "/xyz", "/xyz/b%20r"),
    ("/foo/bar", "/foo/bar", "/", "/"),
    ("/foo/foo", "/foo", "", "/foo"),
];

#[test]
fn a_replaced_prefix_follows_the_standards_table() {
    for (sent, matched, by, expected) in PREFIXES {
        let filters = rewrite(None, Some(PathRewrite::Prefix(by.to_owned())));
        let outbound = http(vec![spec::Rule { filters, ..rule("a", vec![prefix(matched)]) }]);
        assert_eq!(applied(&outbound, sent, &[]).uri, expected, "{sent} {matched} → {by:?}");
    }
}

#[test]
fn a_prefix_is_replaced_only_where_one_prefix_matched() {
    let filters = || rewrite(None, Some(PathRewrite::Prefix("/x".to_owned())));
    for matches in [vec![exact("/a")], vec![pattern("/a")], vec![prefix("/a"), prefix("/b")]] {
        let error = invalid(vec![spec::Rule { filters: filters(), ..rule("a", matches) }]);
        assert_eq!(error.place, "HTTPRoute shop/r, rules[0], filters[0], replacePrefixMatch");
    }
}

#[test]
fn rewrites_to_what_cannot_be_sent_are_refused() {
    for filters in [
        rewrite(Some("a b"), None),
        rewrite(Some("u@h"), None),
        rewrite(None, full("/a/../b")),
        rewrite(None, full("/a b")),
        rewrite(None, full("/a?b")),
    ] {
        invalid(vec![spec::Rule { filters, ..rule("a", vec![]) }]);
    }
}

fn redirect() -> spec::Redirect {
    spec::Redirect { status: StatusCode::FOUND, scheme: None, hostname: None, port: None, path: None }
}

/// A rule that redirects and has no backend.
fn redirecting(redirect: spec::Redirect, matched: &str) -> spec::Rule {
    let filters = vec![Filter::Redirect(redirect)];
    spec::Rule { filters, backends: Vec::new(), ..rule("", vec![prefix(matched)]) }
}

fn location(outbound: &Outbound, line: &str, fields: &[(&str, &str)]) -> String {
    let reply = reply(outbound, line, fields);
    assert_eq!(reply.reason, Reason::ConfigReply);
    reply.location.unwrap().to_str().unwrap().to_owned()
}

/// Source: Gateway API, HTTPRequestRedirectFilter.port; the service port here is 8080.
#[test]
fn the_port_of_a_redirect_follows_the_standards_rule() {
    use spec::Scheme::{Http, Https};
    let rows = [
        (None, None, "http://echo:8080/p"),
        (None, Some(80), "http://echo/p"),
        (None, Some(443), "http://echo:443/p"),
        (None, Some(8083), "http://echo:8083/p"),
        (Some(Http), None, "http://echo/p"),
        (Some(Http), Some(80), "http://echo/p"),
        (Some(Http), Some(8080), "http://echo:8080/p"),
        (Some(Https), None, "https://echo/p"),
        (Some(Https), Some(443), "https://echo/p"),
        (Some(Https), Some(80), "https://echo:80/p"),
        (Some(Https), Some(8443), "https://echo:8443/p"),
    ];
    for (scheme, port, expected) in rows {
        let outbound = http(vec![redirecting(spec::Redirect { scheme, port, ..redirect() }, "/")]);
        assert_eq!(location(&outbound, "/p", &[("host", "echo:9999")]), expected, "{scheme:?} {port:?}");
    }
}

#[test]
fn a_redirect_changes_host_and_path_and_keeps_the_query() {
    let https = || spec::Redirect { scheme: Some(spec::Scheme::Https), ..redirect() };
    let host = spec::Redirect { hostname: Some("example.org".to_owned()), ..https() };
    assert_eq!(location(&http(vec![redirecting(host, "/")]), "/a/b?c=d", &[]), "https://example.org/a/b?c=d");
    let plain = http(vec![redirecting(https(), "/")]);
    assert_eq!(location(&plain, "/a", &[("host", "[::1]:80")]), "https://[::1]/a");
    let whole = http(vec![redirecting(spec::Redirect { path: full("/x"), ..https() }, "/")]);
    assert_eq!(location(&whole, "/a?c", &[]), "https://echo/x?c");
    for (sent, matched, by, expected) in PREFIXES {
        let path = Some(PathRewrite::Prefix(by.to_owned()));
        let outbound = http(vec![redirecting(spec::Redirect { path, ..https() }, matched)]);
        let expected = format!("https://echo{expected}");
        assert_eq!(location(&outbound, sent, &[]), expected, "{sent} {matched} → {by:?}");
    }
}

/// Source: the suite's MeshHTTPRouteRedirectHostAndStatus, 303, 307 and 308.
#[test]
fn redirects_have_the_standards_codes_and_need_no_backend() {
    for status in [301, 302, 303, 307, 308] {
        let redirect = spec::Redirect { status: StatusCode::from_u16(status).unwrap(), ..redirect() };
        assert_eq!(goes(&http(vec![redirecting(redirect, "/")]), "/", &[]), status.to_string());
    }
    for bad in [
        spec::Redirect { status: StatusCode::OK, ..redirect() },
        spec::Redirect { status: StatusCode::NOT_MODIFIED, ..redirect() },
        spec::Redirect { port: Some(0), ..redirect() },
        spec::Redirect { hostname: Some("a/b".to_owned()), ..redirect() },
    ] {
        invalid(vec![redirecting(bad, "/")]);
    }
}

/// Source: the suite's MeshHTTPRouteRedirectPath and RedirectPort: `/full` does not swallow
/// `/full-path`.
#[test]
fn redirect_rules_match_by_element() {
    let outbound = http(vec![
        redirecting(spec::Redirect { path: full("/one"), ..redirect() }, "/full"),
        redirecting(spec::Redirect { path: full("/two"), ..redirect() }, "/full-path"),
    ]);
    assert_eq!(location(&outbound, "/full/x", &[]), "http://echo:8080/one");
    assert_eq!(location(&outbound, "/full-path/x", &[]), "http://echo:8080/two");
}

#[test]
fn a_backend_may_redirect_its_share_even_when_it_is_invalid() {
    let filters = vec![Filter::Redirect(redirect())];
    let backends = vec![share("a", 1), spec::WeightedBackend { filters, ..invalid_share(1) }];
    let outbound = http(vec![spec::Rule { backends, ..rule("", vec![prefix("/")]) }]);
    let mut turns = Turns::new(&outbound);
    let request = Request::new("/", &[]);
    let mut statuses: Vec<u16> = (0..4)
        .map(|_| match outbound.route(&request.head(), &mut turns) {
            Decision::Forward(_) => 200,
            Decision::Reply(reply) => reply.status.as_u16(),
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 302, 302]);
}

#[test]
fn a_request_without_a_host_is_not_redirected_to_nowhere() {
    let outbound = on_rule(vec![Filter::Redirect(redirect())]);
    let mut request = Request::new("/", &[]);
    request.headers.remove(header::HOST);
    let Decision::Reply(reply) = outbound.route(&request.head(), &mut Turns::new(&outbound)) else {
        panic!()
    };
    assert_eq!((reply.status.as_u16(), reply.location), (400, None));
}

#[test]
fn an_unresolved_filter_answers_instead_of_being_skipped() {
    let fixed = |status| {
        let status = StatusCode::from_u16(status).unwrap();
        vec![Filter::Reply(spec::FixedReply { status, reason: "no such filter".to_owned() })]
    };
    for outbound in [on_rule(fixed(500)), on_backend(fixed(500))] {
        let reply = reply(&outbound, "/", &[]);
        assert_eq!((reply.status.as_u16(), reply.reason), (500, Reason::InvalidFilter));
        assert_eq!((reply.grpc(), &*reply.message), (GrpcCode::Unavailable, "no such filter"));
    }
    let teapot = reply(&on_rule(fixed(418)), "/", &[]);
    assert_eq!((teapot.reason, teapot.grpc()), (Reason::ConfigReply, GrpcCode::Unknown));
}
