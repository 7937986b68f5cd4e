//! The admin server: what an operator, a kubelet and a scraper ask the sidecar.
//!
//! | path | answers |
//! |---|---|
//! | `GET /metrics` | all counters, in the form that the scraper asks for |
//! | `GET /ready` | 200 when traffic may come, else 503 and why |
//! | `GET /live` | 200 while the data threads move, else 503 |
//! | `GET /config` | the snapshot and the settings, JSON |
//! | `GET /edges` | the live table, JSON |
//! | `GET /log`, `PUT /log` | the log's filter; a new one is the body |
//! | `POST /drain` | begins to drain |
//!
//! From outside the machine or pod only the first three answer.
//!
//! Runs on the chores thread; the data threads answer through [`Sidecar`].
//!
//! Invariant: whatever happens here, the data threads do not wait for it.
//! Invariant: a peer that is not on loopback sees counters and readiness, and changes nothing.

pub mod pulse;

use std::convert::Infallible;
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;
use weft_exposition::Format;

use crate::log::Log;
use crate::metrics::Metrics;
use crate::metrics::render::Scrape;
use crate::metrics::table::Table;
use crate::record::clock::Clock;

/// The rest of the sidecar, as the admin server asks it. No answer may wait.
pub trait Sidecar: Send + Sync + 'static {
    /// Whether traffic may come.
    ///
    /// # Errors
    /// Why not, for a person.
    fn ready(&self) -> Result<(), String>;

    /// Whether the data threads move.
    ///
    /// # Errors
    /// Which does not, for a person.
    fn live(&self) -> Result<(), String>;

    /// The snapshot and the settings.
    fn config(&self) -> serde_json::Value;

    /// Begins to drain.
    fn drain(&self);
}

/// What the admin server serves.
#[derive(Clone)]
pub struct Admin(Arc<Desk>);

struct Desk {
    sidecar: Arc<dyn Sidecar>,
    metrics: Arc<Metrics>,
    table: Table,
    clock: Clock,
    log: Log,
}

impl Admin {
    /// An admin server for this sidecar.
    #[must_use]
    pub fn new(sidecar: Arc<dyn Sidecar>, metrics: Arc<Metrics>, clock: Clock, log: Log) -> Self {
        Self(Arc::new(Desk { sidecar, metrics, table: Table::default(), clock, log }))
    }

    /// Serves until stopped.
    ///
    /// # Cancel safety
    /// Dropped, it closes its connections.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let router = self.router();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut open = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = open.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of descriptors, most likely: others must close some first.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let router = router.clone();
                    open.spawn(async move {
                        // However it ends, nobody else has to know.
                        let _ = tokio::time::timeout(CONNECTION, serve_one(router, stream, peer)).await;
                        drop(place);
                    });
                }
                Err(_) => self.0.metrics.plain().limit("admin_connections").up(),
            }
        }
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/ready", get(ready))
            .route("/live", get(live))
            .route("/config", get(config))
            .route("/edges", get(edges))
            .route("/log", get(filter).put(set_filter))
            .route("/drain", post(drain))
            .layer(from_fn(admit))
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(self.clone())
    }
}

async fn serve_one(router: Router, stream: TcpStream, peer: SocketAddr) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        let answer = router.clone().call(request);
        async move {
            let late = || (StatusCode::SERVICE_UNAVAILABLE, "took too long\n").into_response();
            Ok::<_, Infallible>(match tokio::time::timeout(REQUEST, answer).await {
                Ok(Ok(answer)) => answer,
                Err(_) => late(),
            })
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // Who has said all that it will say still waits for the answer.
        .half_close(true)
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

/// What answers a kubelet and a scraper, which ask from outside the pod.
const PUBLIC: [&str; 3] = ["/metrics", "/ready", "/live"];

/// Turns away who asks from elsewhere for more than is public.
async fn admit(Extension(Peer(peer)): Extension<Peer>, request: Request, next: Next) -> Response {
    if peer.ip().to_canonical().is_loopback() || PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let why = "from outside only /metrics, /ready and /live answer: use `kubectl port-forward` or `weft`\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

/// A page that is short is sent whole, with its length; of a long one, a part is held at a time.
async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::negotiate(accept);
    let mut scrape = Scrape::begin(Arc::clone(&admin.0.metrics), format);
    let mut start = Vec::new();
    let over = loop {
        match scrape.next() {
            None => break true,
            Some(part) => start.extend(part),
        }
        if start.len() >= WHOLE {
            break false;
        }
    };
    let body = if over {
        Body::from(start)
    } else {
        Body::from_stream(tokio_stream::iter(iter::once(start).chain(scrape).map(Ok::<_, Infallible>)))
    };
    ([(header::CONTENT_TYPE, format.content_type())], body)
}

async fn ready(State(admin): State<Admin>) -> Response {
    verdict(admin.0.sidecar.ready(), "ready\n")
}

async fn live(State(admin): State<Admin>) -> Response {
    verdict(admin.0.sidecar.live(), "live\n")
}

fn verdict(answer: Result<(), String>, good: &'static str) -> Response {
    match answer {
        Ok(()) => good.into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn config(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(admin.0.sidecar.config())
}

async fn edges(State(admin): State<Admin>) -> impl IntoResponse {
    Json(admin.0.table.rows(&admin.0.metrics, admin.0.clock.now()))
}

async fn filter(State(admin): State<Admin>) -> String {
    format!("{}\n", admin.0.log.filter())
}

async fn set_filter(State(admin): State<Admin>, body: String) -> Response {
    match admin.0.log.set(&body) {
        Ok(()) => filter(State(admin)).await.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn drain(State(admin): State<Admin>) -> impl IntoResponse {
    admin.0.sidecar.drain();
    (StatusCode::ACCEPTED, "draining\n")
}

/// Source: a scraper, a kubelet and some people; far more than ask at once.
const CONNECTIONS: usize = 64;
/// Source: ours: a head of an admin request is a few hundred bytes, on loopback or the node's network.
const HEADERS: Duration = Duration::from_secs(5);
/// Source: Prometheus gives up a scrape after ten seconds by default.
const REQUEST: Duration = Duration::from_secs(10);
/// Source: longer than the usual scrape interval of a minute, so a scraper may keep its connection.
const CONNECTION: Duration = Duration::from_secs(90);
/// A page up to this is sent whole. Source: ours: a sidecar that calls ten services has less.
const WHOLE: usize = 256 << 10;
/// Source: hyper's least (8 KiB): no admin request is larger.
const BUFFER: usize = 8 << 10;
/// Source: a log filter, the only body taken, is a line.
const BODY: usize = 4 << 10;
/// Source: ours: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
