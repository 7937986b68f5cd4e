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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

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

/// Serves until it is told to end (SIGTERM), and then finishes what it is at: the first process of a container
/// that does not listen for that signal is waited for in vain, 30 s each time.
///
/// # Errors
/// When the address cannot be bound.
///
/// # Cancel safety
/// Dropping the future stops serving.
pub(crate) async fn serve(args: ServiceArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let mut told = signal(SignalKind::terminate())?;
    serve_until(listener, args, async move {
        told.recv().await;
    })
    .await
}

async fn serve_until(
    listener: TcpListener,
    args: ServiceArgs,
    told: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut told = std::pin::pin!(told);
    let service = Arc::new(Service { args, broken: AtomicBool::new(false) });
    let (leave, leaving) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(connection(service.clone(), accepted?.0, leaving.clone()));
            }
            Some(_) = connections.join_next() => {}
            () = told.as_mut() => break,
        }
    }
    drop(listener);
    leave.send_replace(true);
    // Whoever is not done by then is cut off.
    let _ = tokio::time::timeout(LAST_WORDS, connections.join_all()).await;
    Ok(())
}

/// One connection; once the service leaves, its current request is its last.
async fn connection(service: Arc<Service>, stream: TcpStream, mut leaving: watch::Receiver<bool>) {
    let answer = hyper::service::service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        // A caller that leaves is no concern of the service.
        _ = serving.as_mut() => {}
        _ = leaving.changed() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
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

/// For what is in flight when it ends. Source: well below the 30 s that Kubernetes waits.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Source: longer than any sidecar deadline in the demo's manifests.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_service_that_is_told_to_end_finishes_what_it_is_at_and_takes_nothing_new() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let args = ServiceArgs {
            pod: "front".to_owned(),
            version: "v1".to_owned(),
            listen: address,
            calls: vec![format!("other={}/", other.local_addr().unwrap())],
        };
        let (tell, told) = oneshot::channel();
        let serving = tokio::spawn(serve_until(listener, args, async move { drop(told.await) }));
        let asking = tokio::spawn(async move { get(&format!("{address}/"), &HeaderMap::new()).await });
        let (mut asked, _) = other.accept().await.unwrap();
        tell.send(()).unwrap();
        // Refused once it has heard; what it is at goes on.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        let (status, body) = asking.await.unwrap().unwrap();
        assert_eq!(status, StatusCode::OK, "{body:?}");
        serving.await.unwrap().unwrap();
        let mut rest = Vec::new();
        asked.read_to_end(&mut rest).await.unwrap();
    }
}
