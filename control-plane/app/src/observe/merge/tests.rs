//! Readings of real shapes, put together.

use std::sync::Arc;

use weft_control_plane_core::model::{Model, read};
use weft_control_plane_core::session::Published;

use super::*;
use crate::encode::encode;

const BOUNDS: [u64; 4] = [1_000_000, 2_000_000, 4_000_000, 8_000_000];

fn pod(name: &str, account: &str, host: u8) -> String {
    let owner = name.rsplit_once('-').map_or(name, |(owner, _)| owner);
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "shop",
            "ownerReferences": [{{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "{owner}", "uid": "1",
                                  "controller": true}}]}},
            "spec": {{"serviceAccountName": "{account}", "containers": []}},
            "status": {{"podIP": "10.0.0.{host}"}}}}"#
    )
}

fn owners() -> Owners {
    let mut model = Model::default();
    for text in [
        pod("web-0", "web", 1),
        pod("web-1", "web", 2),
        pod("cart-0", "cart", 3),
        pod("one-0", "shared", 4),
        pod("two-0", "shared", 5),
    ] {
        let read = read(serde_json::from_str(&text).unwrap()).unwrap().unwrap();
        model.apply(read.object, None);
    }
    let config = weft_control_plane_core::compile(&model);
    Owners::of(Some(Arc::new(Published::new(1, Arc::new(config), encode))))
}

fn party(name: &str) -> Option<v1::Party> {
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{name}");
    Some(v1::Party { namespace: "shop".to_owned(), name: name.to_owned(), identity })
}

fn edge(
    direction: &str,
    source: &str,
    destination: &str,
    requests: u64,
    buckets: [u64; 5],
) -> v1::EdgeReading {
    let signals = v1::Signals {
        requests,
        failures: 1,
        classes: vec![0, 0, requests - 1, 0, 0, 1],
        bytes_up: 10,
        ..v1::Signals::default()
    };
    v1::EdgeReading {
        direction: direction.to_owned(),
        protocol: "http".to_owned(),
        security: "mutual_tls".to_owned(),
        source: party(source),
        destination: party(destination),
        service: "shop/cart:80".to_owned(),
        route: "default".to_owned(),
        total: Some(signals.clone()),
        recent: Some(signals),
        buckets: buckets.to_vec(),
        first_byte_buckets: vec![requests],
        connections: 0,
        ejected: 1,
        circuit_open: true,
    }
}

fn reading(edges: Vec<v1::EdgeReading>) -> v1::Reading {
    v1::Reading { recent_millis: 10_000, bounds_nanos: BOUNDS.to_vec(), edges, left_out: 0 }
}

fn merger(by: &str, to: Option<v1::Subject>) -> Merger {
    let stat = v1::StatQuestion { by: by.to_owned(), from: None, to };
    let question = v1::Question { what: Some(What::Stat(stat)), ..v1::Question::default() };
    Merger::new(&question, owners())
}

fn names(edges: &v1::Edges) -> Vec<(String, String)> {
    let name = |party: &Option<v1::Party>| party.as_ref().unwrap().name.clone();
    edges.edges.iter().map(|edge| (name(&edge.source), name(&edge.destination))).collect()
}

fn pair(source: &str, destination: &str) -> (String, String) {
    (source.to_owned(), destination.to_owned())
}

#[test]
fn pods_of_a_workload_are_one_and_both_ends_stand_side_by_side() {
    let mut merger = merger("", None);
    // Callers know the callee's pod, the callee knows the caller's account.
    merger.take("shop/web-0", reading(vec![edge("outbound", "web", "cart-0", 60, [0, 60, 0, 0, 0])]));
    merger.take("shop/web-1", reading(vec![edge("outbound", "web", "cart-0", 40, [0, 0, 0, 40, 0])]));
    merger.take("shop/cart-0", reading(vec![edge("inbound", "web", "cart", 100, [100, 0, 0, 0, 0])]));
    let edges = merger.finish();
    assert_eq!(names(&edges), [pair("web", "cart")]);
    let edge = &edges.edges[0];
    let (client, server) = (edge.client.as_ref().unwrap(), edge.server.as_ref().unwrap());
    assert_eq!((client.sidecars, server.sidecars), (2, 1));
    assert_eq!((client.rate, server.rate), (10.0, 10.0));
    let total = client.total.as_ref().unwrap();
    assert_eq!((total.requests, total.failures, total.bytes_up), (100, 2, 20));
    assert_eq!(total.classes, [0, 0, 98, 0, 0, 2]);
    assert_eq!(client.success, Some(0.98));
    // 60 of 100 took one to two milliseconds, the others four to eight.
    assert!((1.7..2.0).contains(&client.p50_ms.unwrap()), "{client:?}");
    assert!((7.4..8.0).contains(&client.p95_ms.unwrap()), "{client:?}");
    assert!(server.p99_ms.unwrap() <= 1.0, "{server:?}");
    assert_eq!((client.ejected, client.circuits_open), (1, 2));
    assert_eq!(client.security, "mutual_tls");
    assert!(client.first_byte_p99_ms.unwrap() <= 1.0, "{client:?}");
    assert_eq!(edge.services, ["shop/cart:80"]);
}

#[test]
fn a_caller_whose_account_is_shared_is_shown_by_it() {
    let mut merger = merger("", None);
    merger.take("shop/one-0", reading(vec![edge("outbound", "one", "cart-0", 5, [5, 0, 0, 0, 0])]));
    merger.take("shop/cart-0", reading(vec![edge("inbound", "shared", "cart", 9, [9, 0, 0, 0, 0])]));
    let edges = merger.finish();
    assert_eq!(names(&edges), [pair("one", "cart"), pair("sa/shared", "cart")]);
    assert!(edges.edges[0].server.is_none() && edges.edges[1].client.is_none());
}

#[test]
fn edges_are_grouped_and_narrowed_as_asked() {
    let subject = |kind: &str, name: &str| {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        Some(v1::Subject { kind, name, namespace: "shop".to_owned(), also: Vec::new() })
    };
    let told = || {
        let mut other = edge("outbound", "web", "one-0", 3, [3, 0, 0, 0, 0]);
        other.service = "shop/one:80".to_owned();
        reading(vec![edge("outbound", "web", "cart-0", 7, [7, 0, 0, 0, 0]), other])
    };
    for (by, to, expected) in [
        ("", None, vec![pair("web", "cart"), pair("web", "one")]),
        ("", subject("workload", "cart"), vec![pair("web", "cart")]),
        ("", subject("service", "one"), vec![pair("web", "one")]),
        ("", subject("pod", "cart-0"), vec![pair("web", "cart")]),
        ("", subject("workload", "nobody"), vec![]),
        ("pod", None, vec![pair("web-0", "cart-0"), pair("web-0", "one-0")]),
        ("service", None, vec![pair("web", "cart"), pair("web", "one")]),
        ("namespace", None, vec![pair("", "")]),
    ] {
        let mut merger = merger(by, to.clone());
        merger.take("shop/web-0", told());
        assert_eq!(names(&merger.finish()), expected, "{by} {to:?}");
    }
}

#[test]
fn nonsense_of_a_sidecar_harms_nobody() {
    let mut merger = merger("", None);
    let mut odd = edge("sideways", "", "", 1, [u64::MAX; 5]);
    odd.total = Some(v1::Signals { requests: u64::MAX, classes: vec![u64::MAX; 100], ..Default::default() });
    odd.buckets = vec![u64::MAX; 100_000];
    let reading = v1::Reading {
        recent_millis: 0,
        bounds_nanos: vec![u64::MAX; 100_000],
        edges: vec![odd.clone(), odd],
        left_out: u64::MAX,
    };
    merger.take("no-namespace", reading);
    let edges = merger.finish();
    assert_eq!(edges.edges.len(), 1);
    assert_eq!(edges.left_out, u64::MAX);
}
