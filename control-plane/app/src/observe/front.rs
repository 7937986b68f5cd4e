//! The aggregated API `observe.weft.dev/v1alpha1`: the API server passes on what its users ask, beside the
//! injector's webhook on the same port.
//!
//! ```text
//! GET …/namespaces/NAMESPACE/stats | decisions | explanations?question=…     for all namespaces without namespaces/NAMESPACE
//! GET …/watch/namespaces/NAMESPACE/taps?question=…    "watch", because the API server ends others after a minute
//! ```
//!
//! The question is a Question as JSON in base64url (RFC 4648 §5, unpadded); the answer is a Finding as JSON on each
//! line. It is no body, because the API server's proxy cuts an answer off that comes before it has seen the end of a
//! body, where its own client speaks HTTP/1.1.
//!
//! Before it: `webhook::serve` shook hands. After it: the `hub`.
//!
//! Invariant: a question is asked only for a user whom the API server's proven front proxy names, and whom the
//! API server says may ask it.
//! Invariant: a question of one namespace is asked of that namespace's sidecars, whatever its body says.

mod headers;
pub(crate) mod offered;
mod review;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_proto::v1;
use weft_proto::v1::question::What;

use self::headers::Proxy;
use self::review::{Review, Verdict};
use self::words::refuse;
use super::{Hub, Refused};

/// Group of the API. Source: the contract with those who ask.
pub const GROUP: &str = "observe.weft.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// What may be asked, and the verb that is needed for it.
const RESOURCES: [(&str, &str, &str); 4] = [
    ("stats", "stat", "list"),
    ("taps", "tap", "watch"),
    ("decisions", "decision", "list"),
    ("explanations", "explanation", "list"),
];
/// Largest question, encoded. Source: Weft's own; some names and paths, within what servers take of a target.
const QUESTION: usize = 48 * 1024;

/// How long an answer may be silent. Source: proxies and clients give up after a minute, some after half.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The API.
#[derive(Clone)]
pub struct Front {
    hub: Hub,
    proxy: Arc<Proxy>,
    review: Arc<Review>,
}

/// The place of a question in the API.
struct Place {
    resource: String,
    verb: &'static str,
    namespace: String,
}

impl Front {
    /// An API of `hub`; it follows who the front proxy is for as long as the returned task runs.
    pub fn start(hub: Hub, client: Client) -> (Self, JoinHandle<()>) {
        let proxy = Arc::new(Proxy::default());
        let following = tokio::spawn(headers::follow(Arc::clone(&proxy), client.clone()));
        (Self { hub, proxy, review: Arc::new(Review::new(client)) }, following)
    }

    /// Its paths.
    pub fn router(self) -> Router {
        let version = format!("/apis/{GROUP}/{VERSION}");
        Router::new()
            .route("/apis", get(async || axum::Json(words::groups())))
            .route(&format!("/apis/{GROUP}"), get(async || axum::Json(words::group())))
            .route(&version, get(async || axum::Json(words::resources(&RESOURCES))))
            .route(&format!("{version}/{{resource}}"), get(everywhere))
            .route(&format!("{version}/namespaces/{{namespace}}/{{resource}}"), get(within))
            .route(&format!("{version}/watch/{{resource}}"), get(watch_everywhere))
            .route(&format!("{version}/watch/namespaces/{{namespace}}/{{resource}}"), get(watch_within))
            .with_state(self)
    }

    async fn asked(&self, place: Place, request: Request) -> Response {
        match self.answer(place, request).await {
            Ok(answer) => answer,
            Err((code, text)) => refuse(code, &text),
        }
    }

    async fn answer(&self, place: Place, request: Request) -> Result<Response, (StatusCode, String)> {
        let known = RESOURCES.iter().find(|(name, _, verb)| *name == place.resource && *verb == place.verb);
        if known.is_none() {
            return Err((StatusCode::NOT_FOUND, format!("nothing is asked as {}", place.resource)));
        }
        let (parts, _) = request.into_parts();
        let user = self.proxy.user(&parts).map_err(|text| (StatusCode::UNAUTHORIZED, text))?;
        let verdict = self.review.ask(&user, place.verb, GROUP, &place.resource, &place.namespace).await;
        match verdict {
            Verdict::Allowed => {}
            Verdict::Denied(reason) => {
                return Err((StatusCode::FORBIDDEN, denied(&user.name, &place, &reason)));
            }
            Verdict::Unknown(reason) => return Err((StatusCode::SERVICE_UNAVAILABLE, reason)),
        }
        let mut question = question(parts.uri.query())?;
        if kind(&question) != Some(place.resource.as_str()) {
            return Err((StatusCode::BAD_REQUEST, format!("the question is none of {}", place.resource)));
        }
        question.namespace.clone_from(&place.namespace);
        question.relayed = false;
        let (resource, namespace) = (&place.resource, &place.namespace);
        tracing::info!(user = user.name, %resource, %namespace, "a look at the mesh");
        let findings = self.hub.ask(question).map_err(|refused| match refused {
            Refused::Question(text) => (StatusCode::BAD_REQUEST, text),
            Refused::Busy => (StatusCode::TOO_MANY_REQUESTS, refused.to_string()),
        })?;
        let kind = [(header::CONTENT_TYPE, "application/json")];
        Ok((kind, Body::from_stream(lines(findings, KEEPALIVE))).into_response())
    }
}

/// What is found, line by line, and an empty line now and then while nothing is.
fn lines(
    findings: mpsc::Receiver<v1::Finding>,
    silence: Duration,
) -> impl futures_util::Stream<Item = Result<Bytes, serde_json::Error>> {
    futures_util::stream::unfold(findings, move |mut findings| async move {
        match timeout(silence, findings.recv()).await {
            Ok(Some(finding)) => Some((line(&finding), findings)),
            Ok(None) => None,
            Err(_) => Some((Ok(Bytes::from_static(b"\n")), findings)),
        }
    })
}

fn line(finding: &v1::Finding) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(finding)?;
    line.push(b'\n');
    Ok(line.into())
}

fn question(query: Option<&str>) -> Result<v1::Question, (StatusCode, String)> {
    let pairs = query.unwrap_or_default().split('&');
    let asked = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == "question");
    let Some((_, asked)) = asked else {
        return Err((
            StatusCode::BAD_REQUEST,
            "no question is asked: ask with `weft stat`, `tap` or `explain`".to_owned(),
        ));
    };
    if asked.len() > QUESTION {
        return Err((StatusCode::URI_TOO_LONG, "the question is too long".to_owned()));
    }
    let bad = |why: String| (StatusCode::BAD_REQUEST, format!("no question: {why}"));
    let json = URL_SAFE_NO_PAD.decode(asked.trim_end_matches('=')).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))
}

/// The resource that a question is asked as.
fn kind(question: &v1::Question) -> Option<&'static str> {
    question.what.as_ref().map(|what| match what {
        What::Stat(_) => "stats",
        What::Tap(_) => "taps",
        What::Recall(_) => "decisions",
        What::Explain(_) => "explanations",
    })
}

fn denied(user: &str, place: &Place, reason: &str) -> String {
    let Place { resource, verb, namespace } = place;
    let at =
        if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") };
    let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    format!(
        "user {user:?} may not {verb} {resource}.{GROUP} in {at}{because}: bind the ClusterRole weft-observer to it"
    )
}

async fn everywhere(State(front): State<Front>, Path(resource): Path<String>, request: Request) -> Response {
    front.asked(Place { resource, verb: "list", namespace: String::new() }, request).await
}

async fn within(
    State(front): State<Front>,
    Path((namespace, resource)): Path<(String, String)>,
    request: Request,
) -> Response {
    front.asked(Place { resource, verb: "list", namespace }, request).await
}

async fn watch_everywhere(
    State(front): State<Front>,
    Path(resource): Path<String>,
    request: Request,
) -> Response {
    front.asked(Place { resource, verb: "watch", namespace: String::new() }, request).await
}

async fn watch_within(
    State(front): State<Front>,
    Path((namespace, resource)): Path<(String, String)>,
    request: Request,
) -> Response {
    front.asked(Place { resource, verb: "watch", namespace }, request).await
}

#[cfg(test)]
mod tests;
