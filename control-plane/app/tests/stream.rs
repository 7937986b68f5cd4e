//! A sidecar's life on the stream: join, certificate, stream, epochs, and what an edit does to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::client::{Held, Stream, body, hello, join, names, outbound};
use common::{Folder, PATIENCE, ask, get, manifests, start, status, status_until};
use tonic::Code;
use weft_control_plane::ControlPlane;
use weft_proto::v1;
use weft_proto::v1::discovery_request::Message as Request;
use weft_proto::v1::discovery_response::Message as Response;

const CATALOG: &str = "shop/catalog:80";

/// The shop with tokens for everybody; the cart has joined.
async fn shop() -> (Folder, ControlPlane, Held) {
    let folder = Folder::new();
    let tokens = ["cart", "catalog", "other"]
        .map(|name| format!("- {{token: a-token-of-the-{name}, serviceAccount: shop/{name}, uses: 9}}\n"));
    folder.tokens(&tokens.concat());
    folder.save("shop.yaml", manifests::SHOP);
    let control_plane = start(&folder.args()).await;
    let held = join(&control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    (folder, control_plane, held)
}

async fn cart(control_plane: &ControlPlane, held: &Held) -> (Stream, v1::Epoch) {
    let hello = hello("shop/cart-0", vec![outbound(CATALOG)]);
    let mut stream = Stream::open(control_plane, held, hello).await.unwrap();
    let first = stream.take().await;
    (stream, first)
}

fn contains(status: &serde_json::Value, field: &str, text: &str) -> bool {
    status[field].to_string().contains(text)
}

#[tokio::test]
async fn the_first_epoch_is_everything_a_sidecar_needs() {
    let (_folder, control_plane, held) = shop().await;
    let (_stream, first) = cart(&control_plane, &held).await;
    assert_eq!((first.nonce, first.removals.as_slice()), (1, [].as_slice()));
    let expected = [
        "MESH mesh",
        "TRUST cluster.local",
        "INBOUND shop/cart-0",
        "OUTBOUND shop/catalog:80",
        "BACKEND shop/catalog:80",
    ];
    assert_eq!(names(&first), expected);
    let backend: v1::Backend = body(&first, v1::ResourceType::Backend, CATALOG).unwrap();
    assert_eq!(backend.endpoints[0].address, "10.0.0.1:8080");
    let trust: v1::Trust = body(&first, v1::ResourceType::Trust, "cluster.local").unwrap();
    assert_eq!(trust.roots[0], common::client::roots(&control_plane)[0].as_ref());
    status_until(&control_plane, |status| status["sidecars"]["current"] == 1).await;
}

#[tokio::test]
async fn an_address_is_answered_with_all_it_leads_to_even_when_nobody_knows_it() {
    let (_folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    let address = |name: &str| v1::Key { r#type: v1::ResourceType::Address.into(), name: name.to_owned() };
    let add = vec![address("10.96.0.7:80"), address("192.0.2.1:25"), address("10.0.0.1:8080")];
    stream.send(Request::Subscribe(v1::Subscribe { add, drop: Vec::new() })).await;
    let epoch = stream.take().await;
    let target =
        |name: &str| body::<v1::Address>(&epoch, v1::ResourceType::Address, name).unwrap().target.unwrap();
    use v1::address::Target;
    assert_eq!(target("10.96.0.7:80"), Target::Outbound(CATALOG.to_owned()));
    assert_eq!(target("192.0.2.1:25"), Target::Unknown(v1::Unknown {}));
    assert!(matches!(target("10.0.0.1:8080"), Target::Workload(pod) if pod.workload == "shop/catalog-0"));
}

#[tokio::test]
async fn one_save_with_a_route_and_its_backend_is_one_epoch() {
    let (folder, control_plane, held) = shop().await;
    let (mut stream, first) = cart(&control_plane, &held).await;
    folder.save("canary.yaml", manifests::CANARY);
    let epoch = stream.take().await;
    assert_eq!(names(&epoch), ["OUTBOUND shop/catalog:80", "BACKEND shop/catalog-next:80"]);
    assert!(epoch.generation > first.generation);
    let route: v1::Outbound = body(&epoch, v1::ResourceType::Outbound, CATALOG).unwrap();
    let weights: Vec<_> = route.routes[0].rules[0].backends.iter().map(|b| b.weight).collect();
    assert_eq!(weights, [90, 10]);

    std::fs::remove_file(folder.manifest("canary.yaml")).unwrap();
    let epoch = stream.take().await;
    assert_eq!(names(&epoch), ["OUTBOUND shop/catalog:80"]);
    assert_eq!(epoch.removals[0].name, "shop/catalog-next:80");
}

#[tokio::test]
async fn a_broken_edit_sends_nothing_and_says_where_and_its_repair_sends_all_of_it() {
    let (folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    let broken = manifests::CANARY.replace("- {name: catalog, port: 80, weight: 90}", "- {name: [catalog}");
    folder.save("canary.yaml", &broken);
    folder.save("shop.yaml", &manifests::SHOP.replace("10.0.0.1", "10.0.0.9"));
    let seen = status_until(&control_plane, |status| contains(status, "problems", "canary.yaml")).await;
    let line = broken.lines().position(|line| line.contains("[catalog}")).unwrap() + 1;
    assert_eq!(seen["problems"][0]["line"], line, "{seen:#}");
    assert_eq!(seen["generation"], 1);
    let (_, metrics) = get(&control_plane, "/metrics").await;
    assert!(metrics.contains("weft_control_plane_manifest_errors 1"), "{metrics}");

    folder.save("canary.yaml", manifests::CANARY);
    let epoch = stream.take().await;
    assert_eq!(
        names(&epoch),
        ["OUTBOUND shop/catalog:80", "BACKEND shop/catalog-next:80", "BACKEND shop/catalog:80"],
        "nothing came before, and now everything at once"
    );
    let seen = status(&control_plane).await;
    assert_eq!((&seen["problems"], &seen["generation"]), (&serde_json::json!([]), &serde_json::json!(2)));
}

#[tokio::test]
async fn a_refused_route_is_shown_and_the_rest_of_its_save_applies() {
    let (folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    folder.save("more.yaml", &format!("{}---\n{}", manifests::REFUSED, manifests::CANARY));
    let epoch = stream.take().await;
    assert!(names(&epoch).contains(&"BACKEND shop/catalog-next:80".to_owned()));
    let seen = status(&control_plane).await;
    let objects = seen["objects"].as_array().unwrap();
    let refused = objects.iter().find(|object| object["name"] == "dangling").unwrap();
    assert_eq!((&refused["accepted"], &refused["position"]), (&false.into(), &"more.yaml:1".into()));
    assert_eq!(refused["conditions"][0]["on"], "Service nobody:80");
    assert!(refused["conditions"][0]["message"].as_str().is_some_and(|message| !message.is_empty()));
}

#[tokio::test]
async fn a_sidecars_refusal_is_shown_until_it_takes_a_later_version() {
    let (folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    folder.save("canary.yaml", manifests::CANARY);
    let epoch = stream.epoch().await;
    let refusal = v1::Refusal {
        key: epoch.upserts[0].key.clone(),
        version: epoch.upserts[0].version.clone(),
        reason: "a rule of a kind that is not known".to_owned(),
    };
    stream.send(Request::Ack(v1::Ack { nonce: epoch.nonce, refusals: vec![refusal] })).await;
    let seen = status_until(&control_plane, |status| status["sidecars"]["refusing"] == 1).await;
    let refused = &seen["sidecars"]["list"][0]["refusals"][0];
    assert_eq!(refused["name"], CATALOG);
    assert_eq!(refused["reason"], "a rule of a kind that is not known");
    let objects = seen["objects"].as_array().unwrap();
    let route = objects.iter().find(|object| object["kind"] == "HTTPRoute").unwrap();
    assert_eq!(route["refusedBy"][0], "shop/cart-0: a rule of a kind that is not known");

    folder.save("canary.yaml", &manifests::CANARY.replace("weight: 90", "weight: 50"));
    assert_eq!(names(&stream.take().await), ["OUTBOUND shop/catalog:80"]);
    status_until(&control_plane, |status| status["sidecars"]["refusing"] == 0).await;
}

#[tokio::test]
async fn a_reconnect_with_what_it_holds_gets_only_the_difference() {
    let (folder, control_plane, held) = shop().await;
    let (stream, first) = cart(&control_plane, &held).await;
    drop(stream);
    folder.save("canary.yaml", manifests::CANARY);
    status_until(&control_plane, |status| status["generation"] == 2).await;
    let mut hello = hello("shop/cart-0", vec![outbound(CATALOG)]);
    let held_now = |resource: v1::Resource| v1::Held { key: resource.key, version: resource.version };
    hello.held = first.upserts.into_iter().map(held_now).collect();
    let mut stream = Stream::open(&control_plane, &held, hello).await.unwrap();
    let epoch = stream.take().await;
    assert_eq!(names(&epoch), ["OUTBOUND shop/catalog:80", "BACKEND shop/catalog-next:80"]);
}

#[tokio::test]
async fn a_restarted_control_plane_owes_nothing_to_who_holds_all() {
    let (folder, control_plane, _) = shop().await;
    control_plane.shutdown().await;
    let mut args = folder.args();
    args.state = Some(folder.path().join("state"));
    let before = start(&args).await;
    let held = join(&before, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    let (_stream, first) = cart(&before, &held).await;
    before.shutdown().await;
    let after = start(&args).await;
    let mut hello = hello("shop/cart-0", vec![outbound(CATALOG)]);
    let held_now = |resource: v1::Resource| v1::Held { key: resource.key, version: resource.version };
    hello.held = first.upserts.into_iter().map(held_now).collect();
    let epoch = Stream::open(&after, &held, hello).await.unwrap().take().await;
    assert_eq!((names(&epoch), epoch.removals), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_stolen_identity_opens_no_stream() {
    let (_folder, control_plane, held) = shop().await;
    for workload in ["shop/catalog-0", "bank/cart-0"] {
        let mut stream = Stream::open(&control_plane, &held, hello(workload, Vec::new())).await.unwrap();
        let status = stream.end().await;
        assert_eq!(status.code(), Code::PermissionDenied, "{workload}: {}", status.message());
        assert!(status.message().contains("does not speak for workload"), "{}", status.message());
    }
    let channel = common::client::connect(&control_plane, None).await.unwrap();
    let requests = tokio_stream::empty::<v1::DiscoveryRequest>();
    let mut client = v1::discovery_client::DiscoveryClient::new(channel);
    assert_eq!(client.stream(requests).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_workload_that_is_not_known_waits_and_gets_its_inbound_when_its_pod_appears() {
    let (folder, control_plane, _) = shop().await;
    let held = join(&control_plane, "shop/other-0", "a-token-of-the-other").await.unwrap();
    let mut stream = Stream::open(&control_plane, &held, hello("shop/other-0", Vec::new())).await.unwrap();
    assert_eq!(names(&stream.take().await), ["MESH mesh", "TRUST cluster.local"]);
    let pod = manifests::SHOP
        .split("---\n")
        .last()
        .unwrap()
        .replace("cart", "other")
        .replace("10.0.0.2", "10.0.0.3");
    folder.save("other.yaml", &pod);
    assert_eq!(names(&stream.take().await), ["INBOUND shop/other-0"]);
    // The pod comes back under another account: what the peer proved is no longer its own.
    folder.save("other.yaml", &pod.replace("serviceAccountName: other", "serviceAccountName: catalog"));
    assert_eq!(stream.end().await.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn misuse_of_the_stream_ends_it_with_a_reason() {
    let (_folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    stream.send(Request::Ack(v1::Ack { nonce: 77, refusals: Vec::new() })).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    let unknown = vec![v1::Key { r#type: 99, name: "x".to_owned() }];
    for hello in [hello("no workload", Vec::new()), hello("shop/cart-0", unknown)] {
        let mut stream = Stream::open(&control_plane, &held, hello).await.unwrap();
        assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    }
    let (mut stream, _) = cart(&control_plane, &held).await;
    stream.send(Request::Hello(hello("shop/cart-0", Vec::new()))).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn too_many_streams_are_told_to_come_back_later() {
    let folder = Folder::new();
    folder.tokens("- {token: a-token-of-the-cart, serviceAccount: shop/cart}\n");
    folder.save("shop.yaml", manifests::SHOP);
    let mut args = folder.args();
    args.max_streams = 1;
    let control_plane = start(&args).await;
    let held = join(&control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    let (_stream, _) = cart(&control_plane, &held).await;
    let mut second = Stream::open(&control_plane, &held, hello("shop/cart-0", Vec::new())).await.unwrap();
    let Ok(Some(Response::RetryAfter(later))) = second.next().await else { panic!("no RetryAfter") };
    assert!(later.after.unwrap().nanos > 0);
    assert!(second.next().await.unwrap().is_none(), "the stream ends well after it");
    let (_, metrics) = get(&control_plane, "/metrics").await;
    assert!(metrics.contains("streams_closed_total{outcome=\"OverLimit\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_shutdown_says_come_back_later_and_ends_in_time() {
    let (_folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    let stopped = tokio::spawn(control_plane.shutdown());
    assert!(matches!(stream.next().await, Ok(Some(Response::RetryAfter(_)))));
    assert!(stream.next().await.unwrap().is_none());
    drop(stream);
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_is_sent_while_an_epoch_waits_and_then_only_the_last_state() {
    let (folder, control_plane, held) = shop().await;
    let hello = hello("shop/cart-0", vec![outbound(CATALOG)]);
    let mut stream = Stream::open(&control_plane, &held, hello).await.unwrap();
    let first = stream.epoch().await;
    for (number, generation) in [(21, 2), (22, 3), (23, 4)] {
        folder.save("shop.yaml", &manifests::SHOP.replace("10.0.0.1", &format!("10.0.0.{number}")));
        status_until(&control_plane, |status| status["generation"] == generation).await;
    }
    assert!(stream.is_silent(Duration::from_millis(1)).await);
    stream.send(Request::Ack(v1::Ack { nonce: first.nonce, refusals: Vec::new() })).await;
    let epoch = stream.take().await;
    let backend: v1::Backend = body(&epoch, v1::ResourceType::Backend, CATALOG).unwrap();
    assert_eq!((epoch.generation, backend.endpoints[0].address.as_str()), (4, "10.0.0.23:8080"));
}

#[tokio::test]
async fn the_administrators_side_shows_what_is_published() {
    let (folder, control_plane, _) = shop().await;
    assert_eq!(get(&control_plane, "/live").await.0, 200);
    assert_eq!(get(&control_plane, "/ready").await.0, 200);
    let (_, config) = get(&control_plane, "/config").await;
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["model"], serde_json::json!({"Pod": 2, "Service": 1}));
    let backend =
        config["resources"].as_array().unwrap().iter().find(|r| r["type"] == "RESOURCE_TYPE_BACKEND");
    assert_eq!(backend.unwrap()["version"].as_str().unwrap().len(), 32);
    let (code, text) = get(&control_plane, "/config?name=shop/catalog:80").await;
    assert!(code == 200 && text.contains("10.0.0.1:8080"), "{text}");
    assert_eq!(get(&control_plane, "/config?name=nothing").await.0, 404);
    assert_eq!(ask(&control_plane, "PUT", "/log", "not a [filter").await.0, 400);
    let (_, metrics) = get(&control_plane, "/metrics").await;
    assert!(metrics.contains("weft_control_plane_config_generation 1"), "{metrics}");
    assert!(metrics.contains("weft_control_plane_certificates_total{outcome=\"Join\"} 1"), "{metrics}");
    folder.save("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n");
    status_until(&control_plane, |status| status["ignored"]["Deployment"] == 1).await;
}

#[tokio::test]
async fn a_folder_that_is_broken_from_the_start_is_not_ready_and_says_why() {
    let folder = Folder::new();
    folder.tokens("[]");
    folder.save("shop.yaml", "kind: [");
    let mut control_plane =
        ControlPlane::start(&folder.args(), weft_control_plane::log::LogLevel::default()).await.unwrap();
    status_until(&control_plane, |status| contains(status, "problems", "shop.yaml")).await;
    let (code, text) = get(&control_plane, "/ready").await;
    assert_eq!(code, 503);
    assert!(text.contains("shop.yaml:1"), "{text}");
    folder.save("shop.yaml", manifests::SHOP);
    tokio::time::timeout(PATIENCE, control_plane.ready()).await.unwrap();
    assert_eq!(get(&control_plane, "/ready").await.0, 200);
}

#[tokio::test]
async fn a_sidecar_that_does_not_answer_is_cut_off() {
    let folder = Folder::new();
    folder.tokens("- {token: a-token-of-the-cart, serviceAccount: shop/cart}\n");
    folder.save("shop.yaml", manifests::SHOP);
    let mut args = folder.args();
    args.ack_timeout = Duration::from_millis(50);
    let control_plane = start(&args).await;
    let held = join(&control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    let mut stream = Stream::open(&control_plane, &held, hello("shop/cart-0", Vec::new())).await.unwrap();
    assert_eq!(stream.end().await.code(), Code::DeadlineExceeded);
    status_until(&control_plane, |status| status["sidecars"]["connected"] == 0).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_certificate_and_asks_for_the_new_one() {
    let folder = Folder::new();
    folder.tokens("- {token: a-token-of-the-cart, serviceAccount: shop/cart}\n");
    folder.save("shop.yaml", manifests::SHOP);
    let mut args = folder.args();
    args.certificate_life = Duration::from_secs(6);
    let control_plane = start(&args).await;
    let held = join(&control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    let (mut stream, _) = cart(&control_plane, &held).await;
    let Ok(Some(Response::RetryAfter(later))) = stream.next().await else { panic!("no RetryAfter") };
    assert!(later.reason.contains("expired"), "{}", later.reason);
    // Within its last second TLS still takes the certificate; the stream never does.
    if let Ok(mut stream) = Stream::open(&control_plane, &held, hello("shop/cart-0", Vec::new())).await {
        assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_long_stream_lives_through_renewals_and_edits() {
    let (folder, control_plane, held) = shop().await;
    let (mut stream, _) = cart(&control_plane, &held).await;
    for number in 11..21 {
        let key = common::client::key();
        let request = common::client::csr(&key);
        common::client::sign(&control_plane, Some(&held), "shop/cart-0", "", request).await.unwrap();
        folder.save("shop.yaml", &manifests::SHOP.replace("10.0.0.1", &format!("10.0.0.{number}")));
        let epoch = stream.take().await;
        let backend: v1::Backend = body(&epoch, v1::ResourceType::Backend, CATALOG).unwrap();
        assert_eq!(backend.endpoints[0].address, format!("10.0.0.{number}:8080"));
    }
}
