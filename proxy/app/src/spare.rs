//! A second copy of a request, for another attempt after the first was sent.
//!
//! Only requests without a body have one: the head is cheap to copy, a body is not held.
//!
//! Invariant: the copy is the request as it was first sent.

use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body as _;
use weft_proxy_net::http::Body;

use crate::exchange::{Outgoing, RequestBody};

/// The head of a request that has no body.
pub(crate) struct Spare {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

/// A copy, where another attempt could ever be safe: an idempotent method and no body.
pub(crate) fn of(request: &Request<RequestBody>) -> Option<Spare> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    Some(Spare {
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        headers: request.headers().clone(),
    })
}

impl Spare {
    /// The request once more.
    pub(crate) fn into_request(self) -> Outgoing {
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        Box::new(request)
    }
}
