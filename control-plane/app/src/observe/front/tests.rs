//! The API as the API server calls it, without its own word on who may.

use tower::ServiceExt as _;

use super::headers::tests::{Ca, proxy};
use super::offered::Shown;
use super::*;
use crate::publish::Publisher;

/// An API server that cannot be reached.
fn nobody() -> Client {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    Client::try_from(config).unwrap()
}

fn front(ca: &Ca) -> Front {
    let hub =
        Hub::new(Arc::default(), Publisher::default().reader(), tokio_util::sync::CancellationToken::new());
    Front { hub, proxy: Arc::new(proxy(ca, "[]")), review: Arc::new(Review::new(nobody())) }
}

async fn ask(front: Front, request: axum::http::request::Builder, body: &str) -> (u16, String) {
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = front.router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn discovery_is_answered_to_anybody() {
    let ca = Ca::new();
    for (path, kind) in [
        ("/apis", "APIGroupList"),
        ("/apis/observe.weft.dev", "APIGroup"),
        ("/apis/observe.weft.dev/v1alpha1", "APIResourceList"),
    ] {
        let (status, body) = ask(front(&ca), axum::http::Request::get(path), "").await;
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, document["kind"].as_str()), (200, Some(kind)), "{path}");
    }
}

#[tokio::test]
async fn a_question_needs_the_front_proxy_and_the_api_servers_word() {
    let ca = Ca::new();
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/stats";
    let get = || axum::http::Request::get(path).header("x-remote-user", "anna");
    let (status, body) = ask(front(&ca), get(), "").await;
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("front proxy"), "{body}");
    let shown = Shown(Arc::from(vec![ca.leaf("front-proxy")]));
    let (status, body) = ask(front(&ca), get().extension(shown), "").await;
    assert_eq!(status, 503, "nobody says that she may: {body}");
    let other = axum::http::Request::get("/apis/observe.weft.dev/v1alpha1/namespaces/shop/secrets");
    assert_eq!(ask(front(&ca), other, "{}").await.0, 404);
    let unwatched = axum::http::Request::get("/apis/observe.weft.dev/v1alpha1/namespaces/shop/taps");
    assert_eq!(ask(front(&ca), unwatched, "{}").await.0, 404, "a tap is watched");
}

#[test]
fn a_denial_says_what_to_bind() {
    let place = |namespace: &str| Place {
        resource: "taps".to_owned(),
        verb: "watch",
        namespace: namespace.to_owned(),
    };
    let text = denied("anna", &place("shop"), "");
    assert!(text.contains("weft-observer") && text.contains("namespace shop"), "{text}");
    assert!(denied("anna", &place(""), "").contains("all namespaces"));
}

#[tokio::test]
async fn an_answer_that_is_silent_says_now_and_then_that_it_lives() {
    use futures_util::StreamExt as _;
    let (sender, receiver) = mpsc::channel(1);
    let mut lines = std::pin::pin!(lines(receiver, Duration::from_millis(1)));
    assert_eq!(lines.next().await.unwrap().unwrap(), "\n");
    sender.send(v1::Finding::default()).await.unwrap();
    drop(sender);
    let rest: Vec<_> =
        lines.map(Result::unwrap).filter(|line| std::future::ready(line != "\n")).collect().await;
    assert!(rest.len() == 1 && rest[0].starts_with(b"{"), "{rest:?}");
}

#[test]
fn a_question_is_read_from_the_target_or_refused_in_words() {
    let asked = v1::Question { namespace: "shop".to_owned(), ..v1::Question::default() };
    let encoded = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&asked).unwrap());
    assert_eq!(question(Some(&format!("timeout=1m&question={encoded}"))).unwrap(), asked);
    let long = format!("question={}", "x".repeat(QUESTION + 1));
    for (query, code) in [
        (None, 400),
        (Some("question=%7B%7D"), 400),
        (Some("question=e30x"), 400),
        (Some(long.as_str()), 414),
    ] {
        assert_eq!(question(query).unwrap_err().0, code, "{query:?}");
    }
}
