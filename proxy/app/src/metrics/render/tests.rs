//! A scrape as a whole.

use super::*;
use crate::metrics::backend::{PolicyVerdict, RuleLabels, Standing};
use crate::metrics::exemplars::Seen;
use crate::metrics::labels::{Direction, Security};
use crate::metrics::own::ConfigState;
use crate::metrics::plain::Handshake;
use std::time::Duration;
use weft_exposition::reference;
use weft_proxy_core::{Name, Reason};

fn labels(service: &str) -> EdgeLabels {
    EdgeLabels {
        direction: Direction::Outbound,
        protocol: Protocol::Http,
        security: Security::MutualTls,
        source: Party {
            workload: Name::from("shop"),
            namespace: Name::from("web"),
            identity: Identity::parse("spiffe://cluster.local/ns/web/sa/shop").ok(),
        },
        destination: Party::unknown(),
        service: Name::from(service),
        route: Name::from("web/to-catalog"),
    }
}

fn text(metrics: &Arc<Metrics>) -> String {
    String::from_utf8(page(metrics, Format::OpenMetrics)).unwrap()
}

fn row<'a>(page: &'a str, start: &str, contains: &str) -> &'a str {
    page.lines()
        .find(|line| line.starts_with(start) && line.contains(contains))
        .unwrap_or_else(|| panic!("no {start} with {contains} in\n{page}"))
}

#[test]
fn a_request_shows_with_istios_words_and_sums_over_workers() {
    let metrics = Arc::new(Metrics::default());
    for worker in 0..2 {
        let edge = metrics.edge(worker, &labels("shop/catalog:80"));
        edge.request(Outcome::new(200, None, None), Duration::from_millis(2), 10, 20);
        edge.request(Outcome::new(503, None, Some(Reason::NoEndpoint)), Duration::from_micros(80), 0, 0);
        edge.retry();
    }
    let page = text(&metrics);
    let good = row(&page, "weft_requests_total{", "response_code=\"200\"");
    assert!(good.ends_with("} 2"), "{good}");
    for label in [
        "direction=\"outbound\"",
        "source_workload=\"shop\"",
        "source_principal=\"spiffe://cluster.local/ns/web/sa/shop\"",
        "destination_service=\"shop/catalog:80\"",
        "destination_service_name=\"catalog\"",
        "destination_service_namespace=\"shop\"",
        "destination_workload=\"unknown\"",
        "connection_security_policy=\"mutual_tls\"",
        "request_protocol=\"http\"",
        "route=\"web/to-catalog\"",
        "grpc_response_status=\"\"",
        "response_flags=\"-\"",
    ] {
        assert!(good.contains(label), "{label} in {good}");
    }
    let bad = row(&page, "weft_requests_total{", "response_flags=\"UH\"");
    assert!(bad.contains("response_code=\"503\"") && bad.contains("reason=\"no_endpoint\""), "{bad}");
    assert!(row(&page, "weft_request_duration_seconds_count{", "").ends_with(" 4"));
    assert!(row(&page, "weft_request_duration_seconds_bucket{", "le=\"0.0001\"").ends_with(" 2"));
    assert!(row(&page, "weft_request_duration_seconds_bucket{", "le=\"+Inf\"").ends_with(" 4"));
    assert!(row(&page, "weft_request_bytes_total{", "").ends_with(" 20"));
    assert!(row(&page, "weft_retries_total{", "").ends_with(" 2"));
}

#[test]
fn label_sets_beyond_the_bound_are_counted_together_and_none_is_lost() {
    let metrics = Arc::new(Metrics::with_series(50));
    for n in 0..1_000 {
        let edge = metrics.edge(0, &labels(&format!("shop/s{n}:80")));
        edge.request(Outcome::new(200, None, None), Duration::from_millis(1), 0, 0);
    }
    let page = text(&metrics);
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("weft_requests_total{")).collect();
    assert!(rows.len() <= 51, "{}", rows.len());
    let total: u64 = rows.iter().map(|row| row.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(total, 1_000);
    assert!(
        row(&page, "weft_requests_total{", "destination_service=\"overflow\"")
            .contains("direction=\"outbound\"")
    );
    assert!(!row(&page, "weft_series_overflow_total", "").ends_with(" 0"));
}

#[test]
fn series_of_vanished_routes_go_and_leave_room_for_new_ones() {
    let metrics = Arc::new(Metrics::with_series(4));
    let stays = metrics.edge(0, &labels("shop/stays:80"));
    stays.request(Outcome::new(200, None, None), Duration::ZERO, 0, 0);
    metrics.edge(0, &labels("shop/goes:80")).request(Outcome::new(200, None, None), Duration::ZERO, 0, 0);
    let backend = metrics.backend(&Name::from("shop/goes:80"));
    backend.ejected();
    assert!(text(&metrics).contains("shop/goes:80"));
    drop(backend);
    metrics.sweep();
    assert!(text(&metrics).contains("shop/goes:80"), "one scrape more sees the last value");
    metrics.sweep();
    let after = text(&metrics);
    assert!(!after.contains("shop/goes:80") && after.contains("shop/stays:80"));
    let new = metrics.edge(0, &labels("shop/new:80"));
    assert_eq!(new.labels().service.as_str(), "shop/new:80");
}

#[test]
fn resilience_policy_and_state_show() {
    let metrics = Arc::new(Metrics::default());
    let backend = metrics.backend(&Name::from("shop/catalog:80"));
    backend.ejected();
    backend.stands(Standing::default(), Standing { ready: 0, ejected: 1, waiting: 3 });
    let deny = RuleLabels {
        policy: Name::from("shop/only-cart"),
        rule: Name::from("1"),
        verdict: PolicyVerdict::Deny,
    };
    metrics.rule(&deny).decided();
    metrics.refused(Direction::Inbound, Reason::DeniedByPolicy);
    metrics.plain().limit("header_bytes").up();
    metrics.plain().config.set(ConfigState { generation: 7, adopted_at: 15, ..ConfigState::default() });
    metrics.plain().handshakes(Direction::Inbound, Handshake::BadCertificate).up();
    let page = text(&metrics);
    for (start, contains, value) in [
        ("weft_ejections_total", "shop/catalog:80", "1"),
        ("weft_endpoints_ejected", "shop/catalog:80", "1"),
        ("weft_circuit_open", "shop/catalog:80", "1"),
        ("weft_requests_pending", "shop/catalog:80", "3"),
        ("weft_policy_verdicts_total", "policy=\"shop/only-cart\",rule=\"1\",verdict=\"deny\"", "1"),
        ("weft_refusals_total", "reason=\"denied_by_policy\",blame=\"policy\"", "1"),
        ("weft_limits_hit_total", "limit=\"header_bytes\"", "1"),
        ("weft_config_generation", "", "7"),
        ("weft_config_adopted_timestamp_seconds", "", "15"),
        ("weft_tls_handshakes_total", "direction=\"inbound\",outcome=\"bad_certificate\"", "1"),
    ] {
        let row = row(&page, start, contains);
        assert_eq!(row.rsplit_once(' ').unwrap().1, value, "{row}");
    }
    for name in [
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_threads ",
        "process_cpu_seconds_total ",
    ] {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn a_label_cannot_break_its_line() {
    let metrics = Arc::new(Metrics::default());
    let edge = metrics.edge(0, &labels("evil\"} 1\nfake_metric 1\\"));
    edge.request(Outcome::new(200, None, None), Duration::ZERO, 0, 0);
    let page = text(&metrics);
    assert!(!page.lines().any(|line| line.starts_with("fake_metric")), "{page}");
}

#[test]
fn what_is_traced_leads_from_its_bucket_to_its_trace() {
    let metrics = Arc::new(Metrics::default());
    let edge = metrics.edge(0, &labels("shop/catalog:80"));
    edge.request(Outcome::new(200, None, None), Duration::from_millis(2), 300, 5_000);
    edge.first_byte(Duration::from_millis(1));
    let took = Duration::from_millis(2);
    edge.traced(Seen { trace: [0xab; 16], took, ended: 1_700_000_000_500_000_000 });
    let page = text(&metrics);
    let bucket = row(&page, "weft_request_duration_seconds_bucket{", "le=\"0.0025\"");
    let trace = "ab".repeat(16);
    let expected = format!(" 1 # {{trace_id=\"{trace}\"}} 0.002 1700000000.500");
    assert!(bucket.ends_with(&expected), "{bucket}");
    assert_eq!(page.matches(" # {").count(), 1, "no other bucket has one");
    for (start, contains, end) in [
        ("weft_response_first_byte_seconds_bucket{", "le=\"0.001\"", " 1"),
        ("weft_request_size_bytes_bucket{", "le=\"256.0\"", " 0"),
        ("weft_request_size_bytes_bucket{", "le=\"4096.0\"", " 1"),
        ("weft_request_size_bytes_sum{", "", " 300"),
        ("weft_response_size_bytes_bucket{", "le=\"4096.0\"", " 0"),
        ("weft_response_size_bytes_count{", "", " 1"),
    ] {
        assert!(row(&page, start, contains).ends_with(end), "{}", row(&page, start, contains));
    }
}

#[test]
fn the_catalog_is_sound_and_a_page_has_all_of_it_in_its_order() {
    assert_eq!(reference::faults(&CATALOG, &catalog::LABELS), [""; 0]);
    let page = text(&Arc::default());
    let described: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let names: Vec<&str> = CATALOG.iter().map(|family| family.name).collect();
    assert_eq!(described, names);
}

#[test]
fn a_long_page_comes_in_parts_of_whole_lines_that_make_the_same_page() {
    let metrics = Arc::new(Metrics::default());
    for n in 0..50 {
        let edge = metrics.edge(0, &labels(&format!("shop/s{n}:80")));
        edge.request(Outcome::new(200, None, None), Duration::from_millis(1), 0, 0);
    }
    let parts: Vec<Vec<u8>> = Scrape::begin(Arc::clone(&metrics), Format::OpenMetrics).collect();
    assert!(parts.len() > 20, "{}", parts.len());
    assert!(parts.iter().all(|part| part.is_empty() || part.ends_with(b"\n")));
    let longest = parts.iter().map(Vec::len).max().unwrap();
    let text = String::from_utf8(parts.concat()).unwrap();
    assert!(longest * 4 < text.len(), "{longest} of {}", text.len());
    assert_eq!(text.matches("# TYPE weft_requests counter").count(), 1);
    assert_eq!(text.lines().filter(|line| line.starts_with("weft_requests_total{")).count(), 50);
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(Scrape::begin(metrics, Format::Protobuf).count(), PARTS.len() + 1);
}
