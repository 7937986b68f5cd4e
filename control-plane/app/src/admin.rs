//! The administrator's side: metrics, liveness and readiness, what became of the manifests, what is
//! published, and the log's level.
//!
//! Invariant: nothing here changes configuration; nothing here shows a key or a token.
//! Invariant: a slow or silent client costs one of a few connections, for a limited time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weft_control_plane_core::config::Key;
use weft_control_plane_core::session::Published;
use weft_exposition::Format;
use weft_exposition::handles::Registry;

use crate::encode;
use crate::log::LogLevel;
use crate::publish::Reader;
use crate::status::{self, Manifests, ObjectStatus, Sidecar, Status};
use crate::webhook::Lack;

/// Connections at once. Source: Weft's own; a scraper, a probe and a few people.
const CONNECTIONS: usize = 64;
/// Time for a request's head. Source: hyper's own default.
const HEAD: Duration = Duration::from_secs(30);
/// Life of a connection. Source: Weft's own; a scraper simply connects again.
const LIFE: Duration = Duration::from_secs(300);
/// Largest request body. Source: the only body is a log filter.
const BODY: usize = 4 * 1024;
/// Pause after `accept` failed for want of descriptors. Source: as for the gRPC port.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the administrator's side shows.
#[derive(Clone)]
pub struct Admin {
    /// Metrics.
    pub registry: Arc<Registry>,
    /// Manifests and sidecars.
    pub status: Arc<Status>,
    /// What is published.
    pub reader: Reader,
    /// The log's filter.
    pub log: LogLevel,
    /// Stops serving.
    pub stop: CancellationToken,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusPage {
    ready: bool,
    generation: u64,
    #[serde(flatten)]
    manifests: Manifests,
    /// What became of the objects that attach to something.
    objects: Vec<ObjectStatus>,
    sidecars: Sidecars,
    /// Pods that should have a sidecar and have none.
    unmeshed: Vec<Lack>,
}

#[derive(Serialize)]
struct Sidecars {
    /// Streams that are open.
    connected: usize,
    /// Of these, brought to the published generation.
    current: usize,
    /// Of these, refusing something.
    refusing: usize,
    list: Vec<Sidecar>,
}

#[derive(Serialize)]
struct ConfigPage {
    generation: u64,
    /// Objects taken, by kind.
    model: BTreeMap<String, usize>,
    resources: Vec<ResourceLine>,
    pods: usize,
}

#[derive(Serialize)]
struct ResourceLine {
    r#type: &'static str,
    name: String,
    /// Namespace of the clients that see this variant; absent: all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    version: String,
    bytes: usize,
    /// Names that it refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
}

/// Serves until stopped.
///
/// # Cancel safety
/// Dropping it closes the listener; connections end by themselves.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let stop = admin.stop.clone();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let router = router(admin);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok((socket, _)), Ok(permit)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = tokio::time::timeout(LIFE, connection(socket, router)) => {}
                    }
                });
            }
            (Ok(_), Err(_)) => tracing::warn!("too many connections to the administrator's port"),
            (Err(error), _) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, router: Router) -> io::Result<()> {
    let _ = socket.set_nodelay(true);
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .await
        .map_err(io::Error::other)
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status_page))
        .route("/config", get(config))
        .route("/reach", get(reach))
        .route("/log", get(log).put(set_log))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> Response {
    if admin.reader.borrow().is_some() {
        return "ready\n".into_response();
    }
    let problems = admin.status.manifests().problems.clone();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let text = format!("no good state of the manifests yet\n{}\n", lines.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::negotiate(accept);
    let page = crate::metrics::page(&admin.registry, format);
    ([(header::CONTENT_TYPE, format.content_type())], page).into_response()
}

async fn status_page(State(admin): State<Admin>) -> Response {
    let published = admin.reader.borrow().clone();
    let generation = published.as_ref().map(|published| published.generation());
    let list = admin.status.sidecars();
    let current = list.iter().filter(|sidecar| Some(sidecar.generation) == generation).count();
    let refusing = list.iter().filter(|sidecar| !sidecar.refusals.is_empty()).count();
    let manifests = Manifests::clone(&admin.status.manifests());
    let mut objects = status::objects(&admin.status.report());
    if let Some(published) = published {
        status::attribute(&mut objects, &list, &published);
    }
    axum::Json(StatusPage {
        ready: generation.is_some(),
        generation: generation.unwrap_or(0),
        manifests,
        objects,
        sidecars: Sidecars { connected: list.len(), current, refusing, list },
        unmeshed: Vec::clone(&admin.status.unmeshed.load()),
    })
    .into_response()
}

/// What this replica's sidecars make of what it publishes: the leader adds up all replicas' answers.
async fn reach(State(admin): State<Admin>) -> Response {
    let Some(published) = admin.reader.borrow().clone() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "nothing is published yet\n").into_response();
    };
    axum::Json(admin.status.summary(&published, std::time::Instant::now())).into_response()
}

/// Everything that is published; with `?name=` those resources whole.
async fn config(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let Some(published) = admin.reader.borrow().clone() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "nothing is published yet\n").into_response();
    };
    if let Some(name) = query.get("name") {
        let keys = published.keys().into_iter().filter(|key| key.name == *name);
        let found = keys.filter_map(|key| Some((key, published.resource(key)?)));
        let text: Vec<String> = found.map(|(key, resource)| format!("{key:?}\n{resource:#?}\n")).collect();
        let code = if text.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
        return (code, text.join("\n")).into_response();
    }
    axum::Json(ConfigPage {
        generation: published.generation(),
        model: admin.status.manifests().taken.clone(),
        resources: published.keys().into_iter().map(|key| line(&published, key)).collect(),
        pods: published.pods(),
    })
    .into_response()
}

fn line(published: &Published, key: &Key) -> ResourceLine {
    let (encoded, references) = published.find(key, key.scope.as_deref().unwrap_or_default()).unzip();
    ResourceLine {
        r#type: encode::resource_type(key.kind).as_str_name(),
        name: key.name.clone(),
        scope: key.scope.clone(),
        version: encoded.iter().flat_map(|it| it.version).map(|byte| format!("{byte:02x}")).collect(),
        bytes: encoded.map_or(0, |it| it.body.len()),
        references: references.unwrap_or_default().into_iter().map(|key| key.name).collect(),
    }
}

async fn log(State(admin): State<Admin>) -> String {
    format!("{}\n", admin.log.current())
}

async fn set_log(State(admin): State<Admin>, filter: String) -> Response {
    match admin.log.set(&filter) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "the log's filter was changed");
            format!("{}\n", admin.log.current()).into_response()
        }
        Err(reason) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    }
}
