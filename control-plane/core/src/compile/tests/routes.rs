//! Routes: where they attach, which goes first, what becomes of their backends.

use super::*;

const TO_CART: &str = "[{backendRefs: [{name: cart, port: 80}]}]";

#[test]
fn a_route_attaches_to_the_ports_that_its_parent_names() {
    for (parent, web, admin) in [
        ("name: catalog", true, true),
        ("name: catalog, port: 80", true, false),
        ("name: catalog, port: 9000", false, true),
        ("name: catalog, sectionName: admin", false, true),
        ("name: catalog, sectionName: web, port: 80", true, false),
        ("name: catalog, namespace: shop", true, true),
    ] {
        let compiled = shop(&http_route("r", parent, TO_CART));
        assert_eq!(
            compiled.says(Kind::HttpRoute, "shop", "r", Accepted),
            "True/Accepted: in force",
            "{parent}"
        );
        assert_eq!(compiled.routes("shop/catalog:80", "any").len(), usize::from(web), "{parent}");
        assert_eq!(compiled.routes("shop/catalog:9000", "any").len(), usize::from(admin), "{parent}");
    }
}

#[test]
fn a_parent_that_is_not_there_or_cannot_have_routes_is_refused() {
    let more = "
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: away, namespace: shop}
spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: secure, namespace: shop}
spec: {clusterIP: 10.96.1.1, ports: [{port: 443, appProtocol: https}, {port: 53, name: dns, protocol: UDP}]}
";
    for (parent, expected) in [
        ("name: gone", "Service shop/gone is not there"),
        ("name: catalog, namespace: web", "Service web/catalog is not there"),
        ("name: catalog, port: 81", "Service shop/catalog has no TCP port 81"),
        ("name: catalog, sectionName: nope", "Service shop/catalog has no TCP port nope"),
        (
            "name: catalog, sectionName: web, port: 9000",
            "Service shop/catalog has no TCP port 9000 named web",
        ),
        ("name: secure, port: 53", "Service shop/secure has no TCP port 53"),
        ("name: secure, port: 443", "the port of Service shop/secure is declared \"https\""),
        ("name: peers", "Service shop/peers is headless"),
        ("name: away", "Service shop/away is an ExternalName"),
    ] {
        let compiled = shop(&format!("{more}{}", http_route("r", parent, TO_CART)));
        let says = compiled.says(Kind::HttpRoute, "shop", "r", Accepted);
        assert!(says.starts_with(&format!("False/NoMatchingParent: {expected}")), "{parent}: {says}");
    }
}

#[test]
fn parents_of_other_kinds_are_not_ours() {
    let yaml = |parent: &str| {
        http_route("r", "name: catalog", TO_CART).replace("{group: '', kind: Service, name: catalog}", parent)
    };
    for parent in [
        "{name: edge}",
        "{kind: Gateway, name: edge}",
        "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}",
        "{group: example.com, kind: Service, name: catalog}",
    ] {
        let compiled = shop(&yaml(parent));
        assert!(compiled.report.objects.is_empty(), "{parent}");
        assert_eq!(compiled.outbound("shop/catalog:80", "shop").route_kind, None);
    }
    for parent in [
        "{group: '', kind: Service, name: catalog}",
        "{group: core, kind: Service, name: catalog}",
        "{kind: Service, name: catalog}",
    ] {
        assert_eq!(shop(&yaml(parent)).routes("shop/catalog:80", "shop"), ["r"], "{parent}");
    }
    let both = shop(&yaml("{name: edge}, {group: '', kind: Service, name: catalog}"));
    assert_eq!(both.object(Kind::HttpRoute, "shop", "r").verdicts.len(), 1, "only the parent that is ours");
    let slip = shop(&yaml("{group: gateway.networking.k8s.io, kind: Service, name: catalog}"));
    assert_eq!(
        slip.object(Kind::HttpRoute, "shop", "r").warnings,
        ["the group of parent Service \"catalog\" should be \"\""]
    );
}

#[test]
fn each_parent_has_its_own_verdict() {
    let yaml = http_route("r", "name: catalog", TO_CART)
        .replace("name: catalog}", "name: catalog, port: 80}, {group: '', kind: Service, name: gone}");
    let compiled = shop(&yaml);
    let verdicts = &compiled.object(Kind::HttpRoute, "shop", "r").verdicts;
    let accepted: Vec<bool> = verdicts.iter().map(|verdict| verdict.conditions[0].status).collect();
    assert_eq!(accepted, [true, false]);
    assert!(!compiled.object(Kind::HttpRoute, "shop", "r").is_accepted());
    assert_eq!(compiled.routes("shop/catalog:80", "shop"), ["r"]);
}

#[test]
fn routes_of_one_port_are_sorted_by_age_and_then_by_name() {
    let dated = |name: &str, date: &str| {
        http_route(name, "name: catalog", TO_CART)
            .replace("namespace: shop}", &format!("namespace: shop, creationTimestamp: '{date}'}}"))
    };
    let yaml = [
        http_route("a-undated", "name: catalog", TO_CART),
        dated("c", "2026-01-02T00:00:00Z"),
        dated("b", "2026-01-02T00:00:00Z"),
        dated("z", "2026-01-01T00:00:00Z"),
    ]
    .concat();
    assert_eq!(shop(&yaml).routes("shop/catalog:80", "shop"), ["z", "b", "c", "a-undated"]);
}

#[test]
fn a_route_that_names_a_port_twice_is_attached_once() {
    let yaml = http_route("r", "name: catalog", TO_CART)
        .replace("name: catalog}", "name: catalog}, {group: '', kind: Service, name: catalog, port: 80}");
    assert_eq!(shop(&yaml).routes("shop/catalog:80", "shop"), ["r"]);
}

#[test]
fn consumer_routes_replace_the_producers_for_clients_of_their_namespace_only() {
    let yaml = [
        http_route("producer", "name: catalog", TO_CART),
        route(
            "HTTPRoute",
            "web",
            "consumer",
            "name: catalog, namespace: shop, port: 80",
            "[{backendRefs: [{name: cart, namespace: shop, port: 80}]}]",
        ),
    ]
    .concat();
    let compiled = shop(&yaml);
    assert_eq!(compiled.routes("shop/catalog:80", "web"), ["consumer"]);
    assert_eq!(compiled.routes("shop/catalog:80", "shop"), ["producer"]);
    assert_eq!(compiled.routes("shop/catalog:80", "other"), ["producer"]);
    assert_eq!(compiled.routes("shop/catalog:9000", "web"), ["producer"], "another port, no consumer route");
    let consumer = &compiled.outbound("shop/catalog:80", "web").routes[0].rules[0];
    assert_eq!(consumer.backends[0].backend, "shop/cart:80", "across namespaces without a grant");
    assert_eq!(
        compiled.says(Kind::HttpRoute, "web", "consumer", ResolvedRefs),
        "True/ResolvedRefs: all references are good"
    );
}

#[test]
fn consumer_routes_alone_leave_other_clients_without_routes() {
    let compiled = shop(&route("HTTPRoute", "web", "consumer", "name: catalog, namespace: shop", "[{}]"));
    assert_eq!(compiled.outbound("shop/catalog:80", "web").route_kind, Some(RouteKind::Http));
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").route_kind, None);
    let inbound = compiled.inbound("shop/catalog-0");
    assert_eq!(
        inbound.ports[0].protocol,
        Protocol::Unspecified,
        "a stranger's route says nothing of the pod"
    );
}

#[test]
fn grpc_goes_before_http_on_one_port_and_the_loser_is_conflicted() {
    let grpc = |parent: &str| route("GRPCRoute", "shop", "g", parent, TO_CART);
    let compiled =
        shop(&[http_route("h", "name: catalog, port: 80", TO_CART), grpc("name: catalog")].concat());
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").route_kind, Some(RouteKind::Grpc));
    assert_eq!(compiled.routes("shop/catalog:80", "shop"), ["g"]);
    assert_eq!(
        compiled.says(Kind::HttpRoute, "shop", "h", Accepted),
        "False/Conflicted: a GRPCRoute has precedence on port 80"
    );

    let apart = shop(
        &[http_route("h", "name: catalog, port: 80", TO_CART), grpc("name: catalog, port: 9000")].concat(),
    );
    assert_eq!(
        (apart.routes("shop/catalog:80", "shop"), apart.routes("shop/catalog:9000", "shop")),
        (vec!["h"], vec!["g"])
    );

    let partly =
        shop(&[http_route("h", "name: catalog", TO_CART), grpc("name: catalog, port: 9000")].concat());
    assert_eq!(partly.routes("shop/catalog:80", "shop"), ["h"]);
    assert_eq!(
        partly.says(Kind::HttpRoute, "shop", "h", Accepted),
        "True/Accepted: in force, except that a GRPCRoute has precedence on port 9000"
    );
}

#[test]
fn a_consumer_grpc_route_does_not_clash_with_a_producer_http_route() {
    let yaml = [
        http_route("h", "name: catalog", TO_CART),
        route(
            "GRPCRoute",
            "web",
            "g",
            "name: catalog, namespace: shop",
            "[{backendRefs: [{name: cart, namespace: shop, port: 80}]}]",
        ),
    ]
    .concat();
    let compiled = shop(&yaml);
    assert_eq!(compiled.outbound("shop/catalog:80", "web").route_kind, Some(RouteKind::Grpc));
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").route_kind, Some(RouteKind::Http));
    assert!(compiled.object(Kind::HttpRoute, "shop", "h").is_accepted());
}

#[test]
fn a_refused_grpc_route_takes_nothing_from_an_http_route() {
    let grpc = route("GRPCRoute", "shop", "g", "name: catalog", "[{name: a}, {name: a}]");
    let compiled = shop(&[http_route("h", "name: catalog", TO_CART), grpc].concat());
    assert_eq!(compiled.routes("shop/catalog:80", "shop"), ["h"]);
    assert!(compiled.object(Kind::HttpRoute, "shop", "h").is_accepted());
}

#[test]
fn a_grpc_route_of_which_no_rule_works_takes_nothing_from_an_http_route_that_does() {
    let grpc = route("GRPCRoute", "shop", "g", "name: catalog", "[{sessionPersistence: {}}]");
    let compiled = shop(&[http_route("h", "name: catalog", TO_CART), grpc.clone()].concat());
    assert_eq!(compiled.routes("shop/catalog:80", "shop"), ["h"]);
    assert!(compiled.object(Kind::HttpRoute, "shop", "h").is_accepted());
    assert!(!compiled.object(Kind::GrpcRoute, "shop", "g").is_accepted());
    assert_eq!(reply(shop(&grpc).rule()), "500 sessionPersistence is not supported yet", "alone it answers");
}

#[test]
fn grpc_means_http2_to_backends_and_at_the_pod_declared_or_not() {
    let grpc = route("GRPCRoute", "shop", "g", "name: catalog, port: 80", TO_CART);
    let compiled = shop(&grpc);
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").protocol, Protocol::Http2);
    assert_eq!(compiled.config.backend("shop/cart:80").unwrap().protocol, Protocol::Http2);
    assert_eq!(compiled.inbound("shop/cart-0").ports[0].protocol, Protocol::Http2);
    assert_eq!(compiled.inbound("shop/catalog-0").ports[0].protocol, Protocol::Http2);

    let both = shop(&[grpc, http_route("h", "name: catalog, port: 9000", TO_CART)].concat());
    assert_eq!(
        both.config.backend("shop/cart:80").unwrap().protocol,
        Protocol::Unspecified,
        "HTTP is routed there too"
    );
}

#[test]
fn an_http_route_makes_the_port_http_where_nothing_is_declared() {
    let compiled = shop(&http_route("h", "name: catalog, port: 80", TO_CART));
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").protocol, Protocol::Http1);
    assert_eq!(compiled.inbound("shop/catalog-0").ports[0].protocol, Protocol::Http1);
    assert_eq!(compiled.config.backend("shop/cart:80").unwrap().protocol, Protocol::Unspecified);
    assert_eq!(compiled.inbound("shop/cart-0").ports[0].protocol, Protocol::Unspecified);
}

fn rule(rule: &str) -> crate::compile::Compiled {
    shop(&http_route("r", "name: catalog, port: 80", &format!("[{{{rule}}}]")))
}

#[test]
fn an_invalid_backend_keeps_its_share_and_the_route_stays_accepted() {
    let more = "
apiVersion: v1
kind: Service
metadata: {name: away, namespace: shop}
spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {ports: [{port: 5432, appProtocol: postgres}, {port: 443, name: s, appProtocol: https}]}
";
    for (reference, reason, text) in [
        ("name: gone, port: 80", "BackendNotFound", "Service shop/gone is not there"),
        ("name: cart, port: 81", "BackendNotFound", "Service shop/cart has no TCP port 81"),
        ("name: cart", "BackendNotFound", "the reference to Service shop/cart names no port"),
        ("name: cart, namespace: web, port: 80", "BackendNotFound", "Service web/cart is not there"),
        (
            "name: away, port: 80",
            "InvalidKind",
            "Service shop/away is an ExternalName, which has no endpoints",
        ),
        (
            "name: cart, kind: Deployment, port: 80",
            "InvalidKind",
            "backend Deployment \"cart\" is not supported: only a Service is",
        ),
        (
            "name: cart, group: example.com, port: 80",
            "InvalidKind",
            "backend Service \"cart\" is not supported: only a Service is",
        ),
        (
            "name: db, port: 5432",
            "UnsupportedProtocol",
            "shop/db:5432 is declared \"postgres\", which routes cannot speak",
        ),
        (
            "name: db, port: 443",
            "UnsupportedProtocol",
            "shop/db:443 is declared \"https\", which routes cannot speak",
        ),
    ] {
        let rules = format!(
            "[{{backendRefs: [{{name: catalog, port: 80, weight: 7}}, {{{reference}, weight: 3}}]}}]"
        );
        let compiled = shop(&format!("{more}{}", http_route("r", "name: catalog, port: 80", &rules)));
        assert_eq!(compiled.says(Kind::HttpRoute, "shop", "r", Accepted), "True/Accepted: in force");
        assert_eq!(
            compiled.says(Kind::HttpRoute, "shop", "r", ResolvedRefs),
            format!("False/{reason}: rule 0: {text}")
        );
        let expected = WeightedBackend {
            backend: String::new(),
            invalid: text.to_owned(),
            weight: 3,
            filters: Vec::new(),
        };
        assert_eq!(compiled.rule().backends[1], expected);
        assert_eq!((compiled.rule().backends[0].weight, compiled.rule().filters.len()), (7, 0));
    }
}

#[test]
fn an_invalid_backend_of_weight_0_does_not_disturb_the_others() {
    let compiled = rule("backendRefs: [{name: cart, port: 80, weight: 1}, {name: gone, port: 1, weight: 0}]");
    let shares: Vec<(&str, u32)> =
        compiled.rule().backends.iter().map(|one| (one.backend.as_str(), one.weight)).collect();
    assert_eq!(shares, [("shop/cart:80", 1), ("", 0)]);
    assert_eq!(reply(compiled.rule()), "");
    assert_eq!(compiled.says(Kind::HttpRoute, "shop", "r", Accepted), "True/Accepted: in force");
}

#[test]
fn a_rule_that_would_send_nowhere_answers_500_with_the_reason() {
    for (text, expected) in [
        ("name: a", "500 the rule names no backend"),
        ("backendRefs: []", "500 the rule names no backend"),
        ("backendRefs: [{name: cart, port: 80, weight: 0}]", "500 every backend of the rule has weight 0"),
        ("filters: [{type: URLRewrite, urlRewrite: {hostname: x.example}}]", "500 the rule names no backend"),
        ("filters: [{type: RequestRedirect, requestRedirect: {}}]", ""),
        ("backendRefs: [{name: cart, port: 80}]", ""),
    ] {
        let compiled = rule(text);
        assert_eq!(reply(compiled.rule()), expected, "{text}");
        assert_eq!(
            compiled.says(Kind::HttpRoute, "shop", "r", Accepted),
            "True/Accepted: in force",
            "{text}"
        );
    }
}

#[test]
fn an_http_route_without_rules_answers_500_to_all_and_a_grpc_route_without_rules_matches_nothing() {
    let bare = |kind: &str| {
        let yaml = route(kind, "shop", "r", "name: catalog, port: 80", "[]");
        shop(&yaml.replace("  rules: []\n", ""))
    };
    assert_eq!(reply(bare("HTTPRoute").rule()), "500 the rule names no backend");
    let grpc = bare("GRPCRoute");
    let outbound = grpc.outbound("shop/catalog:80", "shop");
    assert_eq!((outbound.route_kind, outbound.routes[0].rules.len()), (Some(RouteKind::Grpc), 0));
}

#[test]
fn defaults_are_filled_in() {
    let compiled = rule("backendRefs: [{name: cart, port: 80}]");
    assert_eq!(format!("{:?}", compiled.rule().matches[0].path), "Prefix(\"/\")");
    assert_eq!(compiled.rule().backends[0].weight, 1);
    let redirect = rule("filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]");
    assert!(
        format!("{:?}", redirect.rule().filters)
            .contains("status: 302, scheme: \"https\", hostname: \"\", port: 0")
    );
    let prefix =
        rule("matches: [{path: {value: /a/}}, {path: {value: /}}, {path: {type: Exact, value: /a/}}]");
    let paths: Vec<String> = prefix.rule().matches.iter().map(|one| format!("{:?}", one.path)).collect();
    assert_eq!(paths, ["Prefix(\"/a\")", "Prefix(\"/\")", "Exact(\"/a/\")"]);
}

#[test]
fn timeouts_of_a_rule_are_spans_and_zero_is_kept() {
    let compiled =
        rule("timeouts: {request: 0s, backendRequest: 1500ms}, backendRefs: [{name: cart, port: 80}]");
    let seconds = |span: Option<std::time::Duration>| span.map(|span| span.as_secs_f64());
    assert_eq!(
        (seconds(compiled.rule().request_timeout), seconds(compiled.rule().backend_request_timeout)),
        (Some(0.0), Some(1.5))
    );
}

#[test]
fn filters_keep_their_order_and_backends_their_own() {
    let compiled = rule(
        "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [X-Old]}}, {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '1'}], add: [{name: X-B, value: '2'}]}}, {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}], backendRefs: [{name: cart, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-C, value: '3'}]}}]}]",
    );
    let kinds = format!("{:?}", compiled.rule().filters);
    let order = ["ResponseHeaders", "x-old", "RequestHeaders", "x-a", "x-b", "Rewrite", "Prefix(\"\")"];
    let places: Vec<usize> =
        order.iter().map(|word| kinds.find(word).unwrap_or_else(|| panic!("{word} in {kinds}"))).collect();
    assert!(places.is_sorted(), "{kinds}");
    assert!(format!("{:?}", compiled.rule().backends[0].filters).contains("x-c"));
}

#[test]
fn a_backends_filter_that_is_not_supported_spoils_its_share_only() {
    let compiled = rule(
        "backendRefs: [{name: cart, port: 80}, {name: catalog, port: 80, filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]",
    );
    let invalid: Vec<&str> = compiled.rule().backends.iter().map(|one| one.invalid.as_str()).collect();
    assert_eq!(invalid, ["", "filter ExtensionRef is not supported yet"]);
    let says = compiled.says(Kind::HttpRoute, "shop", "r", PartiallyInvalid);
    assert_eq!(
        says,
        "True/UnsupportedValue: Dropped Rule: rule 0: the share of backend 1 answers 500: filter ExtensionRef is not supported yet"
    );
}

#[test]
fn a_route_says_where_it_was_written_and_in_which_generation() {
    let yaml = http_route("r", "name: gone", TO_CART).replace("name: r,", "name: r, generation: 4,");
    let compiled = shop(&yaml);
    let object = compiled.object(Kind::HttpRoute, "shop", "r");
    assert_eq!(
        (object.generation, object.position.as_ref().map(ToString::to_string)),
        (Some(4), Some("shop.yaml:1".to_owned()))
    );
    assert_eq!(
        compiled.report.lines(),
        ["shop.yaml:1: HTTPRoute shop/r: Accepted/NoMatchingParent: Service shop/gone is not there"]
    );
}

#[test]
fn a_route_may_come_before_its_service() {
    let mut model = model("");
    add(&mut model, &http_route("r", "name: catalog", TO_CART));
    assert!(!build(&model).object(Kind::HttpRoute, "shop", "r").is_accepted());
    add(&mut model, SHOP);
    let compiled = build(&model);
    assert!(compiled.object(Kind::HttpRoute, "shop", "r").problems().into_iter().map(text).next().is_none());
    model.remove(Kind::Service, "shop", "cart");
    assert_eq!(
        build(&model).says(Kind::HttpRoute, "shop", "r", ResolvedRefs),
        "False/BackendNotFound: rule 0: Service shop/cart is not there"
    );
}

#[test]
fn references_are_direct_sorted_and_each_once() {
    let compiled =
        rule("backendRefs: [{name: cart, port: 80}, {name: cart, port: 80}, {name: gone, port: 1}]");
    let references = compiled.config.references(&Key::new(ResourceType::Outbound, "shop/catalog:80"));
    let names: Vec<&str> = references.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["shop/cart:80", "shop/catalog:80"]);
    assert_eq!(compiled.config.references(&Key::new(ResourceType::Outbound, "none")), Vec::new());
}
