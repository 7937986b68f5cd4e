//! Who gets a certificate, and who does not, over real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::client::{self, Held, chain, csr, join, key, sign};
use common::{Folder, manifests, start};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use tonic::Code;

const TOKEN: &str = "a-token-of-the-cart";

fn token_for(rest: &str) -> String {
    format!("- {{token: {TOKEN}, {rest}}}\n")
}

async fn code_of(tokens: &str, workload: &str, token: &str) -> (Code, String) {
    let folder = Folder::new();
    folder.tokens(tokens);
    folder.save("shop.yaml", manifests::SHOP);
    let control_plane = start(&folder.args()).await;
    let status = join(&control_plane, workload, token).await.map(|_| ()).unwrap_err();
    (status.code(), status.message().to_owned())
}

fn identity(held: &Held) -> String {
    let leaf = webpki::EndEntityCert::try_from(&held.chain[0]).unwrap();
    leaf.valid_uri_names().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_token_gives_the_workloads_own_identity() {
    let folder = Folder::new();
    folder.tokens(&token_for("workload: shop/cart-0"));
    folder.save("shop.yaml", manifests::SHOP);
    let control_plane = start(&folder.args()).await;
    let held = join(&control_plane, "shop/cart-0", TOKEN).await.unwrap();
    assert_eq!(identity(&held), "spiffe://cluster.local/ns/shop/sa/cart");
}

#[tokio::test]
async fn a_service_accounts_token_serves_a_workload_that_is_not_known_yet() {
    let folder = Folder::new();
    folder.tokens(&token_for("serviceAccount: shop/cart"));
    let control_plane = start(&folder.args()).await;
    let held = join(&control_plane, "shop/new-0", TOKEN).await.unwrap();
    assert_eq!(identity(&held), "spiffe://cluster.local/ns/shop/sa/cart");
}

#[tokio::test]
async fn a_wrong_token_is_unauthenticated() {
    let (code, message) =
        code_of(&token_for("workload: shop/cart-0"), "shop/cart-0", "another-token-of-mine").await;
    assert_eq!(code, Code::Unauthenticated, "{message}");
    let (code, message) = code_of(&token_for("workload: shop/cart-0"), "shop/cart-0", "").await;
    assert_eq!(code, Code::Unauthenticated, "{message}");
}

#[tokio::test]
async fn an_expired_token_is_unauthenticated() {
    let tokens = token_for("workload: shop/cart-0, expires: \"2020-01-01T00:00:00Z\"");
    let (code, message) = code_of(&tokens, "shop/cart-0", TOKEN).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("expired"), "{message}");
}

#[tokio::test]
async fn a_token_does_not_speak_for_a_foreign_workload() {
    for (grant, workload) in [
        ("workload: shop/cart-0", "shop/catalog-0"),
        ("serviceAccount: shop/cart", "shop/catalog-0"),
        ("serviceAccount: shop/cart", "bank/cart-0"),
        ("workload: weft-system/cp, serviceAccount: weft-system/weft-control-plane", "weft-system/cp"),
    ] {
        let (code, message) = code_of(&token_for(grant), workload, TOKEN).await;
        assert_eq!(code, Code::PermissionDenied, "{grant} as {workload}: {message}");
    }
}

#[tokio::test]
async fn a_workloads_token_waits_for_its_pod() {
    let (code, message) = code_of(&token_for("workload: shop/later-0"), "shop/later-0", TOKEN).await;
    assert_eq!(code, Code::Unavailable);
    assert!(message.contains("add its Pod"), "{message}");
}

#[tokio::test]
async fn a_used_token_stays_used_across_a_restart() {
    let folder = Folder::new();
    folder.tokens(&token_for("workload: shop/cart-0, uses: 1"));
    folder.save("shop.yaml", manifests::SHOP);
    let mut args = folder.args();
    args.state = Some(folder.path().join("state"));
    let control_plane = start(&args).await;
    join(&control_plane, "shop/cart-0", TOKEN).await.unwrap();
    let again = join(&control_plane, "shop/cart-0", TOKEN).await.map(|_| ()).unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    control_plane.shutdown().await;
    let control_plane = start(&args).await;
    let again = join(&control_plane, "shop/cart-0", TOKEN).await.map(|_| ()).unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_bad_request_is_refused_and_costs_no_use() {
    let folder = Folder::new();
    folder.tokens(&token_for("workload: shop/cart-0, uses: 1"));
    folder.save("shop.yaml", manifests::SHOP);
    let control_plane = start(&folder.args()).await;
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut forged = csr(&key());
    *forged.last_mut().unwrap() ^= 1;
    for request in [b"nonsense".to_vec(), Vec::new(), csr(&other), forged] {
        let status = sign(&control_plane, None, "shop/cart-0", TOKEN, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    }
    let status = sign(&control_plane, None, "no workload", TOKEN, csr(&key())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    join(&control_plane, "shop/cart-0", TOKEN).await.unwrap();
}

#[tokio::test]
async fn a_certificate_renews_itself_and_only_itself() {
    let folder = Folder::new();
    folder.tokens(&token_for("workload: shop/cart-0"));
    folder.save("shop.yaml", manifests::SHOP);
    let control_plane = start(&folder.args()).await;
    let held = join(&control_plane, "shop/cart-0", TOKEN).await.unwrap();
    let key = key();
    let answer = sign(&control_plane, Some(&held), "shop/cart-0", "", csr(&key)).await.unwrap();
    let renewed = Held { chain: chain(&answer), key };
    assert_eq!(identity(&renewed), identity(&held));
    assert_ne!(renewed.chain[0], held.chain[0]);
    assert!(answer.renew_after < answer.not_after);
    for foreign in ["shop/catalog-0", "bank/cart-0"] {
        let status = sign(&control_plane, Some(&held), foreign, "", csr(&client::key())).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{foreign}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_root_is_no_proof() {
    let folders = [Folder::new(), Folder::new()];
    for folder in &folders {
        folder.tokens(&token_for("workload: shop/cart-0"));
        folder.save("shop.yaml", manifests::SHOP);
    }
    let (ours, theirs) = (start(&folders[0].args()).await, start(&folders[1].args()).await);
    let foreign = join(&theirs, "shop/cart-0", TOKEN).await.unwrap();
    let refused = sign(&ours, Some(&foreign), "shop/cart-0", "", csr(&key())).await;
    assert!(refused.is_err());
    // The other root is not trusted for the server either.
    let mut wrong = ours;
    wrong.trust_anchors = theirs.trust_anchors.clone();
    assert!(client::connect(&wrong, None).await.is_err());
}

#[tokio::test]
async fn a_restart_with_the_same_state_keeps_the_root_and_its_certificates() {
    let folder = Folder::new();
    folder.tokens(&token_for("workload: shop/cart-0"));
    folder.save("shop.yaml", manifests::SHOP);
    let mut args = folder.args();
    args.state = Some(folder.path().join("state"));
    args.write_trust_anchors = Some(folder.path().join("anchors.pem"));
    let first = start(&args).await;
    let held = join(&first, "shop/cart-0", TOKEN).await.unwrap();
    let anchors = first.trust_anchors.clone();
    first.shutdown().await;
    let second = start(&args).await;
    assert_eq!(second.trust_anchors, anchors);
    assert_eq!(std::fs::read_to_string(folder.path().join("anchors.pem")).unwrap(), anchors);
    sign(&second, Some(&held), "shop/cart-0", "", csr(&key())).await.unwrap();
}
