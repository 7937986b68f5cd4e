//! What saving does, and does not do, to what is published.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::client::{Stream, body, hello, join, names, outbound};
use common::{Folder, PATIENCE, manifests, start, status, status_until};
use weft_proto::v1;

const TOKEN: &str = "- {token: a-token-of-the-cart, serviceAccount: shop/cart, uses: 99}\n";

fn shop() -> Folder {
    let folder = Folder::new();
    folder.tokens(TOKEN);
    folder.save("shop.yaml", manifests::SHOP);
    folder
}

async fn first_epoch(control_plane: &weft_control_plane::ControlPlane) -> (Stream, v1::Epoch) {
    let held = join(control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    let hello = hello("shop/cart-0", vec![outbound("shop/catalog:80")]);
    let mut stream = Stream::open(control_plane, &held, hello).await.unwrap();
    let epoch = stream.take().await;
    (stream, epoch)
}

#[tokio::test]
async fn a_save_that_changes_no_meaning_is_no_new_generation() {
    let folder = shop();
    let control_plane = start(&folder.args()).await;
    let (mut stream, _) = first_epoch(&control_plane).await;
    let before = status(&control_plane).await["ignored"].clone();
    assert_eq!(before, serde_json::json!({}));
    // An ignored object shows that the save was seen.
    let ignored = "# a comment\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    folder.save("more.yaml", ignored);
    let seen = status_until(&control_plane, |status| status["ignored"]["Deployment"] == 1).await;
    assert_eq!(seen["generation"], 1);
    folder.save("shop.yaml", &manifests::SHOP.replace("10.0.0.1", "10.0.0.7"));
    let epoch = stream.take().await;
    assert_eq!((epoch.generation, names(&epoch)), (2, vec!["BACKEND shop/catalog:80".to_owned()]));
}

#[tokio::test]
async fn every_stream_gets_an_edit_and_only_what_it_asked_for() {
    let folder = shop();
    let control_plane = start(&folder.args()).await;
    let mut interested = Vec::new();
    for _ in 0..20 {
        interested.push(first_epoch(&control_plane).await.0);
    }
    let held = join(&control_plane, "shop/cart-0", "a-token-of-the-cart").await.unwrap();
    let mut other = Stream::open(&control_plane, &held, hello("shop/cart-0", Vec::new())).await.unwrap();
    other.take().await;
    folder.save("shop.yaml", &manifests::SHOP.replace("10.0.0.1", "10.0.0.7"));
    let mut versions = std::collections::BTreeSet::new();
    for stream in &mut interested {
        let epoch = stream.take().await;
        assert_eq!(names(&epoch), ["BACKEND shop/catalog:80"]);
        versions.insert(epoch.upserts[0].version.clone());
    }
    assert_eq!(versions.len(), 1, "equal bytes for everybody");
    let all = status_until(&control_plane, |status| status["sidecars"]["current"] == 21).await;
    assert_eq!(all["sidecars"]["connected"], 21);
    // Had the other been sent something, it would come before its own change.
    folder.save("shop.yaml", &manifests::SHOP.replace("name: cart-0", "name: cart-0\n  annotations: {x: y}"));
    folder.save(
        "mesh.yaml",
        "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {accessLog: All}\n",
    );
    // What the Mesh says of the log is a part of what each workload tells.
    assert_eq!(names(&other.take().await), ["MESH mesh", "INBOUND shop/cart-0"]);
}

#[tokio::test]
async fn the_trust_domain_of_the_authority_is_the_meshs() {
    let folder = shop();
    let mut args = folder.args();
    args.trust_domain = "example.org".to_owned();
    let control_plane = start(&args).await;
    let read = control_plane.reader();
    let published = read.borrow().clone().unwrap();
    let text = format!("{:?}", published.config());
    assert!(text.contains("trust_domain: \"example.org\""), "{text}");
    assert!(!text.contains("cluster.local"), "{text}");
}

#[tokio::test]
async fn a_mesh_of_another_trust_domain_is_a_problem_of_the_folder() {
    let folder = shop();
    let control_plane = start(&folder.args()).await;
    let mesh = "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {trustDomain: example.org}\n";
    folder.save("mesh.yaml", mesh);
    let seen = status_until(&control_plane, |status| status["problems"][0].is_object()).await;
    let reason = seen["problems"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("example.org") && reason.contains("--trust-domain"), "{reason}");
    assert_eq!(seen["problems"][0]["file"], "mesh.yaml");
    assert_eq!(seen["generation"], 1);
    std::fs::remove_file(folder.manifest("mesh.yaml")).unwrap();
    status_until(&control_plane, |status| status["problems"] == serde_json::json!([])).await;
}

#[tokio::test]
async fn a_folder_that_vanishes_takes_nothing_with_it() {
    let folder = shop();
    let control_plane = start(&folder.args()).await;
    let (manifests, aside) = (folder.path().join("manifests"), folder.path().join("aside"));
    std::fs::rename(&manifests, &aside).unwrap();
    let seen = status_until(&control_plane, |status| status["problems"][0].is_object()).await;
    assert_eq!(seen["generation"], 1);
    let (_stream, epoch) = first_epoch(&control_plane).await;
    let backend: v1::Backend = body(&epoch, v1::ResourceType::Backend, "shop/catalog:80").unwrap();
    assert_eq!(backend.endpoints.len(), 1);
    std::fs::rename(&aside, &manifests).unwrap();
    status_until(&control_plane, |status| status["problems"] == serde_json::json!([])).await;
    folder.save("shop.yaml", &manifests::SHOP.replace("10.0.0.1", "10.0.0.7"));
    status_until(&control_plane, |status| status["generation"] == 2).await;
}

#[tokio::test]
async fn a_write_in_place_never_shows_half_a_file() {
    use std::io::Write as _;
    let folder = shop();
    let control_plane = start(&folder.args()).await;
    let (mut stream, _) = first_epoch(&control_plane).await;
    let text = manifests::SHOP.replace("10.0.0.1", "10.0.0.7");
    // Emptied first, as many tools do; the rest follows within the quiet time or after it.
    let mut file = std::fs::File::create(folder.manifest("shop.yaml")).unwrap();
    tokio::task::yield_now().await;
    file.write_all(text.as_bytes()).unwrap();
    drop(file);
    let epoch = tokio::time::timeout(PATIENCE, stream.take()).await.unwrap();
    assert_eq!((names(&epoch), epoch.removals), (vec!["BACKEND shop/catalog:80".to_owned()], Vec::new()));
}
