//! What one request is answered with.
//!
//! Invariant: nothing of the request is judged; it is told back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use serde_json::json;

use super::Me;

/// The gRPC health check's answer "serving": a message of one field. Source: gRPC's `health.proto`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

pub(super) async fn answer(
    me: Arc<Me>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/grpc.health.v1.Health/Check" {
        return Ok(healthy());
    }
    let number = |prefix: &str| head.uri.path().strip_prefix(prefix)?.split('/').next()?.parse::<u16>().ok();
    if let Some(time) = number("/delay/") {
        crate::after(Duration::from_millis(time.into())).await;
    }
    // A body that breaks off is told as what came.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let told = json!({
        "pod": me.pod,
        "version": me.version,
        "peer": peer.ip().to_canonical().to_string(),
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
        "http": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut response = Response::new(Full::from(told.to_string()).boxed());
    let status = number("/status/").and_then(|code| StatusCode::from_u16(code).ok());
    *response.status_mut() = status.unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A pod's name is a DNS label.
    let pod = HeaderValue::from_str(&me.pod).unwrap_or(HeaderValue::from_static("?"));
    response.headers_mut().insert("x-pod", pod);
    Ok(response)
}

fn healthy() -> Response<BoxBody<Bytes, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::from(SERVING).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
