//! The reference of what is counted: `docs/metrics.md` says what the code holds, and real processes show
//! each family of it.

use std::collections::BTreeSet;

use weft_control_plane::metrics::catalog as control_plane;
use weft_exposition::{Family, Format, Kind, reference};
use weft_proxy::metrics::catalog as sidecar;

use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Pod, Standing, until};

use crate::busy::Busy;
use crate::{file, text};

const PAGE: &str = "docs/metrics.md";

/// The page, made from the catalogs. After a change that is meant: `WEFT_GOLDEN=write cargo test -p
/// weft-tests --test metrics reference`.
fn page() -> String {
    let part = |catalog: &[&Family], labels: &[(&str, &str)]| {
        let groups = reference::groups(catalog).replace('\n', "\n\n");
        format!("{}\n{groups}{}", reference::families(catalog), reference::labels(catalog, labels))
    };
    format!(
        "# What Weft counts\n\n\
         This page is made from the code (`proxy/app/src/metrics/catalog.rs`, `control-plane/app/src/metrics/catalog.rs`); a test\n\
         compares them. Names and labels change by addition only. What to do with them is in\n\
         [observability](../observability/README.md).\n\n\
         `GET /metrics` answers in the form that the scraper asks for by `Accept`: OpenMetrics text with exemplars (the last kept\n\
         trace of each bucket of durations), Prometheus' protobuf with native histograms beside the classic ones, or else the\n\
         classic text. Units are seconds and bytes; times are seconds since 1970. Histograms add `_bucket` (with `le`), `_sum` and\n\
         `_count` to the name that stands here.\n\n\
         ## Sidecar\n\n\
         On port 15020 of each pod. A request between two meshed pods is counted twice: `direction=\"outbound\"` by the caller's\n\
         sidecar, with retries and the network in it, and `direction=\"inbound\"` by the called pod's. Labels are resolved when an\n\
         edge is first seen, never per request. There are at most 10,000 series of edges and their outcomes; who comes later\n\
         counts as `overflow`, and `weft_series_overflow_total` says so. What nobody uses any more goes after five to ten minutes\n\
         (`--series-idle`): edges of pods and routes that vanished, and backends that are no longer called. There are no hedged\n\
         requests, so none are counted; names are resolved by applications themselves, so `weft_dns_lookups_total` is about the\n\
         sidecar's own connections. With `--no-traffic-metrics` the families of edges stay empty.\n\n\
         {}\n\
         ## Control plane\n\n\
         On port 15014, under the prefix `weft_control_plane_`. Words in `outcome` and the like are as the code names them.\n\n\
         {}",
        part(&sidecar::CATALOG, &sidecar::LABELS),
        part(&control_plane::CATALOG, &control_plane::LABELS),
    )
}

#[test]
fn the_page_says_what_the_code_counts() {
    if std::env::var("WEFT_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(file(PAGE), page()).unwrap();
    }
    assert_eq!(text(PAGE), page(), "WEFT_GOLDEN=write writes it");
}

/// The families that have a row on a page of text.
fn shown<'c>(page: &str, catalog: &'c [&'static Family]) -> BTreeSet<&'c str> {
    let has = |family: &&&Family| {
        let name = match family.kind {
            Kind::Histogram => format!("{}_count", family.name),
            _ => family.exposed(),
        };
        page.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])))
    };
    catalog.iter().filter(has).map(|family| family.name).collect()
}

#[tokio::test]
async fn every_family_of_the_reference_is_shown_by_a_real_process() {
    let busy = Busy::start(&[]).await;
    busy.everything().await;
    let mut seen = BTreeSet::new();
    for pod in busy.sidecars() {
        let page = busy.mesh.sidecar(pod).ask("/metrics").await;
        seen.extend(shown(&page, &sidecar::CATALOG));
    }
    let missing: Vec<&str> =
        sidecar::CATALOG.iter().map(|family| family.name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no sidecar shows {missing:?}");

    let page = busy.mesh.ask_control_plane("/metrics").await;
    let seen = shown(&page, &control_plane::CATALOG);
    // The rest is of Kubernetes: the tests on a cluster look for it.
    let of_a_folder = control_plane::CATALOG.iter().filter(|family| {
        !family.appears.contains("--kubernetes") && !family.appears.contains("once a pod was shown")
    });
    let missing: Vec<&str> =
        of_a_folder.map(|family| family.name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "the control plane does not show {missing:?}\n{page}");
}

#[tokio::test]
async fn a_scraper_gets_the_form_that_it_asks_for_and_the_order_does_not_change() {
    let busy = Busy::start(&[]).await;
    busy.everything().await;
    let protobuf =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9";
    for admin in [busy.mesh.sidecar("client-0").admin.unwrap(), busy.mesh.control_plane_admin()] {
        for (accept, format) in [
            ("*/*", Format::Classic),
            ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", Format::OpenMetrics),
            (protobuf, Format::Protobuf),
        ] {
            let answer = crate::calls::get(admin, "/metrics", accept).await;
            assert_eq!(answer.headers["content-type"], format.content_type());
            assert_eq!(answer.body.ends_with("# EOF\n"), format == Format::OpenMetrics);
        }
        if admin == busy.mesh.sidecar("client-0").admin.unwrap() {
            let page = crate::calls::get(admin, "/metrics", "application/openmetrics-text").await.body;
            assert!(page.contains(" # {trace_id=\""), "a trace for a bucket in\n{page}");
        }
        // Numbers move between two scrapes; names do not.
        let names = async || {
            let page = crate::calls::get(admin, "/metrics", "*/*").await.body;
            let types = page.lines().filter(|line| line.starts_with("# TYPE ")).map(str::to_owned);
            types.collect::<Vec<String>>()
        };
        let first = names().await;
        assert_eq!(first, names().await);
    }
}

#[tokio::test]
async fn the_series_of_a_vanished_pod_go_and_those_of_the_others_stay() {
    let app = App::saying("here").await;
    let mut mesh = mesh!()
        .service("web", 8080, Some("http"))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("web-1").serves(8080, app.address))
        .pod(Pod::named("client-0").calls("web:8080").flag("--series-idle", "1s"))
        .start()
        .await;
    let door = mesh.door("client-0", "web:8080");
    let counted = async |mesh: &Mesh, workload: &str| {
        let label = format!("destination_workload=\"{workload}\"");
        mesh.sidecar("client-0").metric("weft_requests_total", &[&label]).await
    };
    until("both are called", async || {
        assert_eq!(Http::once(door, "/").await.unwrap().status, 200);
        (counted(&mesh, "web-0").await > 0.0 && counted(&mesh, "web-1").await > 0.0).then_some(())
    })
    .await;
    mesh.stand("web-1", Standing::Absent);
    until("the series of one are gone", async || {
        assert_eq!(Http::once(door, "/").await.unwrap().status, 200);
        (counted(&mesh, "web-1").await == 0.0).then_some(())
    })
    .await;
    let page = mesh.sidecar("client-0").ask("/metrics").await;
    assert!(!page.contains("web-1") && page.contains("destination_workload=\"web-0\""), "{page}");
}
