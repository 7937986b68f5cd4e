//! One HTTP request to a pod, through the API server, as `kubectl port-forward` would carry it.
//!
//! Invariant: the answer is bounded, in bytes and in time.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

/// Deadline of a whole request. Source: Weft's own; the slowest answer is a status of thousands of
/// sidecars.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of an answer. Source: 400 bytes for each of 100,000 sidecars, and room.
const LARGEST: usize = 64 << 20;

/// Gets a path from a port of a pod.
///
/// # Errors
/// The pod cannot be reached, or answers with anything but 200.
///
/// # Cancel safety
/// Dropping it closes the connection.
pub(crate) async fn get(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> anyhow::Result<Bytes> {
    let place = || format!("asking {namespace}/{pod} for {path}");
    tokio::time::timeout(DEADLINE, ask(client, namespace, pod, port, path))
        .await
        .map_err(|_| anyhow::anyhow!("no answer in {} s", DEADLINE.as_secs()))
        .and_then(|answer| answer)
        .with_context(place)
}

async fn ask(client: &Client, namespace: &str, pod: &str, port: u16, path: &str) -> anyhow::Result<Bytes> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = pods.portforward(pod, &[port]).await.map_err(super::explain)?;
    let stream = forwarder.take_stream(port).context("no stream to the pod")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path).header(http::header::HOST, pod).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        if status != http::StatusCode::OK {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}
