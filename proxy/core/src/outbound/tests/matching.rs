//! Which rule takes a request.

use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

fn check(outbound: &Outbound, rows: &[(&str, Fields<'_>, &str)]) {
    for (line, fields, expected) in rows {
        assert_eq!(goes(outbound, line, fields), *expected, "{line} {fields:?}");
    }
}

/// Source: the suite's MeshTrafficSplit.
#[test]
fn exact_paths_split_traffic() {
    let outbound = http(vec![rule("v1", vec![exact("/v1")]), rule("v2", vec![exact("/v2")])]);
    check(&outbound, &[("/v1", &[], "v1"), ("/v2", &[], "v2"), ("/v1/", &[], "404"), ("/", &[], "404")]);
}

/// Source: the suite's MeshHTTPRouteMatching.
#[test]
fn paths_match_by_element_and_headers_beat_the_bare_root() {
    let outbound = http(vec![
        rule("v1", vec![prefix("/"), Match::default().header("version", "one")]),
        rule("v2", vec![prefix("/v2"), Match::default().header("version", "two")]),
    ]);
    check(
        &outbound,
        &[
            ("/", &[], "v1"),
            ("/example", &[], "v1"),
            ("/", &[("version", "one")], "v1"),
            ("/v2", &[], "v2"),
            ("/v2/", &[], "v2"),
            ("/v2/example", &[], "v2"),
            ("/", &[("Version", "two")], "v2"),
            ("/v2example", &[], "v1"),
            ("/foo/v2/example", &[], "v1"),
            ("/v2", &[("version", "one")], "v2"),
        ],
    );
}

/// Source: the suite's MeshHTTPRouteQueryParamMatching.
#[test]
fn query_parameters_match_their_first_decoded_value() {
    let outbound = http(vec![
        rule("v1", vec![Match::default().parameter("animal", "whale")]),
        rule("v2", vec![Match::default().parameter("animal", "dolphin")]),
        rule("v3", vec![Match::default().parameter("animal", "dolphin").parameter("color", "blue")]),
        rule("v4", vec![prefix("/path"), Match::default().parameter("Animal", "Cat Fish")]),
        rule("v5", vec![Match::default().parameter_like("n", "[0-9]+")]),
        rule("v6", vec![Match::default().parameter("empty", "")]),
    ]);
    check(
        &outbound,
        &[
            ("/?animal=whale", &[], "v1"),
            ("/?animal=dolphin", &[], "v2"),
            ("/?color=blue&animal=dolphin", &[], "v3"),
            ("/?animal=dolphin&color=red", &[], "v2"),
            ("/path?animal=whale", &[], "v4"),
            ("/?animal=whale&animal=dolphin", &[], "v1"),
            ("/?animal=shark&animal=dolphin", &[], "404"),
            ("/?animal=Whale", &[], "404"),
            ("/?Animal=whale", &[], "404"),
            ("/?animal=whale2", &[], "404"),
            ("/?animal", &[], "404"),
            ("/?color=blue", &[], "404"),
            ("/", &[], "404"),
            ("/?an%69mal=%77hale", &[], "v1"),
            ("/?Animal=Cat+Fish", &[], "v4"),
            ("/?Animal=Cat%20Fish", &[], "v4"),
            ("/?n=12", &[], "v5"),
            ("/?n=1%32", &[], "v5"),
            ("/?n=12x", &[], "404"),
            ("/?empty", &[], "v6"),
            ("/?empty=", &[], "v6"),
            ("/?&&empty=&", &[], "v6"),
        ],
    );
}

#[test]
fn prefixes_are_whole_elements_and_a_trailing_slash_means_nothing() {
    for written in ["/a/b", "/a/b/"] {
        let outbound = http(vec![rule("x", vec![prefix(written)])]);
        check(
            &outbound,
            &[
                ("/a/b", &[], "x"),
                ("/a/b/", &[], "x"),
                ("/a/b/c", &[], "x"),
                ("/a//b", &[], "x"),
                ("/%61/b", &[], "x"),
                ("/a/bc", &[], "404"),
                ("/a", &[], "404"),
                ("/A/b", &[], "404"),
                ("/x/a/b", &[], "404"),
                ("/a%2Fb", &[], "404"),
            ],
        );
    }
}

#[test]
fn exact_paths_are_exact() {
    let outbound = http(vec![rule("x", vec![exact("/a/b")]), rule("y", vec![exact("/c/")])]);
    check(
        &outbound,
        &[
            ("/a/b", &[], "x"),
            ("/a/b?q", &[], "x"),
            ("/a/b/", &[], "404"),
            ("/a/b/c", &[], "404"),
            ("/c/", &[], "y"),
            ("/c", &[], "404"),
        ],
    );
}

#[test]
fn the_order_of_precedence_is_the_standards() {
    // Written from the least to the most specific: order in the route must not matter.
    let outbound = http(vec![
        rule("root", vec![prefix("/")]),
        rule("root-query", vec![prefix("/").parameter("q", "1")]),
        rule("root-header", vec![prefix("/").header("h", "1")]),
        rule("root-method", vec![prefix("/").method(Method::PUT)]),
        rule("short", vec![prefix("/a")]),
        rule("long", vec![prefix("/a/b")]),
        rule("long-2-headers", vec![prefix("/a/b").header("h", "1").header("i", "1")]),
        rule("regex", vec![pattern("/a/b/r.*")]),
        rule("longer-regex", vec![pattern("/a/b/re[a-z]*")]),
        rule("exact", vec![exact("/a/b/rex")]),
        rule("exact-method", vec![exact("/a/b/rex").method(Method::PUT)]),
    ]);
    let h: Fields<'_> = &[("h", "1")];
    let hi: Fields<'_> = &[("h", "1"), ("i", "1")];
    check(
        &outbound,
        &[
            ("/", &[], "root"),
            ("/?q=1", &[], "root-query"),
            ("/?q=1", h, "root-header"),
            ("PUT /?q=1", h, "root-method"),
            ("PUT /a?q=1", h, "short"),
            ("PUT /a/b?q=1", h, "long"),
            ("/a/b/c", hi, "long-2-headers"),
            ("/a/b/r", hi, "regex"),
            ("/a/b/rest", hi, "longer-regex"),
            ("/a/b/rex", hi, "exact"),
            ("PUT /a/b/rex", hi, "exact-method"),
        ],
    );
}

#[test]
fn equals_are_decided_by_age_of_the_route_then_order_of_rules() {
    let routes = vec![
        route(
            "older",
            vec![rule("first", vec![exact("/x")]), rule("second", vec![exact("/x"), prefix("/y")])],
        ),
        route("newer", vec![rule("third", vec![exact("/x"), prefix("/y"), prefix("/y/z")])]),
    ];
    let outbound = Outbound::compile(&spec_of(RouteKind::Http, routes)).unwrap();
    check(&outbound, &[("/x", &[], "first"), ("/y", &[], "second"), ("/y/z/1", &[], "third")]);
    let plan = plan(&outbound, "/y/z");
    assert_eq!(&*outbound.label(plan.rule).route, "shop/newer");
}

#[test]
fn a_match_whose_conditions_fail_leaves_the_request_to_the_next() {
    let outbound = http(vec![
        rule("exact", vec![exact("/a/b").header("h", "1")]),
        rule("regex", vec![pattern("/a/.").header("h", "2")]),
        rule("long", vec![prefix("/a/b").header("h", "3")]),
        rule("short", vec![prefix("/a")]),
    ]);
    let row = |value| goes(&outbound, "/a/b", &[("h", value)]);
    assert_eq!([row("1"), row("2"), row("3"), row("4")], ["exact", "regex", "long", "short"]);
}

#[test]
fn header_conditions_compare_values_whole_and_names_in_any_case() {
    let outbound = http(vec![
        rule("one", vec![Match::default().header("X-Test", "A,b")]),
        rule("like", vec![Match::default().header_like("x-like", "a|bc")]),
        rule("twice", vec![Match::default().header("x-dup", "1").header("X-DUP", "2").header("x-more", "1")]),
    ]);
    check(
        &outbound,
        &[
            ("/", &[("x-test", "A,b")], "one"),
            ("/", &[("X-TEST", "A"), ("x-test", "b")], "one"),
            ("/", &[("x-test", "a,b")], "404"),
            ("/", &[("x-test", "A")], "404"),
            ("/", &[("x-like", "a")], "like"),
            ("/", &[("x-like", "bc")], "like"),
            ("/", &[("x-like", "abc")], "404"),
            ("/", &[("x-like", "a\tc")], "404"),
            // of equal names the first condition counts
            ("/", &[("x-dup", "1"), ("x-more", "1")], "twice"),
            ("/", &[("x-dup", "2"), ("x-more", "1")], "404"),
        ],
    );
}

#[test]
fn a_condition_on_host_sees_the_authority_in_every_version() {
    let outbound = http(vec![
        rule("cart", vec![Match::default().header("Host", "cart.shop")]),
        rule("port", vec![Match::default().header("host", "pay.shop:81")]),
        rule("like", vec![Match::default().header_like(":authority", r".*\.example(:[0-9]+)?")]),
    ]);
    check(
        &outbound,
        &[
            ("/", &[("host", "cart.shop")], "cart"),
            ("/", &[("host", "CART.shop:8080")], "cart"),
            ("http://cart.shop/", &[], "cart"),
            ("/", &[("host", "pay.shop")], "404"),
            ("/", &[("host", "pay.shop:81")], "port"),
            ("/", &[("host", "a.example:9")], "like"),
        ],
    );
}

#[test]
fn regular_expressions_match_the_whole_canonical_path() {
    let outbound =
        http(vec![rule("x", vec![pattern("/v[0-9]+/(a|ab)")]), rule("y", vec![pattern("(?i)/case")])]);
    check(
        &outbound,
        &[
            ("/v12/a", &[], "x"),
            ("/v12/ab", &[], "x"),
            ("/v%31/a", &[], "x"),
            ("/v1//a", &[], "x"),
            ("/v1/abc", &[], "404"),
            ("/x/v1/a", &[], "404"),
            ("/CASE", &[], "y"),
        ],
    );
}

#[test]
fn grpc_calls_match_by_service_then_method_then_headers() {
    let rules = vec![
        rule("any", vec![Match::default()]),
        rule("method", vec![grpc("", "Get", false)]),
        rule("header", vec![grpc("shop.Cart", "", false).header("tier", "gold")]),
        rule("service", vec![grpc("shop.Cart", "", false)]),
        rule("both", vec![grpc("shop.Cart", "Get", false)]),
        rule("both-header", vec![grpc("shop.Cart", "Get", false).header("tier", "gold")]),
        rule("regex", vec![grpc("shop\\..*", "Find|List", true)]),
    ];
    let outbound = Outbound::compile(&spec_of(RouteKind::Grpc, vec![route("g", rules)])).unwrap();
    let gold: Fields<'_> = &[("tier", "gold")];
    check(
        &outbound,
        &[
            ("POST /shop.Cart/Get", &[], "both"),
            ("POST /shop.Cart/Get", gold, "both-header"),
            ("POST /shop.Cart/Put", &[], "service"),
            ("POST /shop.Cart/Put", gold, "header"),
            ("POST /shop.CartX/Get", &[], "method"),
            ("POST /shop.Stock/Find", &[], "regex"),
            ("POST /shop.Stock/Finder", &[], "any"),
            ("POST /other.X/Get", &[], "method"),
            ("POST /other.X/Set", &[], "any"),
        ],
    );
}

#[test]
fn a_service_of_calls_comes_before_patterns_on_calls() {
    let rules = vec![
        rule("regex", vec![grpc(".*Cart", "Put", true)]),
        rule("service", vec![grpc("shop.Cart", "", false)]),
    ];
    let outbound = Outbound::compile(&spec_of(RouteKind::Grpc, vec![route("g", rules)])).unwrap();
    check(&outbound, &[("POST /shop.Cart/Put", &[], "service"), ("POST /a.Cart/Put", &[], "regex")]);
}

#[test]
fn a_path_with_two_meanings_is_refused_before_any_rule() {
    let outbound = http(vec![rule("x", vec![prefix("/a")])]);
    check(&outbound, &[("/a/../b", &[], "400"), ("/a/%2e%2e/b", &[], "400"), ("/a%00", &[], "400")]);
}

#[test]
fn options_and_connect_reach_a_rule_for_everything() {
    let outbound = http(vec![rule("x", vec![prefix("/")]), rule("y", vec![exact("/only")])]);
    check(&outbound, &[("OPTIONS *", &[], "x"), ("CONNECT db:5432", &[], "x")]);
}

#[test]
fn what_cannot_be_compiled_names_its_place() {
    let rows = [
        (pattern("/("), "matches[0], regex"),
        (pattern("a)|(b"), "matches[0], regex"),
        (pattern("(a{1000}){1000}"), "matches[0], regex"),
        (exact("/a/../b"), "matches[0], path"),
        (prefix("a"), "matches[0], path"),
        (prefix("*"), "matches[0], path"),
        (Match::default().header("bad name", "x"), "matches[0], headers[0], name"),
        (Match::default().header_like("h", "("), "matches[0], headers[0], regex"),
        (Match::default().parameter_like("q", "["), "matches[0], queryParams[0], regex"),
        (grpc("a", "", false), "matches[0], grpc"),
    ];
    for (bad, place) in rows {
        let place = format!("HTTPRoute shop/r, rules[0], {place}");
        assert_eq!(invalid(vec![rule("a", vec![bad.clone()])]).place, place, "{bad:?}");
    }
}
