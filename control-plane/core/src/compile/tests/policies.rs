//! Policies: whom they apply to, which goes first, what is refused.

use super::*;
use crate::config::{AccessLog, Backend, LogFormat, MutualTls, Telemetry};

fn policy(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn allow(namespace: &str, name: &str, target: &str) -> String {
    policy("AuthorizationPolicy", namespace, name, &format!("targetRefs: [{target}], action: Allow"))
}

#[test]
fn authorizations_apply_to_workloads_services_namespaces_and_the_mesh() {
    for (yaml, catalog_0, catalog_1, cart) in [
        (allow("shop", "p", "{kind: Workload, selector: {app: catalog}}"), true, true, false),
        (allow("shop", "p", "{kind: Workload, selector: {app: catalog, version: v1}}"), true, false, false),
        (allow("shop", "p", "{kind: Service, name: cart}"), false, false, true),
        (allow("shop", "p", "{kind: Namespace}"), true, true, true),
        (allow("web", "p", "{kind: Namespace}"), false, false, false),
        (allow("web", "p", "{kind: Workload, selector: {app: catalog}}"), false, false, false),
        (allow("weft-system", "p", "{kind: Mesh}"), true, true, true),
        (
            allow("shop", "p", "{kind: Service, name: cart}, {kind: Workload, selector: {version: v2}}"),
            false,
            true,
            true,
        ),
    ] {
        let compiled = shop(&yaml);
        let applies = |pod: &str| !compiled.inbound(pod).authorizations.is_empty();
        let seen = (applies("shop/catalog-0"), applies("shop/catalog-1"), applies("shop/cart-0"));
        assert_eq!(seen, (catalog_0, catalog_1, cart), "{yaml}");
    }
}

#[test]
fn authorizations_stand_in_order_of_precedence_each_once() {
    let dated = |yaml: String, date: &str| {
        yaml.replace("metadata: {", &format!("metadata: {{creationTimestamp: '{date}', "))
    };
    let yaml = [
        allow("weft-system", "a-mesh", "{kind: Mesh}"),
        allow("shop", "b-namespace", "{kind: Namespace}"),
        allow("shop", "c-service", "{kind: Service, name: cart}"),
        allow("shop", "e-workload", "{kind: Workload, selector: {app: cart}}"),
        allow("shop", "d-workload", "{kind: Workload, selector: {app: cart}}"),
        dated(allow("shop", "z-oldest", "{kind: Workload, selector: {app: cart}}"), "2026-01-01T00:00:00Z"),
        allow("shop", "f-both", "{kind: Namespace}, {kind: Workload, selector: {app: cart}}"),
    ]
    .concat();
    assert_eq!(
        shop(&yaml).inbound("shop/cart-0").authorizations,
        [
            "shop/z-oldest",
            "shop/d-workload",
            "shop/e-workload",
            "shop/f-both",
            "shop/c-service",
            "shop/b-namespace",
            "weft-system/a-mesh"
        ]
    );
}

#[test]
fn a_service_target_reaches_the_pods_behind_slices() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: manual, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual-1, namespace: shop, labels: {kubernetes.io/service-name: manual}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.1.0.3]}]
";
    let compiled = shop(&format!("{yaml}{}", allow("shop", "p", "{kind: Service, name: manual}")));
    assert_eq!(compiled.inbound("shop/cart-0").authorizations, ["shop/p"]);
    assert_eq!(compiled.inbound("shop/catalog-0").authorizations, Vec::<String>::new());
}

#[test]
fn targets_that_make_no_sense_are_refused_and_the_others_stand() {
    for (kind, namespace, target, expected) in [
        (
            "AuthorizationPolicy",
            "shop",
            "{kind: Mesh}",
            "False/Invalid: only a policy in the namespace weft-system",
        ),
        (
            "AuthorizationPolicy",
            "shop",
            "{kind: Workload}",
            "False/Invalid: a target of kind Workload has a selector",
        ),
        (
            "AuthorizationPolicy",
            "shop",
            "{kind: Service}",
            "False/Invalid: a target of kind Service has a name",
        ),
        (
            "AuthorizationPolicy",
            "shop",
            "{kind: Namespace, name: shop}",
            "False/Invalid: a target of kind Namespace",
        ),
        (
            "AuthorizationPolicy",
            "shop",
            "{kind: Service, name: gone}",
            "False/TargetNotFound: Service shop/gone",
        ),
        (
            "AuthorizationPolicy",
            "web",
            "{kind: Service, name: cart}",
            "False/TargetNotFound: Service web/cart",
        ),
        (
            "TlsPolicy",
            "shop",
            "{kind: Service, name: cart}",
            "False/Invalid: a policy of this kind cannot target a Service",
        ),
        (
            "TrafficPolicy",
            "shop",
            "{kind: Namespace}",
            "False/Invalid: a policy of this kind cannot target a Namespace",
        ),
    ] {
        let rest = match kind {
            "AuthorizationPolicy" => ", action: Allow",
            "TlsPolicy" => ", mode: Strict",
            _ => "",
        };
        let compiled = shop(&policy(kind, namespace, "p", &format!("targetRefs: [{target}]{rest}")));
        let kinds = [Kind::AuthorizationPolicy, Kind::TlsPolicy, Kind::TrafficPolicy];
        let kind = kinds.into_iter().find(|known| known.as_str() == kind).unwrap();
        let says = compiled.says(kind, namespace, "p", Accepted);
        assert!(says.starts_with(expected), "{target}: {says}");
        assert!(compiled.inbound("shop/cart-0").authorizations.is_empty(), "{target}");
    }
    let partly = shop(&allow("shop", "p", "{kind: Service, name: gone}, {kind: Service, name: cart}"));
    assert_eq!(partly.inbound("shop/cart-0").authorizations, ["shop/p"]);
}

#[test]
fn a_policy_for_nothing_is_refused() {
    let compiled = shop(&policy("AuthorizationPolicy", "shop", "p", "targetRefs: [], action: Deny"));
    assert!(
        compiled
            .says(Kind::AuthorizationPolicy, "shop", "p", Accepted)
            .starts_with("False/Invalid: targetRefs is empty")
    );
}

#[test]
fn a_policy_that_is_not_valid_is_still_enforced_closed() {
    let spec = "targetRefs: [{kind: Namespace}], action: Allow, rules: [{from: [{cidrs: [nonsense]}]}]";
    let compiled = shop(&policy("AuthorizationPolicy", "shop", "p", spec));
    assert_eq!(compiled.inbound("shop/cart-0").authorizations, ["shop/p"]);
    let key = Key::new(ResourceType::Authorization, "shop/p");
    let Some(Resource::Authorization(policy)) = compiled.config.resources.get(&key) else {
        panic!("not there")
    };
    assert_eq!(policy.rules, Vec::new(), "an Allow policy that allows nothing");
    assert!(
        compiled.says(Kind::AuthorizationPolicy, "shop", "p", Accepted).starts_with("False/Invalid: rule 0")
    );
}

fn tls(namespace: &str, name: &str, target: &str, rest: &str) -> String {
    policy("TlsPolicy", namespace, name, &format!("targetRefs: [{target}], {rest}"))
}

#[test]
fn one_tls_policy_decides_the_narrowest() {
    let mesh = tls("weft-system", "m", "{kind: Mesh}", "mode: Strict");
    let namespace =
        tls("shop", "n", "{kind: Namespace}", "mode: Permissive, ports: [{port: 1, mode: Strict}]");
    let workload = tls("shop", "w", "{kind: Workload, selector: {app: cart}}", "mode: Strict");
    let modes = |yaml: &str| {
        let compiled = shop(yaml);
        ["shop/catalog-0", "shop/cart-0"].map(|pod| compiled.inbound(pod).mutual_tls)
    };
    use MutualTls::{Permissive, Strict};
    assert_eq!(modes(""), [Permissive, Permissive]);
    assert_eq!(modes(&mesh), [Strict, Strict]);
    assert_eq!(modes(&[mesh.clone(), namespace.clone()].concat()), [Permissive, Permissive]);
    let all = shop(&[mesh, namespace, workload].concat());
    assert_eq!(
        (all.inbound("shop/catalog-0").mutual_tls, all.inbound("shop/cart-0").mutual_tls),
        (Permissive, Strict)
    );
    assert_eq!(all.inbound("shop/catalog-0").mutual_tls_by, "shop/n", "a sidecar can name what demands it");
    assert_eq!(all.inbound("shop/cart-0").mutual_tls_by, "shop/w");
    assert_eq!(shop("").inbound("shop/cart-0").mutual_tls_by, "");
    let ports = |pod: &str| {
        all.inbound(pod)
            .ports
            .iter()
            .filter_map(|port| Some((port.port, port.mutual_tls?)))
            .collect::<Vec<_>>()
    };
    assert_eq!(ports("shop/catalog-0"), [(1, Strict)]);
    assert_eq!(ports("shop/cart-0"), [], "policies are not merged");
}

#[test]
fn the_meshs_mode_is_the_default() {
    let mesh = "\n---\napiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {mutualTls: Strict, trustDomain: example.org, tracing: {samplingPercent: 0.5, perSecond: 3}, drain: {linger: 1s}, unknownDestination: Refuse, accessLog: All}\n";
    let compiled = shop(mesh);
    assert_eq!(compiled.inbound("shop/cart-0").mutual_tls, MutualTls::Strict);
    assert_eq!(compiled.inbound("shop/cart-0").mutual_tls_by, "mesh/mesh");
    let Some(Resource::Mesh(settings)) = compiled.config.resources.get(&Key::mesh()) else {
        panic!("no mesh")
    };
    assert_eq!((settings.trace_sampling_ppm, settings.trace_per_second), (5000, 3));
    assert_eq!((settings.drain_linger.as_secs(), settings.drain_deadline.as_secs()), (1, 30));
    let identity = &compiled.config.backend("shop/cart:80").unwrap().endpoints[0].identity;
    assert_eq!(identity, "spiffe://example.org/ns/shop/sa/cart");
}

#[test]
fn a_mesh_of_another_name_is_refused() {
    let compiled =
        shop("apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: other}\nspec: {mutualTls: Strict}");
    assert_eq!(compiled.inbound("shop/cart-0").mutual_tls, MutualTls::Permissive);
    assert_eq!(compiled.inbound("shop/cart-0").mutual_tls_by, "");
    assert!(
        compiled
            .says(Kind::Mesh, "", "other", Accepted)
            .starts_with("False/Invalid: the settings are those of")
    );
}

fn telling(namespace: &str, name: &str, target: &str, rest: &str) -> String {
    policy("TelemetryPolicy", namespace, name, &format!("targetRefs: [{target}], {rest}"))
}

#[test]
fn what_is_told_is_merged_leaf_by_leaf_from_the_narrowest_policy_to_the_mesh() {
    let mesh = "\n---\napiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {accessLog: Off, tracing: {samplingPercent: 7}}\n";
    let all = [
        mesh.to_owned(),
        telling("weft-system", "m", "{kind: Mesh}", "tracing: {export: {endpoint: 'http://all:4317', headers: [{name: x-key, value: k}]}, samplingPercent: 1, joinSingleFlight: true}"),
        telling("shop", "n", "{kind: Namespace}", "tracing: {perSecond: 5, attributes: [{name: t, header: X-Tenant}]}, accessLog: {mode: All, query: [page]}, responseHeaders: true"),
        telling("shop", "w", "{kind: Workload, selector: {app: cart}}", "tracing: {export: {endpoint: 'http://cart:9411', protocol: Zipkin}, attributes: []}, accessLog: {format: Ecs}"),
        telling("shop", "x", "{kind: Namespace}", "tracing: {perSecond: 6, errorsPerSecond: 0}"),
    ]
    .concat();
    let compiled = shop(&all);
    let (cart, catalog) = (compiled.inbound("shop/cart-0"), compiled.inbound("shop/catalog-0"));
    let (cart, catalog) = (&cart.telemetry, &catalog.telemetry);
    let to = |told: &Telemetry| told.trace_export.clone().map(|it| (it.endpoint, it.headers.len())).unwrap();
    assert_eq!(to(cart), ("http://cart:9411".to_owned(), 0), "a collector never gets another's headers");
    assert_eq!(to(catalog), ("http://all:4317".to_owned(), 1));
    for told in [cart, catalog] {
        assert_eq!((told.trace_sampling_ppm, told.trace_per_second), (Some(10_000), Some(5)));
        assert_eq!(told.trace_errors_per_second, Some(0));
        assert!(told.trace_join_single_flight && told.response_headers);
        assert_eq!(
            (told.access_log, told.access_log_query.as_slice()),
            (AccessLog::All, &["page".to_owned()][..])
        );
    }
    assert_eq!((cart.access_log_format, catalog.access_log_format), (LogFormat::Ecs, LogFormat::Weft));
    assert!(cart.trace_attributes.is_empty(), "an empty list is said too");
    assert_eq!(catalog.trace_attributes[0].header, "x-tenant");
    assert_eq!(cart.by, ["shop/w", "shop/n", "shop/x", "weft-system/m", "mesh/mesh"]);
    assert_eq!(catalog.by, ["shop/n", "shop/x", "weft-system/m", "mesh/mesh"]);
    for name in ["n", "w", "x"] {
        assert_eq!(compiled.says(Kind::TelemetryPolicy, "shop", name, Accepted), "True/Accepted: in force");
    }
}

#[test]
fn what_nobody_says_is_absent_and_what_the_mesh_says_holds_below_policies() {
    let told = shop("").inbound("shop/cart-0").telemetry.clone();
    assert_eq!((told.trace_export, told.trace_sampling_ppm, told.trace_per_second), (None, None, None));
    assert_eq!((told.access_log, told.by.len()), (AccessLog::Errors, 0));
    assert_eq!(shop("").inbound("shop/catalog-0").telemetry.version, "v1", "by its label");
    let mesh = "\n---\napiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {accessLog: All, tracing: {perSecond: 3}}\n";
    let told = shop(mesh).inbound("shop/cart-0").telemetry.clone();
    assert_eq!((told.access_log, told.trace_per_second), (AccessLog::All, Some(3)));
    assert_eq!(told.by, ["mesh/mesh"]);
}

#[test]
fn a_telemetry_policy_that_is_not_valid_is_not_in_force() {
    let compiled = shop(&telling("shop", "t", "{kind: Namespace}", "tracing: {samplingPercent: 101}"));
    assert_eq!(compiled.inbound("shop/cart-0").telemetry.trace_sampling_ppm, None);
    let says = compiled.says(Kind::TelemetryPolicy, "shop", "t", Accepted);
    assert!(says.starts_with("False/Invalid: tracing.samplingPercent"), "{says}");
    let other = shop(&telling("shop", "t", "{kind: Service, name: cart}", "responseHeaders: true"));
    let says = other.says(Kind::TelemetryPolicy, "shop", "t", Accepted);
    assert!(says.starts_with("False/Invalid: a policy of this kind cannot target a Service"), "{says}");
    assert!(!other.inbound("shop/cart-0").telemetry.response_headers);
}

fn traffic(name: &str, service: &str, rest: &str) -> String {
    policy("TrafficPolicy", "shop", name, &format!("targetRefs: [{{kind: Service, name: {service}}}]{rest}"))
}

#[test]
fn a_traffic_policy_reaches_backend_and_outbound_with_its_defaults_filled() {
    let rest = ", connectTimeout: 1s, idleTimeout: 10s, requestTimeout: 2s, limits: {maxConnections: 7, maxPendingRequests: 8}, retryBudget: {percent: 0}, outlier: {consecutiveFailures: 3, baseEjection: 400s}, fallback: {name: cart, port: 80}";
    let compiled = shop(&traffic("t", "catalog", rest));
    let policy = compiled.config.backend("shop/catalog:80").unwrap().policy.clone().unwrap();
    assert_eq!((policy.origin.kind.as_str(), policy.origin.name.as_str()), ("TrafficPolicy", "t"));
    assert_eq!(
        (policy.max_connections, policy.max_pending, policy.fallback.as_str()),
        (7, 8, "shop/cart:80")
    );
    let budget = policy.retry_budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (0, 10));
    let outlier = policy.outlier.unwrap();
    assert_eq!((outlier.consecutive_failures, outlier.max_ejected_percent), (3, 50));
    assert_eq!((outlier.base_ejection.as_secs(), outlier.max_ejection.as_secs()), (400, 400));
    assert_eq!(compiled.outbound("shop/catalog:80", "shop").request_timeout.unwrap().as_secs(), 2);
    assert_eq!(compiled.config.backend("shop/cart:80").unwrap().policy, None);
    let key = Key::new(ResourceType::Backend, "shop/catalog:80");
    assert_eq!(compiled.config.references(&key), [Key::new(ResourceType::Backend, "shop/cart:80")]);
}

#[test]
fn the_older_traffic_policy_has_the_service_and_the_other_is_conflicted() {
    let compiled = shop(
        &[
            traffic("b", "cart", ", limits: {maxConnections: 2}"),
            traffic("a", "cart", ", limits: {maxConnections: 1}"),
        ]
        .concat(),
    );
    let max = |backend: &Backend| backend.policy.as_ref().unwrap().max_connections;
    assert_eq!(max(compiled.config.backend("shop/cart:80").unwrap()), 1);
    let says = compiled.says(Kind::TrafficPolicy, "shop", "b", Accepted);
    assert!(says.starts_with("False/Conflicted: TrafficPolicy shop/a has precedence"), "{says}");
}

#[test]
fn a_fallback_that_is_not_there_is_left_out_and_said() {
    let compiled = shop(&traffic("t", "cart", ", fallback: {name: gone, port: 80}"));
    assert_eq!(compiled.config.backend("shop/cart:80").unwrap().policy.as_ref().unwrap().fallback, "");
    assert_eq!(compiled.says(Kind::TrafficPolicy, "shop", "t", Accepted), "True/Accepted: in force");
    assert_eq!(
        compiled.says(Kind::TrafficPolicy, "shop", "t", ResolvedRefs),
        "False/BackendNotFound: no fallback: Service shop/gone is not there"
    );
}

#[test]
fn a_port_is_never_its_own_fallback() {
    let compiled = shop(&traffic("t", "catalog", ", fallback: {name: catalog, port: 9000}"));
    let fallback =
        |name: &str| compiled.config.backend(name).unwrap().policy.as_ref().unwrap().fallback.clone();
    assert_eq!(
        (fallback("shop/catalog:80"), fallback("shop/catalog:9000")),
        ("shop/catalog:9000".to_owned(), String::new())
    );
}

#[test]
fn a_traffic_policy_that_is_not_valid_is_not_in_force() {
    let compiled = shop(&traffic("t", "cart", ", limits: {maxConnections: 0}"));
    assert_eq!(compiled.config.backend("shop/cart:80").unwrap().policy, None);
    assert!(
        compiled
            .says(Kind::TrafficPolicy, "shop", "t", Accepted)
            .starts_with("False/Invalid: limits.maxConnections")
    );
}
