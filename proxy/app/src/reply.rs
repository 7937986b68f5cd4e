//! Answers of the sidecar's own: refusals, redirects, failures.
//!
//! Stands at the end of every walk that does not reach an upstream. HTTP callers get a status and a
//! sentence, gRPC callers a trailers-only answer with the matching code.
//!
//! Invariant: every own answer says its reason code in `weft-reason`, and nothing about the inside.

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode, Version};
use std::borrow::Cow;
use weft_proxy_core::outbound::Reply;
use weft_proxy_core::reason::GrpcCode;
use weft_proxy_core::retry::UNANSWERED;
use weft_proxy_core::{Reason, Refusal};
use weft_proxy_net::http::Body;

use crate::exchange::ResponseBody;

/// Names the reason of an answer of our own.
pub(crate) const WEFT_REASON: HeaderName = HeaderName::from_static("weft-reason");
/// Names the reason in Envoy's letters, where every answer tells about its request.
pub(crate) const WEFT_FLAGS: HeaderName = HeaderName::from_static("weft-flags");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// An answer of our own, before it is put into HTTP.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) status: StatusCode,
    pub(crate) reason: Reason,
    pub(crate) location: Option<HeaderValue>,
    pub(crate) message: Cow<'static, str>,
    /// The connection cannot be used further.
    pub(crate) close: bool,
    /// What the application can have seen of the request: for the caller's sidecar, which reads HTTP.
    pub(crate) told: Option<&'static str>,
}

impl From<Reason> for Own {
    fn from(reason: Reason) -> Self {
        Self {
            status: reason.status(),
            reason,
            location: None,
            message: Cow::Borrowed(message(reason)),
            close: false,
            told: None,
        }
    }
}

impl From<Refusal> for Own {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, close: refusal.close, ..Self::from(refusal.reason) }
    }
}

impl From<Reply> for Own {
    fn from(reply: Reply) -> Self {
        Self {
            status: reply.status,
            reason: reply.reason,
            location: reply.location,
            message: reply.message,
            close: false,
            told: None,
        }
    }
}

impl Own {
    /// The answer for a caller that speaks `version`, and gRPC or not.
    pub(crate) fn respond(self, version: Version, grpc: bool) -> Response<ResponseBody> {
        let mut response = if grpc && self.told.is_none() { self.grpc() } else { self.http() };
        *response.version_mut() = if version == Version::HTTP_10 { Version::HTTP_11 } else { version };
        if self.close && version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// A reply of the configuration has the code of its status, anything else that of its reason.
    fn grpc_code(&self) -> GrpcCode {
        match self.reason {
            Reason::ConfigReply => GrpcCode::of_status(self.status),
            reason => reason.grpc(),
        }
    }

    fn grpc(&self) -> Response<ResponseBody> {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(self.grpc_code() as u16));
        if let Ok(message) = HeaderValue::from_str(&percent(&self.message)) {
            headers.insert(GRPC_MESSAGE, message);
        }
        headers.insert(WEFT_REASON, HeaderValue::from_static(self.reason.name()));
        response
    }

    fn http(&self) -> Response<ResponseBody> {
        let text = format!("{}\n", self.message);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(WEFT_REASON, HeaderValue::from_static(self.reason.name()));
        if let Some(told) = self.told {
            headers.insert(UNANSWERED, HeaderValue::from_static(told));
        }
        if let Some(location) = &self.location {
            headers.insert(LOCATION, location.clone());
        }
        if self.status.is_redirection() || matches!(self.status.as_u16(), 204 | 304) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len() as u64));
        *response.body_mut() = Body::Full(text.into());
        response
    }
}

/// What the caller is told; operators find more in the log.
fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::DeniedByPolicy => "denied by policy",
        Reason::MtlsRequired => "this port accepts mutual TLS of the mesh only",
        Reason::PolicyMissing => "denied: a policy that applies has not arrived yet",
        Reason::NoEndpoint => "no endpoint is ready",
        Reason::CircuitOpen => "the circuit is open: all endpoints are ejected",
        Reason::RequestTimeout | Reason::AttemptTimeout => "no answer within the deadline",
        Reason::ConnectTimeout | Reason::ConnectRefused => "the upstream cannot be reached",
        Reason::UpstreamReset => "the upstream closed before it answered",
        Reason::UpstreamProtocol => "the upstream's answer is not valid HTTP",
        _ => reason.name(),
    }
}

/// Whether a request is a gRPC call. Source: gRPC over HTTP/2, "Content-Type".
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    weft_proxy_core::head::is_grpc(headers)
}

/// A message as `grpc-message` carries it. Source: gRPC over HTTP/2, "Percent-Encoded".
fn percent(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_caller_gets_a_trailers_only_answer() {
        let response = Own::from(Reason::DeniedByPolicy).respond(Version::HTTP_2, true);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["weft-reason"], Reason::DeniedByPolicy.name());
    }

    #[test]
    fn an_http_caller_gets_the_status_and_a_sentence() {
        let response = Own::from(Reason::DeniedByPolicy).respond(Version::HTTP_11, false);
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(matches!(response.body(), Body::Full(text) if text.ends_with(b"\n")));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), grpc, "{value}");
        }
    }
}
