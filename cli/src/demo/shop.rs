//! The demo's services: one small HTTP program that plays shop, catalog, cart or payments.
//!
//! Plain HTTP as any application would write it; all that the mesh does happens in the sidecars. It
//! only forwards the trace headers it was called with, as every traced application must.
//!
//! Invariant: a call that fails makes the answer poorer, never an error: a failing payment service
//! does not take the shop down.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Arguments of one service.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServiceArgs {
    /// Name of the pod it plays; comes back in every answer.
    #[arg(long)]
    pod: String,
    /// Version it plays; comes back in every answer.
    #[arg(long, default_value = "v1")]
    version: String,
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Services it calls for every request: name=address:port/path, through its sidecar.
    #[arg(long = "call")]
    calls: Vec<String>,
}

struct Service {
    args: ServiceArgs,
    broken: AtomicBool,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the address cannot be bound.
///
/// # Cancel safety
/// Dropping the future stops serving.
pub(crate) async fn serve(args: ServiceArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let service = Arc::new(Service { args, broken: AtomicBool::new(false) });
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(service.answer(request).await) }
            });
            // A caller that leaves is no concern of the service.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/break" => self.broken.store(true, Ordering::Relaxed),
            "/repair" => self.broken.store(false, Ordering::Relaxed),
            _ if self.broken.load(Ordering::Relaxed) => {
                let body = json!({ "pod": self.args.pod, "error": "this replica is broken" });
                return reply(StatusCode::SERVICE_UNAVAILABLE, &body);
            }
            _ => {}
        }
        let mut answer = json!({ "pod": self.args.pod, "version": self.args.version });
        for call in &self.args.calls {
            if let Some((name, target)) = call.split_once('=') {
                answer[name] = self.call(target, request.headers()).await;
            }
        }
        reply(StatusCode::OK, &answer)
    }

    /// One call to another service; what went wrong becomes part of the answer.
    async fn call(&self, target: &str, headers: &HeaderMap) -> Value {
        match tokio::time::timeout(CALL_TIMEOUT, get(target, &trace_of(headers))).await {
            Ok(Ok((status, body))) => {
                let mut value: Value = serde_json::from_slice(&body)
                    .unwrap_or_else(|_| json!({ "text": String::from_utf8_lossy(&body).trim() }));
                value["status"] = json!(status.as_u16());
                value
            }
            Ok(Err(error)) => json!({ "status": 0, "error": error.to_string() }),
            Err(_) => json!({ "status": 0, "error": "no answer in time" }),
        }
    }
}

/// What a service hands on of the headers that it was called with.
fn trace_of(headers: &HeaderMap) -> HeaderMap {
    let given = |name| Some((HeaderName::from_static(name), headers.get(name)?.clone()));
    TRACE_HEADERS.into_iter().filter_map(given).collect()
}

/// Fetches `address:port/path` with these headers.
///
/// # Errors
/// When the peer cannot be reached or breaks off.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn get(target: &str, headers: &HeaderMap) -> anyhow::Result<(StatusCode, Bytes)> {
    let (address, path) = target.split_once('/').unwrap_or((target, ""));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(format!("/{path}")).header("host", address);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// What a traced application hands on. Source: W3C Trace Context; B3 Propagation.
const TRACE_HEADERS: [&str; 7] =
    ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-request-id"];

/// Source: longer than any sidecar deadline in the demo's manifests.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
