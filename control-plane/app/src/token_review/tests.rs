//! Which answers of a TokenReview prove a pod, and which do not.

use super::*;
use crate::kubernetes::roll::KnownPod;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use weft_control_plane_core::model::{Model, read};

fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["weft.dev"],
        "user": {
            "username": "system:serviceaccount:shop:cart",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["cart-0"],
                "authentication.kubernetes.io/pod-uid": ["u-1"],
                "authentication.kubernetes.io/node-name": ["n1"],
            },
        },
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut status = good();
    *status.pointer_mut(path).unwrap() = value;
    status
}

fn said(status: Value) -> Result<Proven, Refusal> {
    decide(&serde_json::from_value::<TokenReviewStatus>(status).unwrap())
}

fn workload(text: &str) -> Workload {
    text.parse().unwrap()
}

#[test]
fn a_good_token_proves_its_pod() {
    let proven = said(good()).unwrap();
    let node = Some("n1".to_owned());
    let (uid, service_account) = ("u-1".to_owned(), "cart".to_owned());
    assert_eq!(proven, Proven { workload: workload("shop/cart-0"), uid, service_account, node });
    assert_eq!(proven.is_for(&workload("shop/cart-0")), Ok(()));
    for other in ["shop/cart-1", "evil/cart-0"] {
        assert_eq!(proven.is_for(&workload(other)), Err(Refusal::AnotherPod));
    }
}

#[test]
fn whatever_is_not_said_in_so_many_words_is_a_refusal() {
    let extra = "/user/extra/authentication.kubernetes.io~1";
    let pod_name = format!("{extra}pod-name");
    let pod_uid = format!("{extra}pod-uid");
    let table = [
        (json!({}), Refusal::Forged),
        (with("/authenticated", json!(false)), Refusal::Forged),
        (
            json!({"authenticated": false, "error": "[invalid bearer token, service account token has expired]"}),
            Refusal::Expired,
        ),
        (
            json!({"error": "token audiences [\"https://x\"] is invalid for the target audiences [\"weft.dev\"]"}),
            Refusal::WrongAudience,
        ),
        (with("/audiences", json!([])), Refusal::WrongAudience),
        (with("/audiences", json!(["https://kubernetes.default.svc"])), Refusal::WrongAudience),
        (with("/user", Value::Null), Refusal::NotAPod),
        (with("/user/username", json!("admin")), Refusal::NotAPod),
        (with("/user/username", json!("system:serviceaccount:shop")), Refusal::NotAPod),
        (with("/user/username", json!("system:serviceaccount:shop:")), Refusal::NotAPod),
        (with("/user/username", json!("system:serviceaccount:shop:a:b")), Refusal::NotAPod),
        (with("/user/extra", json!({})), Refusal::NotAPod),
        (with(&pod_name, json!([])), Refusal::NotAPod),
        (with(&pod_name, json!(["a", "b"])), Refusal::NotAPod),
        (with(&pod_name, json!(["a/b"])), Refusal::NotAPod),
        (with(&pod_uid, json!([""])), Refusal::NotAPod),
    ];
    for (status, refusal) in table {
        assert_eq!(said(status.clone()), Err(refusal), "{status}");
    }
}

#[test]
fn the_token_and_the_pod_must_agree() {
    let known = |change: fn(&mut KnownPod)| {
        let mut known = KnownPod {
            uid: "u-1".to_owned(),
            service_account: "cart".to_owned(),
            node: "n1".to_owned(),
            ended: false,
        };
        change(&mut known);
        known
    };
    let proven = said(good()).unwrap();
    let old_server = Proven { node: None, ..proven.clone() };
    let ok = Ok("cart".to_owned());
    assert_eq!(holds_for(&proven, &known(|_| {})), ok);
    assert_eq!(holds_for(&proven, &known(|pod| pod.node.clear())), ok);
    assert_eq!(holds_for(&old_server, &known(|_| {})), ok);
    let of = |change| holds_for(&proven, &known(change));
    assert_eq!(of(|pod| pod.uid = "u-2".to_owned()), Err(Refusal::AnotherPod));
    assert_eq!(of(|pod| pod.node = "n2".to_owned()), Err(Refusal::Mismatch));
    assert_eq!(of(|pod| pod.service_account = "admin".to_owned()), Err(Refusal::Mismatch));
    assert_eq!(of(|pod| pod.ended = true), Err(Refusal::Ended));
}

/// An API server that answers every review with one status, and counts them.
fn server(status: Value) -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
            "status": status,
        });
        let answer = http::Response::new(kube::client::Body::from(review.to_string().into_bytes()));
        async move { Ok::<_, Infallible>(answer) }
    });
    (Client::new(service, "default"), asked)
}

fn note(roll: &Roll, uid: &str) {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart-0", "namespace": "shop", "uid": uid},
        "spec": {"serviceAccountName": "cart", "nodeName": "n1", "containers": [{"name": "app"}]},
    });
    let mut model = Model::default();
    model.apply(read(object).unwrap().unwrap().object, None);
    roll.note_pod("shop", "cart-0", model.pod("shop", "cart-0"));
}

#[tokio::test]
async fn a_pod_that_is_seen_after_it_called_gets_its_account_and_one_review_serves_twice() {
    let (client, asked) = server(good());
    let roll = Roll::default();
    let reviewer = TokenReviewer::new(client, roll.clone());
    let (pod, caller) = (workload("shop/cart-0"), Arc::clone(&reviewer));
    let call = tokio::spawn(async move { caller.prove(&pod, "t0p-s3cret").await });
    while asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    note(&roll, "u-1");
    assert_eq!(call.await.unwrap(), Ok("cart".to_owned()));
    assert_eq!(reviewer.prove(&workload("shop/cart-0"), "t0p-s3cret").await, Ok("cart".to_owned()));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(reviewer.prove(&workload("shop/cart-1"), "t0p-s3cret").await, Err(Refusal::AnotherPod));
    assert!(!format!("{reviewer:?}").contains("s3cret"));
}

#[tokio::test]
async fn an_unknown_pod_may_try_again_and_an_earlier_pod_of_the_name_may_not() {
    let (client, _) = server(good());
    let roll = Roll::default();
    let reviewer = TokenReviewer::new(client, roll.clone());
    assert_eq!(reviewer.prove(&workload("shop/cart-0"), "t").await, Err(Refusal::UnknownPod));
    assert_eq!(reviewer.still_there(&workload("shop/cart-0")).await, Err(Refusal::UnknownPod));
    note(&roll, "u-2");
    assert_eq!(reviewer.prove(&workload("shop/cart-0"), "t").await, Err(Refusal::AnotherPod));
    assert_eq!(reviewer.still_there(&workload("shop/cart-0")).await, Ok("cart".to_owned()));
}
