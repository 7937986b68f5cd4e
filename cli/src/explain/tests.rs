//! Pages of explanations, for outcomes of every kind; `WEFT_GOLDEN=write` writes them anew.

use std::path::{Path, PathBuf};

use clap::Parser as _;
use weft_control_plane_core::config::ResourceType;
use weft_proxy::explain::answer;
use weft_proxy_core::explain::Imagined;

use super::*;
use crate::folder::Folder;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: ExplainArgs,
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/explain/tests").join(name)
}

fn report(folder: &str, line: &str) -> anyhow::Result<report::Report> {
    let words: Vec<&str> = line.split(' ').collect();
    let root = here(folder);
    let manifests = ["explain", "--manifests", root.to_str().unwrap()];
    let args = Line::try_parse_from(manifests.into_iter().chain(words))?.args;
    folder::explain(&args, &root)
}

/// What a page must say besides being as it was: the outcome, a manifest, and a field.
struct Case {
    name: &'static str,
    folder: &'static str,
    line: &'static str,
    says: &'static [&'static str],
}

const fn case(name: &'static str, line: &'static str, says: &'static [&'static str]) -> Case {
    Case { name, folder: "mesh", line, says }
}

const CASES: &[Case] = &[
    case(
        "canary-by-header",
        "deploy/web svc/catalog GET /items/7 -H x-canary=1",
        &["shop/catalog-v2-0", "spec.rules[1].matches[0]", "(catalog.yaml:"],
    ),
    case(
        "first-rule-fails-on-the-method",
        "deploy/web svc/catalog GET /items/7",
        &["the method is GET, not POST", "spec.rules[0].matches[0].method", "rule 2 (plain)"],
    ),
    case(
        "exact-before-prefix",
        "deploy/web svc/catalog GET /items/health",
        &["its path is more exact", "rule 3"],
    ),
    case("no-route", "deploy/web svc/catalog GET /elsewhere", &["answered with 404 (no_route)", ".path"]),
    case("no-routes-attached", "deploy/web svc/writer POST /x", &["no route is attached", "10.1.1.4:8080"]),
    case("invalid-backend", "deploy/web svc/front GET /gone", &["500 (invalid_backend)", "backendRefs[0]"]),
    case("half-invalid", "deploy/web svc/front GET /half", &["50 %", "backendRefs[1]"]),
    case("all-weights-zero", "deploy/web svc/front GET /none", &["answered with 5", "spec.rules[5]"]),
    case(
        "redirect",
        "deploy/web svc/front GET /old/page",
        &["answered with 301", "http://front/new/page", "filters[0]"],
    ),
    case(
        "rewrite-and-header-filters",
        "deploy/web svc/front GET /api/items?x=1",
        &["filters[0]", "filters[1]", "filters[2]", "catalog.internal"],
    ),
    case("weighted-split", "deploy/web svc/front GET /split", &["90 %", "10 %", "weight 0 takes no traffic"]),
    case(
        "grpc-method",
        "deploy/web svc/inventory /shop.v1.Inventory/Get --grpc",
        &["GRPCRoute shop/inventory spec.rules[1].matches[0]", "forwarded"],
    ),
    case(
        "grpc-unmatched",
        "deploy/web svc/inventory /shop.v1.Inventory/Drop --grpc",
        &["gRPC status 12", "spec.rules[0].matches[0].method"],
    ),
    case(
        "denied-by-a-deny-rule",
        "deploy/web svc/payments GET /payments/admin/keys",
        &[
            "403 (denied_by_policy)",
            "AuthorizationPolicy shop/no-admin spec.rules[name=admin] (payments.yaml:",
        ],
    ),
    case(
        "no-rule-allows",
        "deploy/web svc/payments POST /payments",
        &["no rule of shop/payments-callers allows it", "spec.rules[name=web-reads].to[0].methods"],
    ),
    case(
        "allowed-by-a-rule",
        "deploy/web svc/payments GET /payments/7",
        &[
            "allowed by shop/payments-callers#web-reads",
            "spec.rules[name=web-reads]",
            "TelemetryPolicy shop/payments-seen spec (payments.yaml:",
        ],
    ),
    case(
        "would-be-denied-in-shadow",
        "deploy/web svc/payments GET /payments/refunds",
        &["[shadow]", "soon-no-refunds", "forwarded"],
    ),
    case(
        "ambiguous-path-under-a-policy-on-paths",
        "deploy/web svc/payments GET /payments%2Fadmin",
        &["400 (ambiguous_path)", "AuthorizationPolicy shop/no-admin"],
    ),
    case("malformed-path", "deploy/web svc/payments GET /payments/../admin", &["400 (malformed_path)"]),
    case(
        "mutual-tls-demanded",
        "pod/old-0 svc/vault.bank GET /vault",
        &["403 (mtls_required)", "TlsPolicy bank/vault-strict spec.mode (vault.yaml:"],
    ),
    case(
        "no-endpoint",
        "deploy/web svc/empty GET /",
        &["503 (no_endpoint)", "HTTPRoute shop/wrong-port (others.yaml:"],
    ),
    case(
        "circuit-open-with-a-fallback",
        "deploy/web svc/payments GET /payments --failing payments",
        &["TrafficPolicy shop/payments spec.fallback", "shop/later-0", "2 ejected"],
    ),
    case(
        "half-of-the-endpoints-ejected",
        "deploy/web svc/catalog GET /items --failing catalog-0",
        &["1 ready, 1 ejected", "zone b"],
    ),
    case(
        "bytes-under-a-policy-on-requests",
        "pod/teller-0 svc/ledger --tcp",
        &["reset (denied_by_policy)", "spec.rules[0].to[0].methods", "appProtocol"],
    ),
    case("unknown-destination-passes", "deploy/web 203.0.113.9:443 --tls", &["passed through", "(default)"]),
    Case {
        name: "unknown-destination-refused",
        folder: "refusing",
        line: "deploy/web 203.0.113.9:443 --tls",
        says: &["reset (unknown_destination)", "Mesh mesh spec.unknownDestination (mesh.yaml:6)"],
    },
    case(
        "timeout-of-the-traffic-policy",
        "pod/teller-0 svc/payments.shop POST /payments",
        &["request timeout: 3s", "TrafficPolicy shop/payments spec.requestTimeout (payments.yaml:"],
    ),
    case(
        "timeout-of-the-rule",
        "deploy/web svc/catalog GET /items?canary=1",
        &["request timeout: 2s", "spec.rules[1].timeouts.request", "attempt timeout: 500ms"],
    ),
    case(
        "pod-called-by-its-address",
        "deploy/web pod/payments-0 GET /payments",
        &["no route applies", "status.podIP"],
    ),
    case(
        "consumer-route-of-another-namespace",
        "deploy/web svc/vault GET /vault",
        &["HTTPRoute shop/teller-vault spec.rules[0].timeouts.request (others.yaml:"],
    ),
    case(
        "consumer-route-is-for-its-namespace-alone",
        "pod/teller-0 svc/vault GET /elsewhere",
        &["no route is attached"],
    ),
    case("endpoint-without-a-sidecar", "deploy/web svc/legacy GET /", &["in plaintext", "has no sidecar"]),
    case("protocol-is-guessed", "deploy/web svc/guessed GET /", &["nothing declares the port's protocol"]),
];

#[test]
fn every_outcome_names_the_manifest_and_the_field() {
    let write = std::env::var_os("WEFT_GOLDEN").is_some_and(|it| it == "write");
    let mut wrong = Vec::new();
    for case in CASES {
        let page = page::render(&report(case.folder, case.line).unwrap(), false);
        let page = format!("$ weft explain {}\n\n{page}", case.line);
        let file = here("pages").join(format!("{}.txt", case.name));
        for says in case.says {
            assert!(page.contains(says), "{}: {says:?} is not said\n{page}", case.name);
        }
        if write {
            std::fs::write(&file, &page).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != page {
            wrong.push(format!("{}\n{page}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} pages differ; read them, and run again with WEFT_GOLDEN=write:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_policy_that_has_not_arrived_denies_and_is_named() {
    let folder = Folder::open(&here("mesh")).unwrap();
    let snapshot =
        folder.snapshot_of("shop/payments-0", &[], |key| key.kind != ResourceType::Authorization).unwrap();
    let asked = v1::ExplainRequest {
        side: v1::ExplainSide::Inbound.into(),
        destination: Some(v1::explain_request::Destination::Port(8080)),
        authority: "payments".to_owned(),
        ..v1::ExplainRequest::default()
    };
    let walk = answer(&asked, &snapshot, &Imagined::default()).unwrap();
    let outcome = walk.outcome.unwrap();
    assert_eq!((outcome.reason.as_str(), outcome.status), ("policy_missing", 403));
    let step = walk.steps.iter().find(|step| step.room == "authorize").unwrap();
    let origin = step.origin.as_ref().unwrap();
    assert_eq!((origin.kind.as_str(), origin.name.as_str()), ("AuthorizationPolicy", "no-admin"));
}

#[test]
fn the_same_answer_is_data() {
    let report = report("mesh", "deploy/web svc/catalog GET /items -H x-canary=1").unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["outcomes"][0]["end"], "forward");
    let route =
        json["sides"][0]["steps"].as_array().unwrap().iter().find(|step| step["room"] == "route").unwrap();
    assert_eq!(route["by"]["kind"], "HTTPRoute");
    assert_eq!(route["by"]["field"], "spec.rules[1]");
    assert!(route["by"]["place"].as_str().unwrap().starts_with("catalog.yaml:"), "{route}");
}

#[test]
fn who_cannot_be_meant_is_refused_with_what_could() {
    for (line, says) in [
        ("deploy/nobody svc/catalog", "no pod in these manifests"),
        ("deploy/web svc/nobody", "there is no Service nobody"),
        ("deploy/web svc/catalog:81", "it has 80"),
        ("deploy/web 10.96.0.1", "Write 10.96.0.1:<port>"),
        ("deploy/web svc/catalog --failing nobody", "no endpoint is called so"),
        ("deploy/web svc/catalog - GET", "leave the arrow out"),
    ] {
        let error = format!("{:#}", report("mesh", line).unwrap_err());
        assert!(error.contains(says), "{line}: {error}");
    }
}
