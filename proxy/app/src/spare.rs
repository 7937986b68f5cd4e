//! A second copy of a request, for another attempt after the first was sent.
//!
//! The head is cheap to copy; of the body what was kept is used, if it is all of it (see `kept`).
//!
//! Invariant: the copy is the request as it was first sent.

use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body as _;
use weft_proxy_net::http::Body;

use crate::exchange::{Outgoing, RequestBody};

/// The head of a request.
pub(crate) struct Spare {
    bodiless: bool,
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

/// A copy of its head.
pub(crate) fn of(request: &Request<RequestBody>) -> Spare {
    Spare {
        bodiless: request.body().is_end_stream(),
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        headers: request.headers().clone(),
    }
}

impl Spare {
    /// The request once more; `kept`: its body, where it has one. `None`: a part of it is gone.
    pub(crate) fn into_request(self, kept: Option<RequestBody>) -> Option<Outgoing> {
        let body = if self.bodiless { Body::Empty } else { kept? };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        Some(Box::new(request))
    }
}
