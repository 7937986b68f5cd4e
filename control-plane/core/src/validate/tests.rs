//! What of a route or policy makes sense by itself.

use super::*;
use crate::{
    fixtures::{documents, http_route, model, reply, route as route_yaml, shop},
    model::{Kind, read},
    report::ConditionType,
};

/// Status of the route "r" in shop, by condition, for one text of rules on catalog's port 80.
fn says(rules: &str, condition: ConditionType) -> String {
    shop(&http_route("r", "name: catalog, port: 80", rules)).says(Kind::HttpRoute, "shop", "r", condition)
}

const TO_CATALOG: &str = "backendRefs: [{name: catalog, port: 80}]";

#[test]
fn a_filter_or_field_that_is_not_supported_answers_500_by_name() {
    for (rule, expected) in [
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: cart, port: 80}}}]",
            "filter RequestMirror",
        ),
        ("filters: [{type: CORS, cors: {allowOrigins: ['*']}}]", "filter CORS"),
        (
            "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: cart, port: 80}}}]",
            "filter ExternalAuth",
        ),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]",
            "filter ExtensionRef",
        ),
        ("retry: {attempts: 2}", "retry"),
        ("sessionPersistence: {sessionName: s}", "sessionPersistence"),
    ] {
        let compiled =
            shop(&http_route("r", "name: catalog, port: 80", &format!("[{{{rule}, {TO_CATALOG}}}]")));
        assert_eq!(reply(compiled.rule()), format!("500 {expected} is not supported yet"), "{rule}");
        assert_eq!(compiled.rule().backends, Vec::new(), "{rule}");
        let accepted = compiled.says(Kind::HttpRoute, "shop", "r", ConditionType::Accepted);
        let text = format!("rule 0 answers 500: {expected} is not supported yet");
        assert_eq!(accepted, format!("False/UnsupportedValue: Dropped Rule: {text}"));
    }
}

#[test]
fn while_one_rule_works_the_route_is_accepted_and_partially_invalid() {
    let rules = format!(
        "[{{name: good, {TO_CATALOG}}}, {{name: odd, matches: [{{path: {{value: /odd}}}}], retry: {{attempts: 1}}, {TO_CATALOG}}}]"
    );
    let compiled = shop(&http_route("r", "name: catalog, port: 80", &rules));
    let says = |condition| compiled.says(Kind::HttpRoute, "shop", "r", condition);
    assert_eq!(says(ConditionType::Accepted), "True/Accepted: in force");
    assert_eq!(
        says(ConditionType::PartiallyInvalid),
        "True/UnsupportedValue: Dropped Rule: rule 1 (odd) answers 500: retry is not supported yet"
    );
    let rules = &compiled.outbound("shop/catalog:80", "shop").routes[0].rules;
    assert_eq!(
        (reply(&rules[0]), reply(&rules[1])),
        (String::new(), "500 retry is not supported yet".to_owned())
    );
}

#[test]
fn a_rule_whose_match_is_not_understood_is_dropped_and_the_others_stay() {
    let regex = "matches: [{path: {type: RegularExpression, value: '/a('}}]";
    let rules = format!("[{{{regex}, {TO_CATALOG}}}, {{name: good, {TO_CATALOG}}}]");
    let compiled = shop(&http_route("r", "name: catalog, port: 80", &rules));
    assert_eq!((compiled.rule().name.as_str(), compiled.rule().index), ("good", 1));
    let says = compiled.says(Kind::HttpRoute, "shop", "r", ConditionType::PartiallyInvalid);
    assert!(
        says.starts_with("True/UnsupportedValue: Dropped Rule: rule 0: match 0: \"/a(\" is no regular"),
        "{says}"
    );
}

#[test]
fn a_route_of_which_no_rule_can_match_attaches_to_nothing() {
    let rules = "[{matches: [{path: {type: Exact, value: no-slash}}]}]";
    let compiled = shop(&http_route("r", "name: catalog, port: 80", rules));
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").route_kind, None);
    let says = compiled.says(Kind::HttpRoute, "shop", "r", ConditionType::Accepted);
    assert!(says.starts_with("False/UnsupportedValue: Dropped Rule: rule 0"), "{says}");
}

#[test]
fn what_concerns_the_whole_route_refuses_it() {
    let many = |count: usize, item: &str| vec![item; count].join(", ");
    let matches = format!("{{matches: [{}]}}", many(64, "{}"));
    for (rules, expected) in [
        (format!("[{}]", many(17, "{}")), "17 rules; a route may have 16"),
        (format!("[{}]", many(3, &matches)), "192 matches; a route may have 128"),
        ("[{name: a}, {name: a}]".to_owned(), "two rules are named \"a\""),
        ("[{name: 'A b'}]".to_owned(), "\"A b\" is no name of a rule"),
    ] {
        let compiled = shop(&http_route("r", "name: catalog, port: 80", &rules));
        let says = compiled.says(Kind::HttpRoute, "shop", "r", ConditionType::Accepted);
        assert!(says.starts_with(&format!("False/UnsupportedValue: {expected}")), "{says}");
        assert_eq!(compiled.outbound("shop/catalog:80", "shop").route_kind, None, "{expected}");
    }
    let yaml = http_route("r", "name: catalog, port: 80", "[{}]")
        .replace("spec:", "spec:\n  useDefaultGateways: All");
    let says = shop(&yaml).says(Kind::HttpRoute, "shop", "r", ConditionType::Accepted);
    assert_eq!(says, "False/UnsupportedValue: useDefaultGateways is not supported yet");
}

#[test]
fn values_that_an_api_server_would_refuse_are_refused_here() {
    let header = |change: &str| {
        format!("filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {change}}}], {TO_CATALOG}")
    };
    let redirect = |fields: &str| format!("filters: [{{type: RequestRedirect, requestRedirect: {fields}}}]");
    let rewrite =
        |fields: &str| format!("filters: [{{type: URLRewrite, urlRewrite: {fields}}}], {TO_CATALOG}");
    for (rule, expected) in [
        (header("{set: [{name: 'a b', value: x}]}"), "\"a b\" is no header name"),
        (header("{set: [{name: a, value: \"x\\ny\"}]}"), "is no header value"),
        (header("{set: [{name: a, value: x}], add: [{name: A, value: y}]}"), "header \"A\" is there twice"),
        (header("{remove: [a, A]}"), "header \"A\" is there twice"),
        ("filters: [{type: RequestHeaderModifier}]".to_owned(), "lacks its stanza"),
        (
            format!("filters: [{0}, {0}], {TO_CATALOG}", "{type: URLRewrite, urlRewrite: {}}"),
            "filter URLRewrite is there twice",
        ),
        (redirect("{statusCode: 300}"), "301, 302, 303, 307 or 308"),
        (redirect("{port: 0}"), "0 is no port"),
        (redirect("{hostname: '*.example.com'}"), "is no host name"),
        (redirect("{path: {type: ReplaceFullPath, replacePrefixMatch: /x}}"), "has the field of that name"),
        (redirect("{path: {type: ReplaceFullPath, replaceFullPath: '/a b'}}"), "no path has"),
        (format!("{}, {TO_CATALOG}", redirect("{}")), "RequestRedirect and backendRefs exclude"),
        (rewrite("{hostname: 'Example.com'}"), "is no host name"),
        (
            format!(
                "matches: [{{}}, {{}}], {}",
                rewrite("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}")
            ),
            "needs exactly one match",
        ),
        (
            format!(
                "matches: [{{path: {{type: Exact, value: /a}}}}], {}",
                rewrite("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}")
            ),
            "needs exactly one match",
        ),
        ("backendRefs: [{name: catalog, port: 80, weight: -1}]".to_owned(), "is not 0 to 1000000"),
        ("backendRefs: [{name: catalog, port: 80, weight: 1000001}]".to_owned(), "is not 0 to 1000000"),
        (format!("timeouts: {{request: 1d}}, {TO_CATALOG}"), "\"1d\" is not a duration"),
        (
            format!("timeouts: {{request: 1s, backendRequest: 2s}}, {TO_CATALOG}"),
            "backendRequest is longer than timeouts.request",
        ),
    ] {
        let accepted = says(&format!("[{{{rule}}}]"), ConditionType::Accepted);
        assert!(accepted.starts_with("False/") && accepted.contains(expected), "{rule}: {accepted}");
    }
}

#[test]
fn incompatible_filters_have_a_reason_of_their_own() {
    let both =
        "[{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]";
    assert!(says(both, ConditionType::Accepted).starts_with("False/IncompatibleFilters: "));
}

#[test]
fn paths_are_those_of_the_gateway_api() {
    for (path, good) in [
        ("/", true),
        ("/a/b.c", true),
        ("/a%20b", true),
        ("/%zz", false),
        ("/%2", false),
        ("a", false),
        ("", false),
        ("/a//b", false),
        ("/a/./b", false),
        ("/a/../b", false),
        ("/a/..", false),
        ("/a/.", false),
        ("/a%2Fb", false),
        ("/a#b", false),
        ("/a?b", false),
        ("/a b", false),
        ("/\u{e9}", false),
        ("/...", true),
    ] {
        assert_eq!(text::path(path).is_ok(), good, "{path}");
    }
    assert!(text::path(&format!("/{}", "a".repeat(1024))).is_err());
}

#[test]
fn regular_expressions_are_checked_and_bounded() {
    for (pattern, good) in [
        ("/v[0-9]+/.*", true),
        (r"\d+\w\s", true),
        ("a|b", true),
        ("", true),
        ("(", false),
        ("a)(?:b", false),
        (r"(a)\1", false),
        ("(?=a)", false),
        ("(?x)a#", false),
    ] {
        assert_eq!(text::regex(pattern).is_ok(), good, "{pattern}");
    }
    assert!(text::regex("(?:a{1000}){1000}").is_err(), "compiles to too much");
    assert!(text::regex(&"a".repeat(4097)).is_err());
}

#[test]
fn header_names_are_lower_case_and_the_first_of_a_name_counts() {
    let rules = format!(
        "[{{matches: [{{headers: [{{name: X-A, value: '1'}}, {{name: x-a, value: '2'}}], queryParams: [{{name: Q, value: '1'}}, {{name: q, value: '2'}}, {{name: Q, value: '3'}}]}}], {TO_CATALOG}}}]"
    );
    let compiled = shop(&http_route("r", "name: catalog, port: 80", &rules));
    let only = &compiled.rule().matches[0];
    let names = |list: &[crate::config::KeyMatch]| {
        list.iter().map(|one| format!("{} {:?}", one.name, one.value)).collect::<Vec<_>>()
    };
    assert_eq!(names(&only.headers), ["x-a Exact(\"1\")"]);
    assert_eq!(names(&only.query), ["Q Exact(\"1\")", "q Exact(\"2\")"]);
}

#[test]
fn hostnames_are_ignored_and_said_to_be() {
    let yaml = http_route("r", "name: catalog", &format!("[{{{TO_CATALOG}}}]"))
        .replace("spec:", "spec:\n  hostnames: [shop.example.com]");
    let compiled = shop(&yaml);
    assert_eq!(compiled.routes("shop/catalog:80", "shop"), ["r"]);
    let warnings = &compiled.object(Kind::HttpRoute, "shop", "r").warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("hostnames are ignored"), "{warnings:?}");
}

#[test]
fn kinds_that_are_not_supported_yet_are_refused_by_name() {
    for (kind, version) in [("TLSRoute", "v1"), ("TCPRoute", "v1alpha2"), ("UDPRoute", "v1")] {
        let yaml = format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: t}}\nspec: {{rules: []}}"
        );
        let report = validate(&model(&yaml));
        let (key, object) = report.objects.first_key_value().unwrap();
        assert_eq!(key.to_string(), format!("{kind} default/t"));
        assert!(!object.is_accepted());
        let expected =
            format!("shop.yaml:1: {kind} default/t: Accepted/UnsupportedValue: {kind} is not supported yet");
        assert!(report.lines()[0].starts_with(&expected), "{:?}", report.lines());
    }
}

#[test]
fn grpc_matches_name_a_service_or_a_method() {
    let problem = |method: &str| {
        let rules = format!("[{{matches: [{{method: {method}}}], {TO_CATALOG}}}]");
        let compiled = shop(&route_yaml("GRPCRoute", "shop", "g", "name: catalog, port: 80", &rules));
        compiled.says(Kind::GrpcRoute, "shop", "g", ConditionType::Accepted)
    };
    for good in [
        "{service: a.B, method: C}",
        "{method: C}",
        "{service: a.B}",
        "{type: RegularExpression, service: 'a\\..*'}",
    ] {
        assert_eq!(problem(good), "True/Accepted: in force", "{good}");
    }
    for bad in ["{}", "{service: a/b}", "{type: RegularExpression, method: '('}", "{service: 'a b'}"] {
        assert!(problem(bad).starts_with("False/UnsupportedValue"), "{bad}");
    }
}

/// What is wrong with an object by itself.
fn problems(yaml: &str) -> Vec<String> {
    object(&read(documents(yaml)[0].clone()).unwrap().unwrap().object)
}

fn own(kind: &str, spec: &str) -> String {
    let name = if kind == "Mesh" { "mesh" } else { "p" };
    format!("apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}")
}

fn telling(rest: &str) -> String {
    format!("{{targetRefs: [{{kind: Namespace}}], {rest}}}")
}

fn collector(endpoint: &str, rest: &str) -> String {
    telling(&format!("tracing: {{export: {{endpoint: '{endpoint}', {rest}}}}}"))
}

#[test]
fn settings_out_of_range_are_refused_by_field() {
    let service = "targetRefs: [{kind: Service, name: s}]";
    for (kind, spec, expected) in [
        ("TrafficPolicy", format!("{{{service}, limits: {{maxConnections: 0}}}}"), "limits.maxConnections is 0"),
        ("TrafficPolicy", format!("{{{service}, retryBudget: {{percent: 101}}}}"), "retryBudget.percent is above 100"),
        ("TrafficPolicy", format!("{{{service}, connectTimeout: 0s}}"), "connectTimeout is 0s"),
        ("TrafficPolicy", format!("{{{service}, fallback: {{name: f, port: 0}}}}"), "fallback.port is 0"),
        (
            "TrafficPolicy",
            format!("{{{service}, outlier: {{baseEjection: 10s, maxEjection: 5s}}}}"),
            "maxEjection is below",
        ),
        ("TlsPolicy", "{targetRefs: [{kind: Namespace}], mode: Strict, ports: [{port: 0, mode: Strict}]}".to_owned(), "0 is no port"),
        (
            "TlsPolicy",
            "{targetRefs: [{kind: Namespace}], mode: Strict, ports: [{port: 1, mode: Strict}, {port: 1, mode: Permissive}]}".to_owned(),
            "port 1 is there twice",
        ),
        ("TelemetryPolicy", "{targetRefs: [{kind: Namespace}]}".to_owned(), "says something of tracing"),
        ("TelemetryPolicy", telling("tracing: {samplingPercent: 101}"), "tracing.samplingPercent is not 0 to 100"),
        ("TelemetryPolicy", telling("tracing: {perSecond: 1000001}"), "tracing.perSecond is above"),
        ("TelemetryPolicy", telling("accessLog: {samplingPercent: -1}"), "accessLog.samplingPercent is not 0 to 100"),
        ("TelemetryPolicy", telling("accessLog: {query: ['']}"), "accessLog.query"),
        ("TelemetryPolicy", telling("accessLog: {headers: [{name: who, header: Cookie}]}"), "a header field that holds a secret"),
        ("TelemetryPolicy", telling("tracing: {attributes: [{name: 'a b', header: x-a}]}"), "is no name"),
        ("TelemetryPolicy", collector("jaeger:4317", ""), "begins neither with http://"),
        ("TelemetryPolicy", collector("http://", ""), "has no host and port"),
        ("TelemetryPolicy", collector("http://jaeger:0", ""), "has no host and port"),
        ("TelemetryPolicy", collector("http://a:b@jaeger", ""), "holds a user"),
        ("TelemetryPolicy", collector("http://jaeger/?key=1", ""), "has a path with other characters"),
        ("TelemetryPolicy", collector("http://jaeger/otlp", ""), "has a path, of which OtlpGrpc has none"),
        ("TelemetryPolicy", collector("http://[10.0.0.1]:1", ""), "no IPv6 address"),
        ("TelemetryPolicy", collector("https://jaeger", ""), "caBundle goes with"),
        ("TelemetryPolicy", collector("https://jaeger", "caBundle: roots.pem"), "caBundle does not begin with"),
        ("TelemetryPolicy", collector("http://jaeger", "timeout: 0s"), "timeout is 0s"),
        ("TelemetryPolicy", collector("http://jaeger", "headers: [{name: Host, value: a}]"), "Host is written by the sidecar"),
        ("TelemetryPolicy", collector("http://jaeger", "headers: [{name: a, value: b}, {name: A, value: b}]"), "A is there twice"),
        ("Mesh", "{trustDomain: 'Not A Domain'}".to_owned(), "is no trust domain"),
        ("Mesh", "{tracing: {samplingPercent: 101}}".to_owned(), "is not 0 to 100"),
    ] {
        let problems = problems(&own(kind, &spec));
        assert!(problems.len() == 1 && problems[0].contains(expected), "{spec}: {problems:?}");
    }
    for (kind, spec) in [
        ("TrafficPolicy", format!("{{{service}, requestTimeout: 0s, outlier: {{consecutiveFailures: 0}}}}")),
        (
            "TelemetryPolicy",
            collector(
                "http://[fd00::7]:4318/otlp",
                "protocol: OtlpHttp, headers: [{name: x-key, value: a b}]",
            ),
        ),
        ("TelemetryPolicy", collector("http://zipkin", "protocol: Zipkin, timeout: 100ms")),
        ("Mesh", "{trustDomain: example.org, tracing: {samplingPercent: 0.5}}".to_owned()),
    ] {
        assert_eq!(problems(&own(kind, &spec)), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn an_allow_rule_that_is_not_valid_allows_nothing_and_a_deny_rule_denies_everything() {
    for (entry, expected) in [
        ("from: [{identities: [shop/cart]}]", "is no identity"),
        ("from: [{identities: ['spiffe://*/ns/a']}]", "is no identity"),
        ("from: [{namespaces: ['Shop']}]", "is no namespace"),
        ("from: [{serviceAccounts: ['a/b/c']}]", "is no service account"),
        ("from: [{cidrs: [10.0.0.0/99]}]", "is no address block"),
        ("to: [{ports: [0]}]", "0 is no port"),
        ("to: [{methods: ['G T']}]", "is no method name"),
        ("to: [{paths: ['admin']}]", "is no path"),
        ("to: [{paths: ['/a*b']}]", "is no path"),
        ("to: [{paths: ['/a;v=1/*']}]", "\";\""),
        ("to: [{paths: ['/a%2Fb']}]", "%2f"),
        ("to: [{paths: ['/a%252e']}]", "%25"),
        ("to: [{paths: ['/a/%2E./b']}]", "dot segment"),
        ("to: [{paths: ['/a/../b*']}]", "dot segment"),
        ("to: [{paths: ['/a%00']}]", "control character"),
        ("to: [{paths: ['/a b']}]", "write it as %XX"),
    ] {
        for (action, rules, effect) in
            [("Allow", vec!["1"], "allows nothing"), ("Deny", vec!["0", "1"], "denies everything")]
        {
            let spec = format!(
                "{{targetRefs: [{{kind: Namespace}}], action: {action}, rules: [{{{entry}}}, {{from: [{{namespaces: [shop]}}]}}]}}"
            );
            let model = model(&own("AuthorizationPolicy", &spec));
            let checked = authorization::check(model.authorizations.values().next().unwrap());
            assert!(
                checked.problems[0].contains(expected) && checked.problems[0].contains(effect),
                "{:?}",
                checked.problems
            );
            let names: Vec<&str> = checked.resource.rules.iter().map(|rule| rule.name.as_str()).collect();
            assert_eq!(names, rules, "{action} {entry}");
            if action == "Deny" {
                assert!(checked.resource.rules[0].from.is_empty() && checked.resource.rules[0].to.is_empty());
            }
        }
    }
}

#[test]
fn an_authorization_is_written_out_for_the_wire() {
    let spec = "{targetRefs: [{kind: Namespace}], action: Deny, mode: Shadow, rules: [{name: n, from: [{identities: ['spiffe://cluster.local/ns/shop/*'], serviceAccounts: [cart, web/front], cidrs: [10.1.2.3/8, 10.0.0.1, 'fd00::/8']}], to: [{ports: [80], methods: [get], paths: [/admin/*, /x]}]}]}";
    let model = model(&own("AuthorizationPolicy", spec));
    let checked = authorization::check(model.authorizations.values().next().unwrap());
    assert_eq!(checked.problems, Vec::<String>::new());
    let (from, to) = (&checked.resource.rules[0].from[0], &checked.resource.rules[0].to[0]);
    assert!(checked.resource.shadow);
    assert_eq!(from.service_accounts, ["default/cart", "web/front"]);
    assert_eq!(from.cidrs, ["10.0.0.0/8", "10.0.0.1/32", "fd00::/8"]);
    assert_eq!((to.ports.as_slice(), to.methods[0].as_str(), to.paths.len()), ([80].as_slice(), "GET", 2));
}
