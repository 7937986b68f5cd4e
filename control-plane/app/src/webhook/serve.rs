//! The webhook's port: TLS and HTTP with limits, one request a pod; and what else is served there.
//!
//! Before it: `certificate`. After it: `review`.
//!
//! Invariant: a slow or silent peer costs one of a limited number of connections, for a limited time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_control_plane_core::inject::{INJECT, NamespaceFacts};

use super::metrics::{InjectMetrics, Outcome};
use super::review::{Answer, answer};
use super::{Namespaces, Notice, Settings};
use crate::observe::front::offered::Shown;

/// Connections at once. Source: Weft's own; an API server keeps a few dozen to one webhook.
const CONNECTIONS: usize = 512;
/// Time for a TLS handshake. Source: the API server itself gives up after 10 s by default.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's head, and between two requests. Source: Go's client closes after 90 s.
const HEAD: Duration = Duration::from_secs(120);
/// Time for a whole request. Source: the longest timeout that Kubernetes allows a webhook.
const REQUEST: Duration = Duration::from_secs(30);
/// Largest body. Source: the API server takes objects of 3 MiB at most, and a review adds little.
const BODY: usize = 4 * 1024 * 1024;
/// Pause after `accept` failed for want of descriptors. Source: as for the gRPC port.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Reason of the event about a pod that cannot be injected.
const NOT_INJECTED: &str = "SidecarNotInjected";

/// What a request needs.
#[derive(Clone)]
pub struct Webhook {
    /// The injector.
    pub settings: Arc<Settings>,
    /// Labels and annotations of namespaces.
    pub namespaces: Namespaces,
    /// Where refusals go.
    pub notice: Notice,
    /// What is counted.
    pub metrics: InjectMetrics,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Serves until stopped.
pub(super) async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    webhook: Webhook,
    beside: Router,
) {
    let (stop, metrics) = (webhook.stop.clone(), webhook.metrics.clone());
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let router = webhook.router().merge(beside);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok((socket, _)), Ok(permit)) => {
                let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    connection(socket, acceptor, router, stop).await;
                });
            }
            (Ok(_), Err(_)) => metrics.count(Outcome::OverLimit),
            (Err(error), _) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, router: Router, stop: CancellationToken) {
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake with the webhook failed"),
        Err(_) => return tracing::debug!("a handshake with the webhook took too long"),
    };
    let shown: Vec<_> = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let router = router.layer(Extension(Shown(shown.into())));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
    }
    // What is under way is answered; nothing new is taken.
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(REQUEST, connection).await;
}

impl Webhook {
    /// `/inject` for every pod; `/inject/enabled` where the API server has already seen that the namespace
    /// asks for sidecars, which it may know before we do.
    fn router(self) -> Router {
        Router::new()
            .route("/inject", post(by_facts))
            .route("/inject/enabled", post(by_selector))
            .with_state(self)
    }

    fn review(&self, body: &[u8], enabled: bool) -> Response {
        let started = Instant::now();
        let namespace = |name: &str| self.facts(name, enabled);
        let Some(injector) = self.settings.current() else {
            self.metrics.count(Outcome::NoSettings);
            // Not an answer: what then becomes of the pod is the fail policy's to say.
            return (StatusCode::SERVICE_UNAVAILABLE, "the injector has no settings yet, see its log\n")
                .into_response();
        };
        let answered = answer(body, &injector, &namespace);
        self.metrics.duration.observe(started.elapsed().as_secs_f64());
        match answered {
            Ok(answer) => self.told(answer),
            Err(reason) => {
                self.metrics.count(Outcome::Invalid);
                tracing::warn!(reason, "the webhook was asked what it does not understand");
                (StatusCode::BAD_REQUEST, reason).into_response()
            }
        }
    }

    fn told(&self, answer: Answer) -> Response {
        self.metrics.count(answer.outcome);
        if let Some(refusal) = answer.refusal {
            let (kind, name) = (refusal.about.kind.clone(), refusal.about.name.clone());
            let namespace = refusal.about.namespace.clone();
            tracing::warn!(kind, namespace, name, reason = refusal.reason, "no sidecar was injected");
            (self.notice)(refusal.about, NOT_INJECTED, refusal.reason);
        }
        ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
    }

    fn facts(&self, name: &str, enabled: bool) -> NamespaceFacts {
        let known = (self.namespaces)(name);
        // One that is not known yet is new: the API server shows only pods that ask, or whose namespace does.
        let enabled = enabled || known.is_none();
        let mut facts =
            known.unwrap_or_else(|| NamespaceFacts { name: name.to_owned(), ..NamespaceFacts::default() });
        if enabled {
            facts.labels.insert(INJECT.to_owned(), "enabled".to_owned());
        }
        facts
    }
}

async fn by_facts(State(webhook): State<Webhook>, body: Body) -> Response {
    whole(body).await.map_or_else(IntoResponse::into_response, |body| webhook.review(&body, false))
}

async fn by_selector(State(webhook): State<Webhook>, body: Body) -> Response {
    whole(body).await.map_or_else(IntoResponse::into_response, |body| webhook.review(&body, true))
}

async fn whole(body: Body) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(REQUEST, axum::body::to_bytes(body, BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
